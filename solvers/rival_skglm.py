"""skglm's group lasso by accelerated block coordinate descent, in its own environment (make rivals)."""

from convexnn_bench.algorithms.rival import RivalSolver


class Solver(RivalSolver):
    """skglm (Bertrand et al. 2022).

    Parameters
    ----------
    tolerance : float
        Tolerance of the distance to the subgradients, in units of its own objective.
    path : bool
        Solve for 1e-2, 1e-3, ... down to `tolerance`, each from the last point, and score all; else solve once, from
        zero.

    Notes
    -----
    numba compiles before the clock starts, in every process anew. The matrix [D_1 Phi ... D_P Phi] is formed in
    float64, which takes 8 n P d bytes. Its time is part of the set-up.
    """

    name = "rival_skglm"
    rival = "skglm"
    package = "skglm"
    start_seconds = 600.0  # numba compiles for half a minute and more
    losses = ("squared", "logistic")
    relu = "skglm has group lasso penalties without cones, which make another program: use gated_relu"
