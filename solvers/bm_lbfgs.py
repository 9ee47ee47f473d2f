"""L-BFGS on the Burer-Monteiro factorisation; an augmented Lagrangian keeps the cones for ReLU."""

from convexnn_bench.algorithms.descent import BurerMonteiroSolver, StepDone, Vector, lbfgs, outer_loop
from convexnn_bench.solver import Whole


class Solver(BurerMonteiroSolver):
    """history: number of stored pairs."""

    name = "bm_lbfgs"
    parameters = {**BurerMonteiroSolver.parameters, "history": [20]}
    allowed = {**BurerMonteiroSolver.allowed, "history": Whole()}
    history: int

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return outer_loop(
            self.objective, lambda y, done: lbfgs(self.objective, y, done, self.history), x, step_done, self.finishes
        )
