"""The interface of a loss: value, gradient, conjugate, dual domain and CVXPY expressions, all as sums.

F is convex in the predictions z (n_out x c). Its conjugate is F*(L) = sup_z <L, z> - F(z). Weak duality
(Sahiner et al., ICLR 2024, proof of Theorem 3.4) needs L in dom F*; with L = s grad F(z) that holds for s in
`scale_range`, and `project_dual` moves an approximate multiplier into the domain.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.errors import InputError

Predictions = Float[torch.Tensor, "n_out c"]
Scalar = Float[torch.Tensor, ""]
Directions = Float[torch.Tensor, "n_out c r"]
Curvature = Callable[[Directions], Directions]


class BaseLoss:
    """A convex loss F(z) = sum_i f(z_i, y_i) >= 0 of predictions z and targets Y, both n_out x c.

    A subclass defines `value`, `gradient`, `conjugate`, `project_dual`, `cvxpy_value` and `cvxpy_conjugate`, and
    `scale_range` where it is larger than [0, 1].

    Attributes
    ----------
    name : str
        Registered name.
    smoothness : float
        Lipschitz constant of grad F with respect to z (Euclidean norm).
    unit_curvature : bool
        F'' is the identity, which saves products with it.
    separable : bool
        F is a sum over rows. A loss that is minimised over an output bias is not.
    rows_sum_to_zero : bool
        dom F* couples the entries of a row, as that of cross-entropy does. Otherwise it contains, with L, every L'
        whose entries lie between those of L and 0.
    labels : {"one_hot", "signs"} or None
        What a column of labels becomes before `prepare_targets` sees it: 0/1 columns, one for each class; one column of
        -1/1; or nothing, since the loss takes numbers alone.
    exact_gradient : bool
        `gradient` is grad F up to rounding, so that F(z) + F*(grad F(z)) = <grad F(z), z>, which every certificate
        checks. False for a loss that is defined by a minimisation, whose gradient is inexact.

    Notes
    -----
    F*(L) = sup_z <L, z> - F(z) is the conjugate.
    """

    name: str
    smoothness: float
    unit_curvature: bool = False
    separable: bool = True
    rows_sum_to_zero: bool = False
    labels: str | None = None
    exact_gradient: bool = True

    def prepare_targets(self, Y: np.ndarray) -> Float[np.ndarray, "n_out c"]:
        """Return the targets as float64 n_out x c. Raise InputError where they do not fit the loss."""
        Y = np.asarray(Y)
        if Y.dtype.kind not in "fiub":
            raise InputError(f"Y must be numeric, got dtype {Y.dtype}; convert it with .astype(float)")
        Y = Y.astype(np.float64)
        if Y.ndim == 1:
            Y = Y[:, None]
        if Y.ndim != 2 or Y.shape[1] == 0:
            raise InputError(f"Y must be n or n x c for the {self.name} loss, got shape {Y.shape}")
        bad = np.flatnonzero(~np.isfinite(Y).all(axis=1))
        if bad.size:
            raise InputError(f"Y has NaN or infinite entries in {bad.size} rows, the first is row {bad[0]}")
        return np.ascontiguousarray(Y)

    def value(self, z: Predictions, Y: Predictions) -> Scalar:
        """Return F(z), a sum over samples and outputs."""
        raise TypeError(f"{type(self).__name__} must define value")

    def gradient(self, z: Predictions, Y: Predictions) -> Predictions:
        """Return grad F(z)."""
        raise TypeError(f"{type(self).__name__} must define gradient")

    def rescaled(self, unit: float) -> "tuple[BaseLoss, float] | None":
        """Return (F', w) with F(unit z, unit Y) = w F'(z, Y) for all z and Y, or None if there is no such loss.

        With this method, solvers can use another unit of targets and predictions. Labels have no unit, so that losses
        for classification keep the default, None.
        """
        return None

    def curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        """Return the function D -> F''(z) D for r directions D (n_out x c x r).

        F''(z) is symmetric and positive semidefinite; at a kink of grad F it is an element of the generalised Hessian.
        The default is a vector-Jacobian product of `gradient`. A loss may write it out; tests compare the two.
        """
        # F'' is symmetric, so that the product with its transpose is the product with it. vmap runs over the last axis.
        product = torch.func.vjp(lambda at: self.gradient(at, Y), z)[1]
        many = torch.vmap(lambda D: product(D)[0], in_dims=-1, out_dims=-1)
        return lambda D: many(D)

    def rise(self, z: Predictions, Y: Predictions, gradient: Predictions, error: Predictions) -> Scalar:
        """Return an upper bound on F(z + d) - F(z) over all d with |d| <= error entrywise; gradient = grad F(z).

        The default is <|grad F(z)|, error> + smoothness/2 ||error||^2. A loss whose curvature shrinks with its gradient
        may give a smaller bound.
        """
        return (error * (gradient.abs() + 0.5 * self.smoothness * error)).sum()

    def conjugate(self, L: Predictions, Y: Predictions) -> Scalar:
        """Return F*(L), infinity outside its domain."""
        raise TypeError(f"{type(self).__name__} must define conjugate")

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        """Return a point of dom F* near L: L itself where it lies inside."""
        raise TypeError(f"{type(self).__name__} must define project_dual")

    def scale_range(self, L: Predictions, Y: Predictions) -> tuple[float, float]:
        """Return (lo, hi) such that, for L in dom F*, F*(s L) is finite for every s in [lo, hi]."""
        # F >= 0 makes F*(0) = -inf F finite, and dom F* is convex: it holds the segment from 0 to L.
        return 0.0, 1.0

    def best_scale(self, L: Predictions, Y: Predictions, lo: float, hi: float) -> float:
        """Return the argmax over s in [lo, hi] of the concave -F*(s L), by a bounded scalar search."""
        from scipy.optimize import minimize_scalar

        if not hi > lo:
            return lo

        def negative_dual(s: float) -> float:
            return float(self.conjugate(s * L, Y))

        # F*(s L) is convex in s, so that the search cannot end in a local minimum that is not the global one.
        found = minimize_scalar(negative_dual, bounds=(lo, hi), method="bounded", options={"xatol": 1e-9 * hi})
        # the search never visits the end points, and near the optimum s = 1 is best
        candidates = [float(found.x), lo, hi, *([1.0] if lo <= 1.0 <= hi else [])]
        return min(candidates, key=negative_dual)

    def cvxpy_value(self, z: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        """Return F as a CVXPY expression of the expression z (n_out x c), and the constraints that it needs."""
        raise TypeError(f"{type(self).__name__} must define cvxpy_value")

    def cvxpy_conjugate(self, L: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        """Return F* as a convex CVXPY expression of L (n_out x c), and its domain as constraints."""
        raise TypeError(f"{type(self).__name__} must define cvxpy_conjugate")

    def __repr__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in sorted(vars(self).items()))
        return f"{type(self).__name__}({inside})"


def parabola_vertex(slope: torch.Tensor, L: torch.Tensor, lo: float, hi: float) -> float:
    """Return the argmax over [lo, hi] of s sum(slope) - s^2/2 sum(L^2), with slope linear in L.

    Both sums are taken of numbers divided by the largest entry of L, against underflow.
    """
    # The vertex is sum(slope) / sum(L^2). For L = 0 the function is constant, and any s in the range will do.
    largest = L.abs().max()
    size, norm, along = torch.stack([largest, (L / largest).square().sum(), (slope / largest).sum()]).tolist()
    return min(max(along / norm / size if size > 0 else 0.0, lo), hi)


def sign_targets(loss: str, Y: np.ndarray) -> np.ndarray:
    """Return targets in {-1, 1}. Raise InputError, with the values found, for any others."""
    values = np.unique(Y)
    if not np.isin(values, (-1.0, 1.0)).all():
        shown = ", ".join(f"{value:g}" for value in values[:5])
        raise InputError(f"Y must hold labels -1 and 1 in each column for the {loss} loss, found {shown}")
    return Y
