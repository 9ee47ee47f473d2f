"""First-order methods on factors, on networks, and by proximal steps.

The cones are constraints.
"""

from convexnn_bench.algorithms.descent.augmented_lagrangian import outer_loop
from convexnn_bench.algorithms.descent.bm_objective import BMObjective
from convexnn_bench.algorithms.descent.methods import (
    StepDone,
    Vector,
    adam,
    gradient_descent,
    lbfgs,
    momentum_sgd,
    spectral_projected_gradient,
)
from convexnn_bench.algorithms.descent.network_objective import Minibatches, NetworkObjective
from convexnn_bench.algorithms.descent.proximal_gradient import fista
from convexnn_bench.algorithms.descent.scaled_gradient import ScaledMetric
from convexnn_bench.algorithms.descent.solvers import BurerMonteiroSolver, FinishedNetworkSolver, NetworkSolver
