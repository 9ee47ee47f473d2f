"""The Burer-Monteiro program stated in CVXPY, for solvers of smooth nonlinear programs.

    min F(z) + beta/2 (||U||_F^2 + ||V||_F^2)   subject to   vec(z) = R^T vec(U_k V_k^T, k = 1..P),

and F_k U_k >= 0 for ReLU. R is the flat map of `maps`, and F_k are the non-redundant rows of the cone K_k. The entries
of all U_k V_k^T are sums over columns j of (E_U U)_j (E_V V)_j, where E_U and E_V repeat entries: the only products of
variables. CVXPY states the program as one of smooth functions (disciplined nonlinear programming) and supplies exact
derivatives. Their Hessian is sparse, since z is a variable of its own.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from convexnn_bench.algorithms.conic.maps import adjoint_map, facet_rows
from convexnn_bench.errors import ConvexNNError
from convexnn_bench.formulations import Point, burer_monteiro
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback, Number, Whole

READING = 0.9  # of the time limit is for the external solver; the rest is for its derivatives and the point


def factorised_program(problem: Problem, U: np.ndarray, V: np.ndarray) -> tuple[Any, Callable[[], Point]]:
    """Return the CVXPY program with the start (U, V), P x p x m and P x q x m, and a function that reads its point."""
    import cvxpy as cp

    (P, p, m), q = U.shape, problem.q
    k, a, b = (index.ravel() for index in np.indices((P, p, q)))
    entries, ones = np.arange(P * p * q), np.ones(P * p * q)
    repeat_U = sp.csr_array((ones, (entries, k * p + a)), shape=(P * p * q, P * p))
    repeat_V = sp.csr_array((ones, (entries, k * q + b)), shape=(P * p * q, P * q))
    left: Any = cp.Variable((P * p, m))
    right: Any = cp.Variable((P * q, m))
    z: Any = cp.Variable((problem.n_out, problem.c))
    left.value, right.value = U.reshape(P * p, m), V.reshape(P * q, m)
    z.value = problem.predict(U @ V.transpose(0, 2, 1)).reshape(problem.n_out, problem.c)
    blocks = cp.sum(cp.multiply(repeat_U @ left, repeat_V @ right), axis=1)
    value, domain = problem.loss.cvxpy_value(z, problem.Y)
    constraints = [*domain, cp.vec(z, order="C") == adjoint_map(problem, tree=False).R.T @ blocks]
    if problem.has_cone:
        constraints.append(facet_rows(problem) @ left >= 0)
    decay = 0.5 * problem.beta * (cp.sum_squares(left) + cp.sum_squares(right))

    def point() -> Point:
        factors = (torch.as_tensor(left.value.reshape(P, p, m)), torch.as_tensor(right.value.reshape(P, q, m)))
        if problem.has_cone:
            factors = (burer_monteiro.project(problem, factors[0]), factors[1])
        return Point(factors=factors)

    return cp.Problem(cp.Minimize(value + decay), constraints), point


class FactorisedSolver(BaseSolver):
    """The Burer-Monteiro program by a solver of nonlinear programs, on the CPU whatever `device` says.

    A subclass defines `backend`, the name that CVXPY gives the solver, and `options`. m: columns of a block, by default
    as many as exclude spurious second-order points; for ReLU 2 with one output and p with several.
    """

    formulation = "burer_monteiro"
    one_shot = True
    backend: str
    parameters = {"tolerance": [1e-9], "max_iter": [3000], "m": [None]}
    allowed = {"tolerance": Number(high=1.0), "max_iter": Whole(), "m": Whole(optional=True)}
    tolerance: float
    max_iter: int
    m: int | None

    def options(self) -> dict[str, Any]:
        """Return the solver's options, which silence it."""
        raise TypeError(f"{type(self).__name__} must define options")

    @property
    def seconds(self) -> float:
        """Return the time limit of the external solver, which is large where there is none."""
        return 1e9 if self.time_limit is None else READING * self.time_limit

    def skip(self, problem: Problem) -> str | None:
        import cvxpy as cp

        if problem.is_sparse:
            return f"{self.name} states a program with the entries of X, which is sparse: give X.toarray()"
        z = cp.Variable((problem.n_out, problem.c))
        value, _ = problem.loss.cvxpy_value(z, problem.Y)
        # CVXPY 1.9 has no derivatives of log-sum-exp along an axis, and finds out only when it solves
        if not cp.Minimize(value).is_dnlp() or cp.log_sum_exp in value.atoms():
            return f"the loss {problem.loss.name} as CVXPY states it is no smooth nonlinear program"
        return super().skip(problem)

    def set_problem(self, problem: Problem) -> None:
        """State the program at a random start."""
        m = burer_monteiro.default_columns(problem) if self.m is None else self.m
        U, V = burer_monteiro.start(problem, problem.operator(), m, self.seed)
        self._point = Point(factors=(U, V))
        self._program, self._read = factorised_program(problem, U.numpy(), V.numpy())

    def run(self, callback: Callback) -> None:
        """Let CVXPY compile and solve the program, which is one call, read the point and call back once.

        A point at which a limit ended the solver is accepted, since the certificate judges it. If the solver fails, the
        start remains.
        """
        import cvxpy as cp

        try:
            self._program.solve(nlp=True, solver=self.backend, **self.options())
        except (cp.SolverError, ValueError) as error:
            raise ConvexNNError(f"{self.name}: the solver failed: {' '.join(str(error).split())}") from error
        self.message = f"{self.backend}: {self._program.status}"
        if self._program.status in ("optimal", "optimal_inaccurate", "user_limit"):
            self._point = self._read()
        callback()

    def get_result(self) -> Point:
        return self._point
