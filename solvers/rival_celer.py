"""celer's group lasso by working sets with dual extrapolation, in its own environment (make rivals)."""

from convexnn_bench.algorithms.rival import RivalSolver


class Solver(RivalSolver):
    """celer (Massias, Gramfort & Salmon 2018).

    Parameters
    ----------
    tolerance : float
        Tolerance of its duality gap, in units of ||y||^2 / n.
    path : bool
        Solve for 1e-2, 1e-3, ... down to `tolerance`, each from the last point, and score all; else solve once, from
        zero.

    Notes
    -----
    The matrix [D_1 Phi ... D_P Phi] is formed in float64, which takes 8 n P d bytes. Its time is part of the set-up.
    """

    name = "rival_celer"
    rival = "celer"
    package = "celer"
    losses = ("squared",)
    relu = "celer has group lasso penalties without cones, which make another program: use gated_relu"
