"""The smallest curvature of the factored objective at a point: is it a second-order stationary point?"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from convexnn_bench.certificates import as_point
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Number, Whole
from convexnn_bench.theorems.trust_region import Flat, Hessian, Left, Right

DENSE_SIZE = 200  # variables up to which the Hessian is formed
KINKED = ("huber", "squared_hinge")  # losses whose gradient has kinks
TOLERANCES = (1e-12, 1e-9, 1e-6, 1e-3)  # of Lanczos, relative to the norm of the Hessian; the next where one fails
RESTARTS = 200


@dataclass(frozen=True)
class Curvature:
    """The smallest eigenvalue of the Hessian of F(A(U V^T)) + beta/2 sum_k (||U_k||^2 + ||V_k||^2).

    eigenvalue: the Rayleigh quotient of (dU, dV), never below the smallest eigenvalue but by rounding, so that a
        negative one proves a direction of descent.
    dU, dV: its unit eigenvector, P x p x m and P x q x m.
    residual: ||H v - eigenvalue v||. Some eigenvalue of the Hessian lies within it of `eigenvalue`. That none lies
        lower is what `method` is trusted for: "dense" computes all of them, "Lanczos" could overlook one only where
        its random start vector has no part along it.
    gradient_norm: of the objective; relative_gradient: divided by sqrt(2 beta f).
    iterations: Hessian products. beta: the weight decay, the unit in which to read the curvature.
    generalised: the loss is piecewise quadratic (Huber, squared hinge), and the Hessian an element of the generalised
        one: at a kink, which one is a choice.
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
        """eigenvalue / beta."""
        return self.eigenvalue / self.beta

    def is_second_order(self, tolerance: Any = 1e-6) -> bool:
        """The relative gradient is at most `tolerance`, and the curvature at least -tolerance beta."""
        tolerance = Number().check("tolerance", tolerance)
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
    """The problem, if the theorems are about it. Raises InputError and, for ReLU, UnsupportedError."""
    if not isinstance(problem, Problem):
        raise InputError(f"problem must be a Problem, got {type(problem).__name__}")
    if problem.has_cone:
        raise UnsupportedError(
            f"activation {problem.activation.name!r}: its Burer-Monteiro factors are held in cones K_k U_k >= 0, so "
            "that a minimum is a constrained one, of which the Hessian and Theorems 3.3 and 3.5 say nothing; they are "
            "about linear and gated activations"
        )
    return problem


def as_factors(problem: Problem, point: Any) -> tuple[Left, Right]:
    """(U, V) of a point of any formulation: a Result, factors, network weights, or blocks (by their SVD)."""
    return as_point(problem, point).to_factors(problem)


def smallest_curvature(problem: Any, point: Any, seed: Any = 0) -> Curvature:
    """The smallest eigenvalue of the Hessian of the factored objective at a point, with its eigenvector.

    problem: linear or gated activation. point: (U, V), P x p x m and P x q x m, or a Result; network weights and blocks
    are turned into factors. seed: of the start vector of Lanczos' method, which is used above 200 variables.

    At U = V = 0 it is beta - max_k ||G_k||_2, and appending a zero column to any point makes it the smaller of what it
    was and that number (Sahiner et al., ICLR 2024, Theorem 3.3: beta >= ||G_k||_2 follows at a rank-deficient
    second-order point).

    Raises UnsupportedError for ReLU and InputError for a point that does not fit.
    """
    problem = check_smooth(problem)
    seed = check_seed(seed)
    hessian = Hessian(problem, *as_factors(problem, point))
    gradient = hessian.flat_gradient()
    if not np.isfinite(gradient).all():
        raise InputError("the gradient of the objective overflows float64 at this point")
    size = gradient.size
    dense = size <= DENSE_SIZE
    vector, products = _dense(hessian, size) if dense else _lanczos(hessian, size, seed)
    image = hessian.flat_product(vector)
    eigenvalue = float(vector @ image)
    dU, dV = hessian.factors(vector)
    return Curvature(
        eigenvalue=eigenvalue,
        dU=dU,
        dV=dV,
        residual=float(np.linalg.norm(image - eigenvalue * vector)),
        gradient_norm=float(np.linalg.norm(gradient)),
        relative_gradient=hessian.relative_gradient,
        iterations=products + 1,
        method="dense" if dense else "Lanczos",
        beta=problem.beta,
        generalised=problem.loss.name in KINKED,
    )


def check_seed(seed: Any) -> int:
    """The seed as int. Raises InputError."""
    found = Whole(low=0).check("seed", seed)
    assert found is not None
    return found


def _dense(hessian: Hessian, size: int) -> tuple[Flat, int]:
    """Unit eigenvector of the smallest eigenvalue, from the Hessian formed column by column."""
    matrix = np.stack([hessian.flat_product(unit) for unit in np.eye(size)])
    return np.ascontiguousarray(np.linalg.eigh(0.5 * (matrix + matrix.T))[1][:, 0]), size


def _lanczos(hessian: Hessian, size: int, seed: int) -> tuple[Flat, int]:
    """The same by ARPACK's restarted Lanczos method.

    Its tolerance is relative to the eigenvalue sought, and at an optimum that is zero: so it is asked for the largest
    eigenvalue of (largest) I - H.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    products, top = 0, 0.0

    def shifted(vector: Flat) -> Flat:
        nonlocal products
        products += 1
        vector = np.ascontiguousarray(vector).reshape(-1)
        return top * vector - hessian.flat_product(vector)

    operator = LinearOperator((size, size), matvec=shifted, dtype=np.float64)
    start = np.random.default_rng(seed).standard_normal(size)
    options: dict[str, Any] = {"k": 1, "v0": start, "ncv": min(size - 1, 40), "maxiter": RESTARTS}
    top = -float(eigsh(operator, which="SA", tol=1e-2, return_eigenvectors=False, **options)[0])
    for tolerance in TOLERANCES[:-1]:
        try:
            return eigsh(operator, which="LA", tol=tolerance, **options)[1][:, 0], products
        except ArpackNoConvergence:
            continue  # the residual that is reported says what a coarser tolerance has left
    return eigsh(operator, which="LA", tol=TOLERANCES[-1], **options)[1][:, 0], products
