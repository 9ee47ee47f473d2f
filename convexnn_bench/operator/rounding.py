"""Bounds on the float64 rounding of the operator.

They are on its predictions A(Z), and on its adjoint A^*(L).

A sum of K products is computed with an error of at most gamma_K times the sum of the products' magnitudes, in any order
of summation, gamma_K = K u / (1 - K u) with u the unit roundoff (Higham, Accuracy and Stability of Numerical
Algorithms, section 3.1). Predictions C(sum_k D_k Phi Z_k) and adjoints G_k = Phi^T D_k C^*(L) are such sums; masks only
remove terms, and so do zeros that sparse data do not store. The magnitudes |C|(|Phi| |Z|) and |Phi|^T |C|^*(|L|) come
from the architecture's structure where it has one. Below the normal numbers of float64 a product is off by up to
2^-1075 besides, whatever its size.
"""

import math
from collections.abc import Iterator
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.operator.compact import CompactMatrix
from convexnn_bench.operator.lifted import Operator

EPS = torch.finfo(torch.float64).eps  # 2 u; the factor 2 covers the rounding of the bounds themselves
TINY = 2.0**-1074  # the least positive number, twice the largest error of a product by underflow

# what depends on X alone: the operator of the magnitudes, or |Phi| where C = I or the architecture does not name one
_ABSOLUTE: WeakKeyDictionary[Operator, Operator | torch.Tensor | CompactMatrix] = WeakKeyDictionary()
_AMPLIFIED: WeakKeyDictionary[Operator, tuple[float, float]] = WeakKeyDictionary()


def power_of_two(T: torch.Tensor) -> float:
    """Return the largest power of two that is at most max |T|, or one if max |T| is zero or not finite.

    Division by it is exact, except for numbers that underflow. It brings the largest entry into [1, 2), so that its
    square neither overflows nor underflows.
    """
    largest = float(torch.linalg.vector_norm(T, ord=float("inf")))
    return 2.0 ** (math.frexp(largest)[1] - 1) if 0 < largest < math.inf else 1.0


def is_moderate(norm: float) -> bool:
    """Return whether a norm of unscaled entries is exact up to rounding.

    It is then not affected by overflow or underflow.
    """
    # Entries that underflow when they are squared are below 1e-160, and change such a norm by less than its rounding.
    return 1e-140 < norm < 1e140


def sum_rounding(terms: int) -> float:
    """Return a bound on the relative rounding of torch's sum of `terms` numbers.

    It is relative to the sum of their magnitudes.

    Each number may be off by a few eps itself. torch sums in four levels of max(16, terms^(1/4)) numbers or fewer, in
    up to 16 lanes (ATen, SumKernel.cpp), so that few of the additions build on each other.
    """
    depth = min(float(terms), 96 + 4 * terms**0.25)
    return (8 + 0.5 * depth) * EPS


def adjoint_rounding(operator: Operator, L: Float[torch.Tensor, "n_out c"]) -> float:
    """Return an upper bound on the float64 rounding error of any ||G_k||_F, G = operator.adjoint(L)."""
    # Entry by entry the error of G_k is at most gamma_K |Phi|^T D_k |C|^*(|L|), and leaving out D_k covers all blocks.
    magnitudes = _magnitudes(operator, L.abs())
    size = float(torch.linalg.vector_norm(magnitudes))
    if not is_moderate(size):
        size = float(magnitudes.amax()) * (operator.p * operator.q) ** 0.5
    return _terms(operator) * EPS * size + _underflow(operator) * (operator.N * operator.p * operator.q)


def multiplier_underflow(operator: Operator) -> float:
    """Return a bound on the change of every ||A_k^* L||_F if each entry of L changes by at most TINY."""
    return underflow(_amplified(operator)[0])


def underflow(amplified: float) -> float:
    """Return a bound on the effect of underflow.

    amplified: the effect if every number changes by one.
    """
    return TINY * amplified


def prediction_rounding(
    operator: Operator, sizes: Float[torch.Tensor, "p q"], columns: int
) -> Float[torch.Tensor, "n_out c"]:
    """Return upper bounds on the float64 rounding error of every prediction of a point.

    sizes: sum_k |Z_k|, or sum_j |u_j| |v_j|^T over the columns or neurons of a factored point. columns: how many
    nonzero blocks, columns or neurons there are.
    """
    absolute = _absolute_of(operator)
    if isinstance(absolute, Operator):
        magnitudes = absolute.apply(sizes[None])
    else:
        magnitudes = _absolute_second_layer(operator, absolute @ sizes)
    rows = operator.N // operator.X.shape[0]
    terms = columns + operator.p + operator.q + rows + 16
    return terms * EPS * magnitudes + terms * (operator.p + operator.q) * _underflow(operator) * (columns > 0)


def _terms(operator: Operator) -> int:
    """Return an upper bound on the number of roundings on the way to an entry of G."""
    outputs = operator.n_out // operator.X.shape[0]
    return operator.N + operator.q + outputs * operator.c + 16


def _underflow(operator: Operator) -> float:
    """Return a bound on the error of an entry that underflow of one product causes."""
    # A plain operator adds products of entries of Phi and L. Other operators have two steps: the error of the first is
    # multiplied by entries of X, or by products of two of them.
    return underflow(1.0 if operator.architecture.second_layer_is_identity else _amplified(operator)[1])


def _amplified(operator: Operator) -> tuple[float, float]:
    """Return || |Phi|^T |C|^*(1) ||_F, and max(1, |X|)^3 times the rows of a sample."""
    if operator not in _AMPLIFIED:
        ones = torch.ones(operator.n_out, operator.c, dtype=operator.dtype, device=operator.device)
        largest = max(1.0, float(operator.X.abs().amax())) ** 3
        size = float(_magnitudes(operator, ones).sum())
        _AMPLIFIED[operator] = size, largest * (operator.N // operator.X.shape[0])
    return _AMPLIFIED[operator]


def _magnitudes(operator: Operator, L: Float[torch.Tensor, "n_out c"]) -> Float[torch.Tensor, "p q"]:
    """Return |Phi|^T |C|^*(L) for L >= 0."""
    absolute = _absolute_of(operator)
    if isinstance(absolute, Operator):
        return absolute.adjoint(L)[0]
    return absolute.T @ _absolute_adjoint(operator, L)


def _absolute_of(operator: Operator) -> Operator | torch.Tensor | CompactMatrix:
    if operator not in _ABSOLUTE:
        _ABSOLUTE[operator] = _absolute(operator)
    return _ABSOLUTE[operator]


def _absolute(operator: Operator) -> Operator | torch.Tensor | CompactMatrix:
    """Return the operator whose Phi and C are |Phi| and |C|, without masks.

    Return |Phi| otherwise, and also if C = I.
    """
    if isinstance(operator.X, CompactMatrix):
        return operator.X.abs()
    architecture = operator.architecture.absolute()
    if architecture is None or operator.is_plain:
        return operator.Phi.abs()
    unmasked = np.ones((operator.N, 1), dtype=bool)
    X, Y = operator.X.abs().cpu().numpy(), operator.Y.cpu().numpy()
    return Operator(architecture, X, Y, unmasked, str(operator.device))


def _absolute_adjoint(operator: Operator, L: Float[torch.Tensor, "n_out c"]) -> Float[torch.Tensor, "N q"]:
    """|C|^*(L) for L >= 0, from C^* of unit predictions: one output at a time, for all samples together."""
    if operator.architecture.second_layer_is_identity:
        return L
    n = operator.X.shape[0]
    weights = L.view(n, -1, operator.c)
    total = torch.zeros(operator.N, operator.q, dtype=operator.dtype, device=operator.device)
    for output, column, row in _absolute_rows(operator):
        # Magnitudes are computed before the rows are weighted by L and added.
        total += (row * weights[:, output, column, None]).view(total.shape)
    return total


def _absolute_second_layer(operator: Operator, M: Float[torch.Tensor, "N q"]) -> Float[torch.Tensor, "n_out c"]:
    """Return |C|(M) for M >= 0, computed one output at a time, for all samples together."""
    if operator.architecture.second_layer_is_identity:
        return M
    n = operator.X.shape[0]
    predictions = torch.empty(n, operator.n_out // n, operator.c, dtype=operator.dtype, device=operator.device)
    for output, column, row in _absolute_rows(operator):
        predictions[:, output, column] = (row * M.view(n, -1)).sum(dim=1)
    return predictions.view(operator.n_out, operator.c)


def _absolute_rows(operator: Operator) -> Iterator[tuple[int, int, Float[torch.Tensor, "n rows_q"]]]:
    """Yield (output, column, |row of C| of every sample)."""
    # C acts on each sample separately, so that C^* of ones at one (output, column) of all samples is that row of C for
    # each sample.
    n = operator.X.shape[0]
    for output in range(operator.n_out // n):
        for column in range(operator.c):
            unit = torch.zeros(n, operator.n_out // n, operator.c, dtype=operator.dtype, device=operator.device)
            unit[:, output, column] = 1.0
            yield output, column, operator.second_layer_adjoint(unit.view(operator.Y.shape)).abs().view(n, -1)
