"""The interface of a loss: value, gradient, conjugate, dual domain and CVXPY expressions, all as sums.

F is convex in the predictions z (n_out x c). Its conjugate is F*(L) = sup_z <L, z> - F(z). Weak duality
(Sahiner et al., ICLR 2024, proof of Theorem 3.4) needs L in dom F*; with L = s grad F(z) that holds for s in
`scale_range`, and `project_dual` moves an approximate multiplier into the domain.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.errors import InputError
from convexnn_bench.losses._scale import convex_minimiser, parabola_vertex
from convexnn_bench.plugins import LOSSES

Predictions = Float[torch.Tensor, "n_out c"]
Scalar = Float[torch.Tensor, ""]
Terms = Float[torch.Tensor, "n_out k"]  # one term of a sum for each entry, or for each row
RowWeights = Float[np.ndarray, "n_out 1"]

# The methods that act row by row, and the sums over rows that belong to them.
BY_ROWS = {
    "terms": "value",
    "conjugate_terms": "conjugate",
    "cvxpy_weighted_value": "cvxpy_value",
    "cvxpy_weighted_conjugate": "cvxpy_conjugate",
}
Directions = Float[torch.Tensor, "n_out c r"]
Curvature = Callable[[Directions], Directions]


class BaseLoss:
    """A convex loss F(z) = sum_i f(z_i, y_i) >= 0.

    Predictions z and targets Y are n_out x c.

    A subclass defines `value`, `gradient`, `conjugate`, `project_dual`, `cvxpy_value` and `cvxpy_conjugate`, and
    `scale_range` if it is larger than [0, 1]. In place of `value` and `conjugate` it may define `terms` and
    `conjugate_terms`, which sample weights multiply. By default these are derived row by row.

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
    largest_weight : float
        At least one, and at least the weight of every row.
    labels : {"one_hot", "signs"} or None
        What a column of labels becomes before `prepare_targets` sees it: 0/1 columns, one for each class; one column of
        -1/1; or nothing, since the loss takes numbers alone.
    has_kinks : bool
        grad F has kinks, so that `curvature` is an element of the generalised Hessian there.
    in_torch : dict
        The names of the losses of torch.nn that are this F up to a factor, each with the beta that stands for weight
        decay lam beside their mean over n rows of c outputs.
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
    largest_weight: float = 1.0
    labels: str | None = None
    has_kinks: bool = False
    exact_gradient: bool = True
    in_torch: dict[str, str] = {}

    @classmethod
    def advice(cls, value: Any) -> str:
        """Return the end of a message that refuses a value as a loss: the counterpart of a loss of torch."""
        kind = value.__name__ if callable(value) and hasattr(value, "__name__") else type(value).__name__
        named = kind.replace("_", "").lower()  # torch has the function mse_loss and the class MSELoss
        for loss in LOSSES.classes.values():
            for name, beta in loss.in_torch.items():
                if name.lower() == named:
                    delta = getattr(value, "delta", getattr(value, "beta", None))
                    spec = loss.name if delta is None else f"{loss.name}[delta={delta:g}]"
                    return (
                        f': {name} of torch is loss="{spec}" here, a sum over all samples and no mean. Beside torch\'s '
                        f"mean over n rows of c outputs, weight decay lam is beta = {beta}. certify_module takes the "
                        "losses of torch themselves"
                    )
        return ""

    def prepare_targets(self, Y: np.ndarray) -> Float[np.ndarray, "n_out c"]:
        """Return the targets as float64 n_out x c.

        Raise InputError where they do not fit the loss.
        """
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
        if type(self).terms is BaseLoss.terms:
            raise TypeError(f"{type(self).__name__} must define value")
        return self.terms(z, Y).sum()

    def terms(self, z: Predictions, Y: Predictions) -> Terms:
        """Return the terms of F(z), one row of terms for each row of predictions."""
        return by_rows(self.value, z, Y)

    def gradient(self, z: Predictions, Y: Predictions) -> Predictions:
        """Return grad F(z)."""
        raise TypeError(f"{type(self).__name__} must define gradient")

    def rescaled(self, unit: float) -> "tuple[BaseLoss, float] | None":
        """Return (F', w) with F(unit z, unit Y) = w F'(z, Y) for all z and Y.

        Return None if there is no such loss.

        With this method, solvers can use another unit of targets and predictions. Labels have no unit, so that losses
        for classification keep the default, None.
        """
        return None

    def rows(self, index: slice | torch.Tensor) -> "BaseLoss":
        """Return the loss of some rows of predictions: this loss, unless rows have weights."""
        return self

    def divided(self, unit: float) -> "BaseLoss":
        """Return F / unit, for a loss with sample weights."""
        raise TypeError(f"{type(self).__name__} has no weights, which could be divided")

    def curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        """Return the function D -> F''(z) D for r directions D (n_out x c x r).

        F''(z) is symmetric and positive semidefinite; at a kink of grad F it is an element of the generalised Hessian.
        The default is a vector-Jacobian product of `gradient`. A loss may write it out; tests compare the two.
        """
        # F'' is symmetric, so that the product with its transpose is the product with it. vmap runs over the last axis.
        product = torch.func.vjp(lambda at: self.gradient(at, Y), z)[1]
        many = torch.vmap(lambda D: product(D)[0], in_dims=-1, out_dims=-1)
        return lambda D: many(D)

    def row_curvature(self, z: Predictions, Y: Predictions) -> Curvature:
        """Return the part of `curvature` that acts on each row alone; see `coupling` for the rest."""
        return self.curvature(z, Y)

    def coupling(self, z: Predictions, Y: Predictions) -> Directions | None:
        """Return B with F''(z) D = W D - B (B^T D), or None for B = 0.

        W is `row_curvature`.

        B is zero for a sum over rows. B and D are taken as matrices with n_out c rows.
        """
        return None

    def rise(self, z: Predictions, Y: Predictions, gradient: Predictions, error: Predictions) -> Scalar:
        """Return an upper bound on F(z + d) - F(z) over all |d| <= error entrywise.

        gradient = grad F(z).

        The default is <|grad F(z)|, error> + smoothness/2 ||error||^2. A loss whose curvature shrinks with its gradient
        may give a smaller bound.
        """
        return (error * (gradient.abs() + 0.5 * self.smoothness * error)).sum()

    def conjugate(self, L: Predictions, Y: Predictions) -> Scalar:
        """Return F*(L), infinity outside its domain."""
        if type(self).conjugate_terms is BaseLoss.conjugate_terms:
            raise TypeError(f"{type(self).__name__} must define conjugate")
        return self.conjugate_terms(L, Y).sum()

    def conjugate_terms(self, L: Predictions, Y: Predictions) -> Terms:
        """Return the terms of F*(L), one row of terms for each row of L."""
        return by_rows(self.conjugate, L, Y)

    def conjugate_size(self, L: Predictions, Y: Predictions) -> Scalar:
        """Return the sum of the magnitudes of the terms of F*(L), for a bound on its rounding."""
        # F* is a sum of products of entries of L and Y, or of entropies of numbers in [0, 1].
        return (L.abs() * (2.0 if self.rows_sum_to_zero else L.abs() + Y.abs())).sum()

    def project_dual(self, L: Predictions, Y: Predictions) -> Predictions:
        """Return a point of dom F* near L: L itself where it lies inside."""
        raise TypeError(f"{type(self).__name__} must define project_dual")

    def scale_range(self, L: Predictions, Y: Predictions) -> tuple[float, float]:
        """Return (lo, hi) such that, for L in dom F*, F*(s L) is finite for every s in [lo, hi]."""
        # F >= 0 makes F*(0) = -inf F finite, and dom F* is convex: it holds the segment from 0 to L.
        return 0.0, 1.0

    def best_scale(self, L: Predictions, Y: Predictions, lo: float, hi: float) -> float:
        """Return the argmax over s in [lo, hi] of the concave -F*(s L), in closed form or by a bounded search."""
        found = self.parabola(L, Y)
        if found is not None:
            return parabola_vertex(*found, lo, hi)
        if not hi > lo:
            return lo
        # Every s in the range is admissible, so that an inexact maximiser only makes the bound less tight.
        return convex_minimiser(lambda s: float(self.conjugate(s * L, Y)), lo, hi)

    def parabola(self, L: Predictions, Y: Predictions) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return (slope, root) with -F*(s L) = s sum(slope) - s^2/2 sum(root^2) inside the domain, or None."""
        return None

    def cvxpy_value(self, z: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        """Return F as a CVXPY expression of z (n_out x c), and its constraints."""
        if type(self).cvxpy_weighted_value is BaseLoss.cvxpy_weighted_value:
            raise TypeError(f"{type(self).__name__} must define cvxpy_value")
        return self.cvxpy_weighted_value(z, Y, np.ones((len(Y), 1)))

    def cvxpy_conjugate(self, L: Any, Y: np.ndarray) -> tuple[Any, list[Any]]:
        """Return F* as a CVXPY expression of L (n_out x c), and its domain.

        The expression is convex, and the domain a list of constraints.
        """
        if type(self).cvxpy_weighted_conjugate is BaseLoss.cvxpy_weighted_conjugate:
            raise TypeError(f"{type(self).__name__} must define cvxpy_conjugate")
        return self.cvxpy_weighted_conjugate(L, Y, np.ones((len(Y), 1)))

    def cvxpy_weighted_value(self, z: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        """Return sum_i w_i f(z_i, y_i) with its constraints, for weights w_i > 0.

        By default it is stated one row at a time.
        """
        return _added([(w[i, 0], self.cvxpy_value(z[i : i + 1], Y[i : i + 1])) for i in range(len(Y))])

    def cvxpy_weighted_conjugate(self, L: Any, Y: np.ndarray, w: RowWeights) -> tuple[Any, list[Any]]:
        """Return sum_i w_i f_i*(L_i / w_i) with its domain, for weights w_i > 0.

        By default it is stated one row at a time.
        """
        rows = [slice(i, i + 1) for i in range(len(Y))]
        return _added([(w[row].item(), self.cvxpy_conjugate(L[row] / w[row].item(), Y[row])) for row in rows])

    def __repr__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in sorted(vars(self).items()))
        return f"{type(self).__name__}({inside})"


def by_rows(function: Callable[..., Scalar], *arrays: Predictions) -> Float[torch.Tensor, "n_out 1"]:
    """Return the function of every row of the arrays alone."""

    def of_row(*row: torch.Tensor) -> Scalar:
        return function(*(part[None] for part in row))

    try:
        values = torch.vmap(of_row)(*arrays)
    except RuntimeError:  # vmap cannot vectorise Python branches on numbers
        values = torch.stack([of_row(*row) for row in zip(*arrays, strict=True)])
    return values[:, None]


def of_rows(loss: BaseLoss, method: str) -> Callable[..., Any]:
    """Return a method of BY_ROWS of the loss, or the default if a subclass redefines the sum alone."""
    for cls in type(loss).__mro__:
        if method in vars(cls):
            break
        if BY_ROWS[method] in vars(cls):
            return partial(getattr(BaseLoss, method), loss)
    found: Callable[..., Any] = getattr(loss, method)
    return found


def _added(weighted: list[tuple[float, tuple[Any, list[Any]]]]) -> tuple[Any, list[Any]]:
    """Return the weighted sum of CVXPY expressions, and all of their constraints."""
    value = sum(weight * expression for weight, (expression, _) in weighted)
    return value, [constraint for _, (_, constraints) in weighted for constraint in constraints]


def sign_targets(loss: str, Y: np.ndarray) -> np.ndarray:
    """Return targets in {-1, 1}. Raise InputError, with the values found, for any others."""
    values = np.unique(Y)
    if not np.isin(values, (-1.0, 1.0)).all():
        shown = ", ".join(f"{value:g}" for value in values[:5])
        raise InputError(f"Y must hold labels -1 and 1 in each column for the {loss} loss, found {shown}")
    return Y
