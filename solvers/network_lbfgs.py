"""L-BFGS on the original network."""

from convexnn_bench.algorithms.descent import FinishedNetworkSolver, StepDone, Vector, lbfgs
from convexnn_bench.solver import Whole


class Solver(FinishedNetworkSolver):
    """L-BFGS with a strong-Wolfe line search.

    Parameters
    ----------
    width : int or None
        Neurons; by default as many as the Burer-Monteiro default has columns, or as many as the start needs.
    finish : bool
        For ReLU on data of moderate size, go on by Newton's method between kinks once progress is slow.
    history : int
        Number of stored pairs of moves and changes of the gradient.
    """

    name = "network_lbfgs"
    parameters = {**FinishedNetworkSolver.parameters, "history": [20]}
    allowed = {**FinishedNetworkSolver.allowed, "history": Whole()}
    history: int

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return lbfgs(self.objective, x, self.until_slow(step_done, 50), self.history)
