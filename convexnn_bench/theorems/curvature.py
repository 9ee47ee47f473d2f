"""The smallest curvature of the factored objective at a point.

It says whether the point is second-order stationary.

The Hessian is formed and decomposed where it is small; else Lanczos' method finds its smallest eigenvalue from Hessian
products (theorems.trust_region), which cost one application of the operator and one of its adjoint each.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from convexnn_bench.certificates import as_point
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.plugins import SEED, Number
from convexnn_bench.problem import Problem
from convexnn_bench.theorems.trust_region import Flat, Hessian, Left, Right

DENSE_SIZE = 200  # variables up to which the Hessian is formed: its decomposition takes milliseconds
TOLERANCES = (1e-12, 1e-9, 1e-6, 1e-3)  # of Lanczos, relative to the norm of the Hessian; tried in turn until one holds
RESTARTS = 200  # restarts of Lanczos' method for each tolerance
BASIS = 40  # Lanczos vectors between restarts


@dataclass(frozen=True)
class Curvature:
    """The smallest eigenvalue of the Hessian of the factored objective.

    The objective is F(A(U V^T)) + beta/2 sum_k (||U_k||^2 + ||V_k||^2).

    Attributes
    ----------
    eigenvalue : float
        The Rayleigh quotient of (dU, dV). It is never below the smallest eigenvalue, up to rounding, so that a negative
        one proves a direction of descent.
    dU, dV : torch.Tensor
        The unit eigenvector, P x p x m and P x q x m.
    residual : float
        ||H v - eigenvalue v||. Some eigenvalue of the Hessian is within this distance of `eigenvalue`.
    gradient_norm, relative_gradient : float
        Norm of the gradient of the objective f, and this norm divided by sqrt(2 beta f).
    iterations : int
        Number of Hessian products.
    method : str
        "dense" computes all eigenvalues. "Lanczos" could miss a smaller one only if its random start vector has no
        component along that eigenvector.
    beta : float
        The weight decay, which is the unit in which to read the curvature.
    generalised : bool
        True for a piecewise quadratic loss (Huber, squared hinge). The Hessian is then an element of the generalised
        Hessian, and at a kink this element is a choice.
    """

    eigenvalue: float
    dU: torch.Tensor = field(repr=False, compare=False)
    dV: torch.Tensor = field(repr=False, compare=False)
    residual: float
    gradient_norm: float
    relative_gradient: float
    iterations: int
    method: str
    beta: float
    generalised: bool

    @property
    def relative(self) -> float:
        """The eigenvalue divided by beta."""
        return self.eigenvalue / self.beta

    def is_second_order(self, tolerance: float = 1e-6) -> bool:
        """Return whether the point is a second-order one up to a tolerance.

        Its relative gradient is then at most `tolerance`, and its curvature at least -tolerance beta.
        """
        Number().check("tolerance", tolerance)
        return self.relative_gradient <= tolerance and self.relative >= -tolerance

    def __str__(self) -> str:
        kind = "generalised Hessian" if self.generalised else "Hessian"
        return (
            f"smallest curvature {self.eigenvalue:.6g} ({self.relative:+.3g} beta), relative gradient "
            f"{self.relative_gradient:.1e}\n"
            f"an eigenvalue of the {kind} lies within {self.residual:.1e} of it, and the smallest is not above it "
            f"({self.method}, {self.iterations} products)"
        )


def check_smooth(problem: Any) -> Problem:
    """Return the problem if the theorems cover it.

    Raise InputError otherwise and, for ReLU, UnsupportedError.
    """
    if not isinstance(problem, Problem):
        raise InputError(f"problem must be a Problem, got {type(problem).__name__}")
    if problem.has_cone:
        raise UnsupportedError(
            f"activation {problem.activation.name!r}: its Burer-Monteiro factors are confined to cones K_k U_k >= 0. "
            "Theorems 3.3 and 3.5 do not cover such constrained minima, only linear and gated activations"
        )
    return problem


def as_factors(problem: Problem, point: Any) -> tuple[Left, Right]:
    """Return (U, V) of a Result, factors, network weights, or blocks (by their SVD)."""
    return as_point(problem, point).to_factors(problem)


def smallest_curvature(problem: Problem, point: Any, seed: int = 0) -> Curvature:
    """Compute the smallest eigenvalue of the factored objective's Hessian.

    It comes with its eigenvector.

    Parameters
    ----------
    problem : Problem
        A problem with linear or gated activation.
    point : Result or arrays
        A Result, or (U, V), P x p x m and P x q x m. Network weights and blocks are turned into factors.
    seed : int
        Seed of the start vector of Lanczos' method, which is used above 200 variables.

    Returns
    -------
    Curvature
        The eigenvalue and eigenvector with their residual, and the gradient at the point.

    Raises
    ------
    UnsupportedError
        If the activation is ReLU.
    InputError
        If the point does not fit the problem.

    Notes
    -----
    At U = V = 0 the smallest curvature is beta - max_k ||G_k||_2. A zero column appended to any point gives the smaller
    of its curvature and this number, so that beta >= ||G_k||_2 at a rank-deficient second-order point (Sahiner et al.,
    ICLR 2024, Theorem 3.3).

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], activation="linear", beta=0.1)
    >>> result = cnn.solve(problem, "bm_newton")
    >>> cnn.smallest_curvature(problem, result).is_second_order()
    True
    """
    problem, seed = check_smooth(problem), SEED.check("seed", seed)
    hessian = Hessian(problem, *as_factors(problem, point))
    gradient = hessian.flat_gradient()
    if not np.isfinite(gradient).all():
        raise InputError("the gradient of the objective overflows float64 at this point")
    size = gradient.size
    # The Hessian takes one product for each variable. Lanczos' method takes fewer only if there are many variables.
    dense = size <= DENSE_SIZE
    vector, products = _dense(hessian, size) if dense else _lanczos(hessian, size, seed)
    image = hessian.flat_product(vector)
    # The Rayleigh quotient of a unit vector is at least the smallest eigenvalue, however accurate the vector is.
    eigenvalue = float(vector @ image)
    dU, dV = hessian.factors(vector)
    return Curvature(
        eigenvalue=eigenvalue,
        dU=dU,
        dV=dV,
        residual=float(np.linalg.norm(image - eigenvalue * vector)),
        gradient_norm=float(np.linalg.norm(gradient)),
        relative_gradient=hessian.relative_gradient,
        # One more product has given `image`.
        iterations=products + 1,
        method="dense" if dense else "Lanczos",
        beta=problem.beta,
        generalised=problem.loss.has_kinks,
    )


def _dense(hessian: Hessian, size: int) -> tuple[Flat, int]:
    """Return the unit eigenvector of the smallest eigenvalue, and the products taken.

    The Hessian is formed column by column.
    """
    # Rounding makes the products slightly asymmetric, and `eigh` would read one triangle only.
    matrix = np.stack([hessian.flat_product(unit) for unit in np.eye(size)])
    return np.ascontiguousarray(np.linalg.eigh(0.5 * (matrix + matrix.T))[1][:, 0]), size


def _lanczos(hessian: Hessian, size: int, seed: int) -> tuple[Flat, int]:
    """Return the same as `_dense` by ARPACK's restarted Lanczos method.

    ARPACK's tolerance is relative to the eigenvalue, and the smallest one is zero at an optimum. So it is asked for the
    largest eigenvalue of (largest of H) I - H.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    products, top = 0, 0.0

    def shifted(vector: Flat) -> Flat:
        nonlocal products
        products += 1
        vector = np.ascontiguousarray(vector).reshape(-1)
        image: Flat = top * vector - hessian.flat_product(vector)
        return image

    operator = LinearOperator((size, size), matvec=shifted, dtype=np.float64)
    start = np.random.default_rng(seed).standard_normal(size)
    options: dict[str, Any] = {"k": 1, "v0": start, "ncv": min(size - 1, BASIS), "maxiter": RESTARTS}
    # 1. With top = 0 the operator is -H, and its smallest eigenvalue is minus the largest of H. One per cent is enough,
    # since every shift leaves the eigenvectors and their order as they are.
    top = -float(eigsh(operator, which="SA", tol=1e-2, return_eigenvectors=False, **options)[0])
    # 2. Find the largest eigenvalue of top I - H, which has a size to which a tolerance can be relative.
    for tolerance in TOLERANCES[:-1]:
        try:
            return eigsh(operator, which="LA", tol=tolerance, **options)[1][:, 0], products
        except ArpackNoConvergence:
            continue  # with a coarser tolerance, whose effect the reported residual shows
    return eigsh(operator, which="LA", tol=TOLERANCES[-1], **options)[1][:, 0], products
