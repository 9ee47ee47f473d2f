"""One layer of multi-head self-attention without softmax.

It is that of Sahiner et al., ICLR 2024, eq. 9, and ICML 2022.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from convexnn_bench.architectures._integers import Integers, as_integers
from convexnn_bench.architectures.base import BaseArchitecture, check_rank
from convexnn_bench.errors import InputError


class Attention(BaseArchitecture):
    """Heads phi(X_i U_j X_i^T) X_i V_j, summed over j.

    X is n x s x d (s tokens of d features), and V_j is d x c.

    Phi has a row x_s (x) x_t for every pair of tokens (N = n s^2 in the order (i, s, t); p = d^2, index (a, b) of
    x_s[a] U[a, b] x_t[b]); q = dc, index (l, c') of V[l, c'], l major. Output (i, s) of C(M) is the sum over t of
    x_t^T applied to M[(i, s, t), :] reshaped to d x c.

    Parameters
    ----------
    output : {"tokens", "mean"}
        "tokens" gives an output for every token (n_out = ns, targets n x s x c, n x s, or ns x c), "mean" their mean
        over the tokens (n_out = n, targets n x c).
    """

    name = "attention"

    def __init__(self, output: Any = "tokens"):
        if not isinstance(output, str) or output not in ("tokens", "mean"):
            raise InputError(f'output must be "tokens" or "mean", got {output!r}')
        self.output = output

    @property
    def degree(self) -> int | None:
        # Two factors of X in the scores and one in the values; a subclass may have other maps.
        return 3 if type(self) is Attention else None

    def check_data(self, X: np.ndarray) -> None:
        check_rank(X, 3, "n x tokens x features")

    def target_rows(self, Y: np.ndarray, X: np.ndarray) -> np.ndarray:
        n, s = X.shape[:2]
        if self.output == "mean" or (Y.ndim <= 2 and Y.shape[:1] == (n * s,)):
            return Y
        if Y.ndim not in (2, 3) or Y.shape[:2] != (n, s):
            raise InputError(
                f"Y must hold a target for each of the {s} tokens of the {n} samples: {n} x {s}, {n} x {s} x c or "
                f'{n * s} x c (output="mean" takes one for each sample), got shape {Y.shape}'
            )
        return Y.reshape(n * s, *Y.shape[2:])

    def phi_rows(self, X: torch.Tensor) -> torch.Tensor:
        d = X.shape[2]
        # Row (i, s, t) is x_s (x) x_t, so that its product with U is the score x_s^T U x_t.
        return torch.einsum("isa,itb->istab", X, X).reshape(-1, d * d)

    def exact_rows(self, X: np.ndarray) -> Integers | None:
        if type(self).phi_rows is not Attention.phi_rows:
            return None
        n, s, d = X.shape
        tokens = as_integers(X.reshape(n * s, d)).reshape(n, s, d)
        products: Integers = tokens[:, :, None, :, None] * tokens[:, None, :, None, :]
        return products.reshape(-1, d * d)

    def width_out(self, X: np.ndarray, c: int) -> int:
        return int(X.shape[2]) * c

    def second_layer(self, M: torch.Tensor, X: torch.Tensor, c: int) -> torch.Tensor:
        n, s, d = X.shape
        # Contract t and l: x_t^T times the d x c matrix in row (i, s, t). The mean over s commutes with that.
        M = M.reshape(n, s, s, d, c)
        if self.output == "mean":
            return torch.einsum("itlc,itl->ic", M.mean(dim=1), X)
        return torch.einsum("istlc,itl->isc", M, X).reshape(n * s, c)

    def first_layer(self, W: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
        """Return X_i U_j X_i^T by two products, without forming the n s^2 x d^2 matrix."""
        n, s, d = X.shape
        M = W.shape[1]
        # First U_j x_t for all heads and tokens, then x_s^T times it: n s d (d + s) M products instead of n s^2 d^2 M.
        right = torch.bmm(X.reshape(1, n * s, d).expand(d, -1, -1), W.reshape(d, d, M))  # (a, (i, t), j)
        return torch.bmm(X, right.view(d, n, s * M).transpose(0, 1)).view(n * s * s, M)

    def combine(self, H: torch.Tensor, V: torch.Tensor, X: torch.Tensor, c: int) -> torch.Tensor:
        """Return H_ij (X_i V_j), the outputs of the heads.

        For the mean over tokens that is (mean of the rows of H_ij, X_i) V_j.
        """
        n, s, d = X.shape
        M = V.shape[1]
        if self.output == "mean":
            # The mean over s acts on the scores alone: the output is sum over t of mean_s H[s, t] x_t^T V_j.
            seen = torch.bmm(X.transpose(1, 2), H.view(n, s, s, M).mean(dim=1))  # (i, l, j)
            return seen.view(n, d * M) @ V.reshape(d, c, M).transpose(1, 2).reshape(d * M, c)
        values = X.reshape(n * s, d) @ V.reshape(d, c, M).transpose(1, 2).reshape(d, M * c)  # ((i, t), (j, c'))
        return torch.bmm(H.view(n, s, s * M), values.view(n, s * M, c)).view(n * s, c)

    def linear_map(self, X: torch.Tensor, c: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return Z -> A(Z), computed through X_i^T X_i.

        Output (i, s) is x_s^T times the sum over b, l of Z[(., b), (l, c')] (X_i^T X_i)[b, l].
        """
        n, d = X.shape[0], X.shape[2]
        # The sum over t of x_t x_t^T meets every output of a sample, so that the N = n s^2 rows are never formed.
        gram = torch.bmm(X.transpose(1, 2), X).view(n, d * d)
        rows = X.mean(dim=1, keepdim=True) if self.output == "mean" else X

        def apply(Z: torch.Tensor) -> torch.Tensor:
            summed = gram @ Z.reshape(d, d * d, c).transpose(0, 1).reshape(d * d, d * c)  # (i, (a, c'))
            return torch.bmm(rows, summed.view(n, d, c)).view(-1, c)

        return apply

    def absolute(self) -> "Attention | None":
        return self if type(self) is Attention else None  # a subclass may have other maps
