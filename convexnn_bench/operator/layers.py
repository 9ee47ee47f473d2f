"""The two layers of an architecture on one device, with their adjoints.

The layers are H = Phi W and C(M).

A map that the architecture gives by structure is used as it is, and its adjoint is derived as a vector-Jacobian
product. Phi itself is formed on first use.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float

from convexnn_bench.architectures import BaseArchitecture
from convexnn_bench.errors import UnsupportedError
from convexnn_bench.operator.compact import CompactMatrix, DataArray, data_matrix

ADJOINTS = 4  # vector-Jacobian products that are kept, each with a matrix of N x columns numbers

Predictions = Float[torch.Tensor, "n_out c"]
Blocks = Float[torch.Tensor, "P p q"]
Left = Float[torch.Tensor, "P p m"]
Right = Float[torch.Tensor, "P q m"]
Pullback = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
LinearFunction = Callable[[torch.Tensor], torch.Tensor]
Index = torch.Tensor | slice


def _gives(architecture: BaseArchitecture, hook: str) -> bool:
    """Return whether the architecture defines an optional map itself."""
    return getattr(type(architecture), hook) is not getattr(BaseArchitecture, hook)


def _first_of(pullback: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]) -> LinearFunction:
    return lambda L: pullback(L)[0]


class Layers:
    """Phi and C for data X and targets Y, as maps.

    Attributes
    ----------
    N, p : int
        Rows and columns of Phi.
    q : int
        Length of a second-layer vector.
    n_out, c : int
        The shape of Y and of the predictions.
    X : torch.Tensor or CompactMatrix
        The data.
    has_rows : bool
        Whether products with the first layer use Phi, rather than the architecture's `first_layer`.
    pools : bool
        Whether the architecture defines `pool_rows`.
    """

    def __init__(self, architecture: BaseArchitecture, X: DataArray, Y: np.ndarray, device: str, dtype: torch.dtype):
        self.architecture = architecture
        self.device = torch.device(device)
        self.dtype = dtype
        self.X = data_matrix(X, dtype, self.device)  # compact only for architectures with Phi = X
        self.Y = torch.as_tensor(Y, dtype=dtype, device=self.device)
        first = architecture.phi_rows(self.X[:1])  # every sample has as many rows
        self.N, self.p = len(self.X) * first.shape[0], first.shape[1]
        self.n_out, self.c = Y.shape
        self.q = architecture.width_out(X, self.c)
        self.has_rows = not isinstance(self.X, CompactMatrix) and not _gives(architecture, "first_layer")
        self.pools = _gives(architecture, "pool_rows")
        self._combines = _gives(architecture, "combine")
        self.outputs: Index = slice(None)  # in a part of an operator, the indices of its rows of Y among all rows
        self._adjoints: dict[tuple[str, int], LinearFunction] = {}

    @cached_property
    def Phi(self) -> Float[torch.Tensor, "N p"]:
        """The rows of the first layer."""
        if isinstance(self.X, CompactMatrix):
            raise UnsupportedError("the rows Phi of sparse data, and of large float32 data, are not formed")
        return self.architecture.phi_rows(self.X)

    @property
    def is_plain(self) -> bool:
        """Whether Phi is at hand and C the identity, as in an MLP.

        Samples can then be taken some at a time.
        """
        return self.has_rows and self.architecture.second_layer_is_identity

    def _restrict(self, samples: Index, rows: Index, outputs: Index) -> None:
        """Keep these samples only."""
        # Phi is a cached property: an attribute of the same name replaces its value, so that rows that are formed are
        # cut and not computed anew.
        Phi = self.Phi[rows] if self.has_rows else None
        self.__dict__.pop("Phi", None)
        if Phi is not None:
            self.Phi = Phi
        self.X, self.Y, self.outputs = self.X[samples], self.Y[outputs], outputs
        # The kept adjoints belong to the maps of all samples.
        self._adjoints = {}

    def adjoint_of(self, name: str, linear: LinearFunction, rows: int, columns: int) -> LinearFunction:
        """Return the adjoint of a linear map of rows x columns matrices.

        The last few are kept, by name and width.

        It is a vector-Jacobian product. The map is linear, so that any base point does.
        """
        key = (name, columns)
        # Several threads may use one operator, so that the dictionary is read once.
        adjoint = self._adjoints.get(key)
        if adjoint is None:
            zero = torch.zeros(rows, columns, dtype=self.dtype, device=self.device)
            vjp = torch.func.vjp(linear, zero)[1]
            # Dictionaries keep the order of insertion, so that the oldest adjoints go.
            for oldest in list(self._adjoints)[: 1 - ADJOINTS]:
                self._adjoints.pop(oldest, None)
            adjoint = self._adjoints[key] = _first_of(vjp)
        return adjoint

    # -- neurons ----------------------------------------------------------------------------------------

    def first_layer(self, W: Float[torch.Tensor, "p M"]) -> Float[torch.Tensor, "N M"]:
        """Return Phi W."""
        return self.Phi @ W if self.has_rows else self.architecture.first_layer(W, self.X)

    def first_layer_adjoint(self, B: Float[torch.Tensor, "N M"]) -> Float[torch.Tensor, "p M"]:
        """Return Phi^T B."""
        if self.has_rows:
            return self.Phi.T @ B
        if isinstance(self.X, CompactMatrix):
            return self.X.T @ B
        return self.adjoint_of("first", self.first_layer, self.p, B.shape[1])(B)

    def combine_neurons(self, H: Float[torch.Tensor, "N M"], W2: Float[torch.Tensor, "q M"]) -> Predictions:
        """Return C(H W2^T), the predictions from the hidden units of M neurons."""
        if self._combines:
            return self.architecture.combine(H, W2, self.X, self.c)
        return self.second_layer(H @ W2.T)

    def combined(self, H: Float[torch.Tensor, "N M"], W2: Float[torch.Tensor, "q M"]) -> tuple[Predictions, Pullback]:
        """Return C(H W2^T) and the pullback L -> (C^*(L) W2, C^*(L)^T H) of `combine_neurons` at (H, W2)."""
        if self._combines:
            evaluated = torch.func.vjp(self.combine_neurons, H, W2)
            return evaluated[0], evaluated[1]
        return self.combine_neurons(H, W2), lambda L: self.combine_adjoint(H, W2, L)

    def combine_adjoint(
        self, H: Float[torch.Tensor, "N M"], W2: Float[torch.Tensor, "q M"], L: Predictions
    ) -> tuple[Float[torch.Tensor, "N M"], Float[torch.Tensor, "q M"]]:
        """Return (C^*(L) W2, C^*(L)^T H), the pullback of `combine_neurons` at (H, W2)."""
        if self._combines:
            return torch.func.vjp(self.combine_neurons, H, W2)[1](L)
        # With M = H W2^T, <L, C(M)> = <R, M> for R = C^*(L), so that its derivatives in H and W2 are R W2 and R^T H.
        R = self.second_layer_adjoint(L)
        return R @ W2, R.T @ H

    # -- C and its adjoint ------------------------------------------------------------------------------

    def second_layer(self, M: Float[torch.Tensor, "N q"]) -> Predictions:
        """Return C(M)."""
        if self.architecture.second_layer_is_identity:
            return M
        return self.architecture.second_layer(M, self.X, self.c)

    def second_layer_adjoint(self, L: Predictions) -> Float[torch.Tensor, "N q"]:
        """Return C^*(L), the vector-Jacobian product of C."""
        if self.architecture.second_layer_is_identity:
            return L
        return self.adjoint_of("second", self.second_layer, self.N, self.q)(L)

    def second_layer_matrix(self) -> scipy.sparse.csr_array:
        """Return C as a sparse (n_out c) x (N q) matrix, both sides vectorised row by row."""
        if self.architecture.second_layer_is_identity:
            return scipy.sparse.csr_array(scipy.sparse.identity(self.N * self.q, format="csr"))
        rows = []
        # Row e of C is C^* of the unit prediction e, since <e, C(M)> = <C^*(e), M>.
        for index in range(self.n_out * self.c):
            unit = torch.zeros(self.n_out * self.c, dtype=self.dtype, device=self.device)
            unit[index] = 1.0
            row = self.second_layer_adjoint(unit.view(self.n_out, self.c))
            rows.append(scipy.sparse.csr_array(row.reshape(1, -1).cpu().numpy()))
        return scipy.sparse.csr_array(scipy.sparse.vstack(rows))
