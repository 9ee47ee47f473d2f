"""L-BFGS on the Burer-Monteiro factorisation.

For ReLU it runs inside an augmented Lagrangian for the cones.
"""

from convexnn_bench.algorithms.descent import BurerMonteiroSolver, StepDone, Vector, lbfgs, outer_loop
from convexnn_bench.solver import Whole


class Solver(BurerMonteiroSolver):
    """L-BFGS with a strong-Wolfe line search.

    Parameters
    ----------
    m : int or None
        Columns of a block; by default min(p, q), for ReLU 2 with one output and p with several, or as many as the start
        needs.
    finish : bool
        For ReLU on data of moderate size, go on from the last point by Newton's method on the faces of the cones.
    history : int
        Number of stored pairs of moves and changes of the gradient.
    """

    name = "bm_lbfgs"
    parameters = {**BurerMonteiroSolver.parameters, "history": [20]}
    allowed = {**BurerMonteiroSolver.allowed, "history": Whole()}
    history: int

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        return outer_loop(
            self.objective, lambda y, done: lbfgs(self.objective, y, done, self.history), x, step_done, self.finishes
        )
