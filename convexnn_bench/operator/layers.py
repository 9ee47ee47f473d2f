"""The two layers of an architecture on one device: H = Phi W and C(M), with their adjoints.

Where the architecture gives a map by structure that is used, and its adjoint is derived as a vector-Jacobian product;
Phi itself is formed when it is first asked for.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float

from convexnn_bench.architectures.base import BaseArchitecture

KEPT = 4  # adjoints, each with an N x columns matrix

Predictions = Float[torch.Tensor, "n_out c"]
Adjoint = Callable[[torch.Tensor], torch.Tensor]
Index = torch.Tensor | slice


def _gives(architecture: BaseArchitecture, hook: str) -> bool:
    """Whether the architecture defines an optional map itself."""
    return getattr(type(architecture), hook) is not getattr(BaseArchitecture, hook)


class Layers:
    """Phi and C for data X and targets Y, as maps.

    N: rows of Phi, p: its columns, q: length of a second-layer vector, n_out x c: the shape of Y.
    """

    def __init__(self, architecture: BaseArchitecture, X: np.ndarray, Y: np.ndarray, device: str, dtype: torch.dtype):
        self.architecture = architecture
        self.device = torch.device(device)
        self.dtype = dtype
        self.X = torch.as_tensor(X, dtype=dtype, device=self.device)
        self.Y = torch.as_tensor(Y, dtype=dtype, device=self.device)
        first = architecture.phi_rows(self.X[:1])  # every sample has as many rows
        self.N, self.p = len(self.X) * first.shape[0], first.shape[1]
        self.n_out, self.c = Y.shape
        self.q = architecture.width_out(X, self.c)
        self._structured_first = _gives(architecture, "first_layer")
        self._structured_second = _gives(architecture, "combine")
        self._pools = _gives(architecture, "pool_rows")
        self._vjps: dict[tuple[str, int], Adjoint] = {}

    @cached_property
    def Phi(self) -> Float[torch.Tensor, "N p"]:
        """The rows of the first layer."""
        return self.architecture.phi_rows(self.X)

    def _restrict(self, samples: Index, rows: Index, outputs: Index) -> None:
        """Keep these samples only."""
        Phi = None if self._structured_first else self.Phi[rows]
        self.__dict__.pop("Phi", None)
        if Phi is not None:
            self.Phi = Phi
        self.X, self.Y = self.X[samples], self.Y[outputs]
        self._vjps = {}

    def _adjoint_of(
        self, name: str, linear: Callable[[torch.Tensor], torch.Tensor], rows: int, columns: int
    ) -> Adjoint:
        """The adjoint of a linear map of rows x columns matrices, by name and width; the last few are kept.

        A vector-Jacobian product; the map is linear, so any base point does.
        """
        key = (name, columns)
        if key not in self._vjps:
            zero = torch.zeros(rows, columns, dtype=self.dtype, device=self.device)
            vjp = torch.func.vjp(linear, zero)[1]
            if len(self._vjps) >= KEPT:
                self._vjps.pop(next(iter(self._vjps)))
            self._vjps[key] = lambda L: vjp(L)[0]
        return self._vjps[key]

    def first_layer(self, W: Float[torch.Tensor, "p M"]) -> Float[torch.Tensor, "N M"]:
        """Phi W."""
        return self.architecture.first_layer(W, self.X) if self._structured_first else self.Phi @ W

    def first_layer_adjoint(self, B: Float[torch.Tensor, "N M"]) -> Float[torch.Tensor, "p M"]:
        """Phi^T B."""
        if not self._structured_first:
            return self.Phi.T @ B
        return self._adjoint_of("first", self.first_layer, self.p, B.shape[1])(B)

    def combine_neurons(self, H: Float[torch.Tensor, "N M"], W2: Float[torch.Tensor, "q M"]) -> Predictions:
        """C(H W2^T), the predictions from the hidden units of M neurons."""
        if self._structured_second:
            return self.architecture.combine(H, W2, self.X, self.c)
        return self.second_layer(H @ W2.T)

    def combine_adjoint(
        self, H: Float[torch.Tensor, "N M"], W2: Float[torch.Tensor, "q M"], L: Predictions
    ) -> tuple[Float[torch.Tensor, "N M"], Float[torch.Tensor, "q M"]]:
        """(C^*(L) W2, C^*(L)^T H), the vector-Jacobian product of `combine_neurons` at (H, W2)."""
        if self._structured_second:
            return torch.func.vjp(self.combine_neurons, H, W2)[1](L)
        R = self.second_layer_adjoint(L)
        return R @ W2, R.T @ H

    # -- C and its adjoint ------------------------------------------------------------------------------

    def second_layer(self, M: Float[torch.Tensor, "N q"]) -> Predictions:
        """C(M)."""
        if self.architecture.second_layer_is_identity:
            return M
        return self.architecture.second_layer(M, self.X, self.c)

    def second_layer_adjoint(self, L: Predictions) -> Float[torch.Tensor, "N q"]:
        """C^*(L), the vector-Jacobian product of C."""
        if self.architecture.second_layer_is_identity:
            return L
        return self._adjoint_of("second", self.second_layer, self.N, self.q)(L)

    def second_layer_matrix(self) -> scipy.sparse.csr_array:
        """C as a sparse (n_out c) x (N q) matrix, both sides vectorised row by row."""
        if self.architecture.second_layer_is_identity:
            return scipy.sparse.csr_array(scipy.sparse.identity(self.N * self.q, format="csr"))
        rows = []
        for index in range(self.n_out * self.c):
            unit = torch.zeros(self.n_out * self.c, dtype=self.dtype, device=self.device)
            unit[index] = 1.0
            row = self.second_layer_adjoint(unit.view(self.n_out, self.c))
            rows.append(scipy.sparse.csr_array(row.reshape(1, -1).cpu().numpy()))
        return scipy.sparse.csr_array(scipy.sparse.vstack(rows))
