"""Adam on the Burer-Monteiro factorisation.

For ReLU it runs inside an augmented Lagrangian for the cones.
"""

from convexnn_bench.algorithms.descent import BurerMonteiroSolver, StepDone, Vector, adam, outer_loop
from convexnn_bench.solver import Number


class Solver(BurerMonteiroSolver):
    """Adam (Kingma & Ba, 2015).

    Parameters
    ----------
    m : int or None
        Columns of a block; by default min(p, q), for ReLU 2 with one output and p with several, or as many as the start
        needs.
    finish : bool
        For ReLU on data of moderate size, go on from the last point by Newton's method on the faces of the cones.
    rate : float
        Length of the first step, relative to the mean size of an entry of the start point.
    """

    name = "bm_adam"
    parameters = {**BurerMonteiroSolver.parameters, "rate": [0.1]}
    allowed = {**BurerMonteiroSolver.allowed, "rate": Number()}
    rate: float

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        rate = self.rate * self.entry_scale
        return outer_loop(
            self.objective, lambda y, done: adam(self.objective, y, done, rate), x, step_done, self.finishes
        )
