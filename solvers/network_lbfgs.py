"""L-BFGS on the original network."""

from convexnn_bench.algorithms.descent import NetworkSolver
from convexnn_bench.algorithms.first_order import StepDone, Vector, lbfgs
from convexnn_bench.solver import Whole


class Solver(NetworkSolver):
    """history: number of stored pairs."""

    name = "network_lbfgs"
    parameters = {**NetworkSolver.parameters, "history": [20]}
    allowed = {**NetworkSolver.allowed, "history": Whole()}
    history: int

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return lbfgs(self.objective, x, step_done, self.history)
