"""Adam on the original network, full batch."""

from convexnn_bench.algorithms.descent import FinishedNetworkSolver, StepDone, Vector, adam
from convexnn_bench.solver import Number


class Solver(FinishedNetworkSolver):
    """rate: length of the first step in units of the start point's entries."""

    name = "network_adam"
    parameters = {**FinishedNetworkSolver.parameters, "rate": [0.1]}
    allowed = {**FinishedNetworkSolver.allowed, "rate": Number()}
    rate: float

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return adam(self.objective, x, self.until_slow(step_done, 200), self.rate * self.objective.entry_scale())
