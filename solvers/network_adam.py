"""Adam on the original network, on all samples."""

from convexnn_bench.algorithms.descent import FinishedNetworkSolver, StepDone, Vector, adam
from convexnn_bench.solver import Number


class Solver(FinishedNetworkSolver):
    """Adam (Kingma & Ba, 2015).

    Parameters
    ----------
    width : int or None
        Neurons; by default as many as the Burer-Monteiro default has columns, or as many as the start needs.
    finish : bool
        For ReLU on data of moderate size, go on by Newton's method between kinks once progress is slow.
    rate : float
        Length of the first step, relative to the mean size of an entry of the start point.
    """

    name = "network_adam"
    parameters = {**FinishedNetworkSolver.parameters, "rate": [0.1]}
    allowed = {**FinishedNetworkSolver.allowed, "rate": Number()}
    rate: float

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return adam(self.objective, x, self.until_slow(step_done, 200), self.rate * self.entry_scale)
