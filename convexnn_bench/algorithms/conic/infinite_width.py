"""The semidefinite relaxation of training a two-layer ReLU network of infinite width, stated in CVXPY.

A neuron (u, v) has the vector w = (a, b, u, v) with a = max(X u, 0) and b = max(-X u, 0). The sum W of w w^T over all
neurons is completely positive in (a, b), and prediction and weight decay are linear in it (Prakhya, Birdal & Yurtsever,
ICLR 2025). The relaxation keeps of this

    min F(W_av) + beta/2 (tr W_uu + tr W_vv)
    subject to  W >= 0 (semidefinite),  W_aa, W_ab, W_bb >= 0 (entrywise),  diag W_ab = 0,  X u = a - b for all neurons.

The last condition says b = a - X u, so that W has the coordinates (a, u, v) alone, n + d + c instead of 2 n + d + c:
W_ab = W_aa - W_au X^T and W_bb = W_aa - W_au X^T - X W_ua + X W_uu X^T. Its value is a lower bound on the optimum over
all networks. The multiplier of z = W_av is a dual point, from which `certify` computes a bound of its own.
"""

from typing import Any

import numpy as np

from convexnn_bench.algorithms.conic.cost import COMPILED_ENTRY, Cost
from convexnn_bench.algorithms.conic.program import ConicProgram
from convexnn_bench.formulations import Point
from convexnn_bench.problem import Problem


def infinite_width_program(problem: Problem) -> ConicProgram:
    """Return the relaxation, with the zero network and the relaxation's multiplier as its point.

    Raise OutOfTime if the solver could not stop before the deadline.
    """
    import cvxpy as cp

    X, n, p, c = problem.Phi, problem.n_out, problem.p, problem.c
    size = n + p + c
    cost = Cost(compile=COMPILED_ENTRY * n * n * p**2) + Cost.of_inequalities(1, size)
    cost.check(size * (size + 1) // 2)
    W: Any = cp.Variable((size, size), PSD=True)
    z: Any = cp.Variable((n, c))
    aa, au, uu = W[:n, :n], W[:n, n : n + p], W[n : n + p, n : n + p]
    value, domain = problem.loss.cvxpy_value(z, problem.Y)
    unit = float(problem.loss.value(problem.operator().Y * 0, problem.operator().Y)) or 1.0
    link = z == W[:n, n + p :]
    ab = aa - au @ X.T
    bb = ab - X @ au.T + X @ uu @ X.T
    decay = 0.5 * problem.beta * (cp.trace(uu) + cp.trace(W[n + p :, n + p :]))
    program = cp.Problem(
        cp.Minimize((value + decay) / unit), [*domain, link, aa >= 0, ab >= 0, bb >= 0, cp.diag(ab) == 0]
    )

    def point() -> Point:
        # Stationarity in z of the Lagrangian: grad F(z) / unit + multiplier = 0, and Lambda = grad F(z).
        dual = -unit * np.reshape(link.dual_value, (n, c))
        return Point(network=(np.zeros((p, 1)), np.zeros((problem.q, 1))), dual=dual)

    def remark(point: Point) -> str:
        return f"the relaxation's value is {unit * float(program.value):.9g}, and its point the zero network"

    return ConicProgram(program, point, remark=remark, cost=cost)
