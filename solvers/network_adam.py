"""Adam on the original network, full batch."""

from convexnn_bench.algorithms.descent import NetworkSolver
from convexnn_bench.algorithms.first_order import StepDone, Vector, adam
from convexnn_bench.solver import Number


class Solver(NetworkSolver):
    """rate: length of the first step in units of the start point's entries."""

    name = "network_adam"
    parameters = {**NetworkSolver.parameters, "rate": [0.1]}
    allowed = {**NetworkSolver.allowed, "rate": Number()}
    rate: float

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return adam(self.objective, x, step_done, self.rate * self.objective.entry_scale())
