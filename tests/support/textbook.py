"""The convex program written straight from its equation, block by block, as the independent route to optima."""

import warnings

import cvxpy as cp
import numpy as np

import convexnn_bench as cnn


def loss_expression(loss: "cnn.BaseLoss", z: cp.Expression, Y: np.ndarray) -> cp.Expression:
    """Each loss from CVXPY's atoms, apart from the package's own expressions."""
    name = loss.name
    if name == "squared":
        return 0.5 * cp.sum_squares(z - Y)
    if name == "cross_entropy":
        return sum(cp.log_sum_exp(z[i]) - Y[i] @ z[i] for i in range(Y.shape[0]))
    if name == "logistic":
        return cp.sum(cp.logistic(-cp.multiply(Y, z)))
    if name == "squared_hinge":
        return 0.5 * cp.sum(cp.square(cp.pos(1 - cp.multiply(Y, z))))
    if name == "huber":
        return 0.5 * cp.sum(cp.huber(z - Y, M=loss.delta))
    raise KeyError(name)


def weighted_loss(problem: "cnn.Problem", z: cp.Expression) -> cp.Expression:
    """The loss with its sample weights, one row at a time, and with its output bias as a variable."""
    loss, penalty = problem.loss, 0
    if problem.output_bias is not None:
        b = cp.Variable((1, problem.c))
        z = z + np.ones((problem.n_out, 1)) @ b
        penalty = 0.5 * problem.beta * cp.sum_squares(b) if problem.output_bias == "penalised" else 0
        loss = loss.loss
    if problem.sample_weight is None:
        return loss_expression(loss, z, problem.Y) + penalty
    rows = [(float(w), slice(i, i + 1)) for i, w in enumerate(problem.sample_weight)]
    return penalty + sum(w * loss_expression(loss.loss, z[row], problem.Y[row]) for w, row in rows)


def textbook_optimum(problem: "cnn.Problem") -> float:
    """p* by Clarabel on the loop form, tight tolerances. MLP only."""
    total, regulariser, constraints = 0, 0, []
    for k in range(problem.P):
        D = problem.masks[:, k].astype(float)[:, None]
        if problem.has_cone:
            u, w = cp.Variable((problem.p, 1)), cp.Variable((problem.p, 1))
            K = (2 * D - 1) * problem.X
            constraints += [K @ u >= 0, K @ w >= 0]
            regulariser += cp.norm(u, 2) + cp.norm(w, 2)
            total += (D * problem.X) @ (u - w)
        else:
            Z = cp.Variable((problem.p, problem.q))
            regulariser += cp.norm(Z, "nuc") if min(Z.shape) > 1 else cp.norm(cp.vec(Z, order="C"), 2)
            total += (D * problem.X) @ Z
    program = cp.Problem(cp.Minimize(weighted_loss(problem, total) + problem.beta * regulariser), constraints)
    with warnings.catch_warnings():
        # the tolerance is below what Clarabel always reaches; the status is checked instead
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        program.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    assert program.status in ("optimal", "optimal_inaccurate"), program.status
    return float(np.asarray(program.value))
