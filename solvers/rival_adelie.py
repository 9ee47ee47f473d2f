"""adelie's group lasso by block coordinate descent, in its own environment (make rivals)."""

from convexnn_bench.algorithms.rivals import RivalSolver


class Solver(RivalSolver):
    """adelie (Yang & Hastie 2024). tolerance: of its coordinate descent, and of its Newton steps for logistic loss."""

    name = "rival_adelie"
    rival = "adelie"
    package = "adelie"
    parameters = {**RivalSolver.parameters, "tolerance": [1e-7]}
    losses = ("squared", "logistic")
    relu = (
        "adelie's linear constraints are not reliable enough on ReLU cones: below its default tolerance it ends "
        "without a solution (seen with n = 100, d = 5, 30 patterns, which cvxpy_clarabel solves): use gated_relu"
    )
