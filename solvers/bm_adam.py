"""Adam on the Burer-Monteiro factorisation; an augmented Lagrangian keeps the cones for ReLU."""

from convexnn_bench.algorithms.descent import BurerMonteiroSolver, StepDone, Vector, adam, outer_loop
from convexnn_bench.solver import Number


class Solver(BurerMonteiroSolver):
    """rate: length of the first step in units of the start point's entries."""

    name = "bm_adam"
    parameters = {**BurerMonteiroSolver.parameters, "rate": [0.1]}
    allowed = {**BurerMonteiroSolver.allowed, "rate": Number()}
    rate: float

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        rate = self.rate * self.objective.entry_scale()
        return outer_loop(
            self.objective, lambda y, done: adam(self.objective, y, done, rate), x, step_done, self.finishes
        )
