"""L-BFGS on the original network."""

from convexnn_bench.algorithms.descent import FinishedNetworkSolver, StepDone, Vector, lbfgs
from convexnn_bench.solver import Whole


class Solver(FinishedNetworkSolver):
    """history: number of stored pairs."""

    name = "network_lbfgs"
    parameters = {**FinishedNetworkSolver.parameters, "history": [20]}
    allowed = {**FinishedNetworkSolver.allowed, "history": Whole()}
    history: int

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return lbfgs(self.objective, x, self.until_slow(step_done, 50), self.history)
