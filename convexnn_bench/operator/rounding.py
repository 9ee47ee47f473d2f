"""How far rounding can carry the adjoint: |Phi|^T |C|^*(|L|), by the architecture's structure where it has one.

A sum of K products is computed with an error of at most gamma_K times the sum of the products' magnitudes, in any order
of summation, gamma_K = K u / (1 - K u) with u the unit roundoff (Higham, Accuracy and Stability of Numerical
Algorithms, section 3.1). The adjoint G_k = Phi^T D_k C^*(L) is such sums; masks only remove terms.
"""

from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.operator.lifted import Operator

EPS = torch.finfo(torch.float64).eps  # 2 u, which leaves room for the rounding of the bound itself

# what depends on X alone: the operator of the magnitudes, or |Phi| where the architecture does not name one
_ABSOLUTE: WeakKeyDictionary[Operator, Operator | torch.Tensor] = WeakKeyDictionary()


def adjoint_rounding(operator: Operator, L: Float[torch.Tensor, "n_out c"]) -> float:
    """Return an upper bound on the float64 rounding error of any ||G_k||_F, G = operator.adjoint(L)."""
    # Entry by entry the error of G_k is at most gamma_K |Phi|^T D_k |C|^*(|L|), and leaving out D_k covers all blocks.
    outputs = operator.n_out // operator.X.shape[0]
    terms = operator.N + operator.q + outputs * operator.c + 16  # no more products than these meet on any way to G
    return terms * EPS * float(torch.linalg.vector_norm(_magnitudes(operator, L.abs())))


def _magnitudes(operator: Operator, L: Float[torch.Tensor, "n_out c"]) -> Float[torch.Tensor, "p q"]:
    """Return |Phi|^T |C|^*(L) for L >= 0."""
    if operator not in _ABSOLUTE:
        _ABSOLUTE[operator] = _absolute(operator)
    absolute = _ABSOLUTE[operator]
    if isinstance(absolute, Operator):
        return absolute.adjoint(L)[0]
    return absolute.T @ _absolute_adjoint(operator, L)


def _absolute(operator: Operator) -> Operator | torch.Tensor:
    """Return the operator whose Phi and C are |Phi| and |C|, without masks, or else |Phi|."""
    architecture = operator.architecture.absolute()
    if architecture is None:
        return operator.Phi.abs()
    unmasked = np.ones((operator.N, 1), dtype=bool)
    X, Y = operator.X.abs().cpu().numpy(), operator.Y.cpu().numpy()
    return Operator(architecture, X, Y, unmasked, str(operator.device))


def _absolute_adjoint(operator: Operator, L: Float[torch.Tensor, "n_out c"]) -> Float[torch.Tensor, "N q"]:
    """|C|^*(L) for L >= 0, from C^* of unit predictions: one output at a time, for all samples together."""
    if operator.architecture.second_layer_is_identity:
        return L
    # C acts on every sample by itself, so that C^* of ones at one (output, column) of all samples gives that row of C
    # for each of them. The magnitudes are taken before the rows are weighted by L and added.
    n = operator.X.shape[0]
    weights = L.view(n, -1, operator.c)
    total = torch.zeros(operator.N, operator.q, dtype=operator.dtype, device=operator.device)
    for output in range(weights.shape[1]):
        for column in range(operator.c):
            unit = torch.zeros_like(weights)
            unit[:, output, column] = 1.0
            answer = operator.second_layer_adjoint(unit.view(L.shape)).abs().view(n, -1)
            total += (answer * weights[:, output, column, None]).view(total.shape)
    return total
