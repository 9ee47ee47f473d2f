"""Gradient descent on the Burer-Monteiro factorisation.

For ReLU it is spectral projected gradient on the cones.
"""

from convexnn_bench.algorithms.descent import (
    BurerMonteiroSolver,
    StepDone,
    Vector,
    gradient_descent,
    spectral_projected_gradient,
)


class Solver(BurerMonteiroSolver):
    """Gradient descent with backtracking, the paper's method.

    With cones it is spectral projected gradient.

    Parameters
    ----------
    m : int or None
        Columns of a block; by default min(p, q), for ReLU 2 with one output and p with several, or as many as the start
        needs.
    finish : bool
        For ReLU on data of moderate size, go on from the last point by Newton's method on the faces of the cones.
    """

    name = "bm_gd"

    def minimise(self, x: Vector, step_done: StepDone) -> str | None:
        # The penalty's Hessian is beta I, for which this step is exact. Backtracking shortens it where the loss curves.
        first_step = 1.0 / self.objective.problem.beta
        if self.objective.problem.has_cone:
            return spectral_projected_gradient(self.objective, x, step_done, self.objective.project, first_step)
        return gradient_descent(self.objective, x, step_done, first_step=first_step)
