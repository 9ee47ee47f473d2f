"""The rows Phi of a first layer as a numpy matrix.

They are formed only for what needs their entries.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from convexnn_bench.architectures import BaseArchitecture, Integers
from convexnn_bench.errors import UnsupportedError
from convexnn_bench.operator.compact import CompactMatrix, DataArray, SparseMatrix, data_matrix


class Rows:
    """Phi (N x p) of an architecture at X, as a matrix.

    It computes `Phi @ W` by the architecture's structure.

    If the architecture defines `first_layer`, or the data are compact, then `shape`, products and `nonzero` do not form
    the matrix. Everything else (indexing, `T`, `np.asarray`) forms it once, and raises an error for sparse data.
    """

    def __init__(self, architecture: BaseArchitecture, X: DataArray):
        self._architecture = architecture
        self._X = data_matrix(X)
        self.is_sparse = isinstance(self._X, SparseMatrix)
        self.is_compact = isinstance(self._X, CompactMatrix)
        self.structured = self.is_compact or type(architecture).first_layer is not BaseArchitecture.first_layer
        self.avoidable = self.structured or type(architecture).linear_map is not BaseArchitecture.linear_map
        first = architecture.phi_rows(self._X[:1])  # every sample has as many rows
        self.shape: tuple[int, int] = (X.shape[0] * first.shape[0], first.shape[1])
        self.ndim = 2
        self.dtype = np.dtype(np.float64)

    @cached_property
    def array(self) -> Float[np.ndarray, "N p"]:
        """Phi itself."""
        if self.is_sparse:
            raise UnsupportedError("the rows Phi of sparse X are not formed; give X.toarray() where they are needed")
        if isinstance(self._X, CompactMatrix):
            return self._X.stored().double().numpy()
        return np.ascontiguousarray(self._architecture.phi_rows(self._X).numpy())

    @property
    def exact(self) -> Callable[[], Integers] | None:
        """A function that returns the rows before rounding, or None if the architecture does not know them."""
        if isinstance(self._X, CompactMatrix) or self._architecture.exact_rows(self._X[:1].numpy()) is None:
            return None
        return self._exact

    def _exact(self) -> Integers:
        rows = self._architecture.exact_rows(self._X.numpy())
        assert rows is not None
        return rows

    @property
    def formed(self) -> bool:
        """Whether `array` is formed."""
        return "array" in vars(self)

    @property
    def T(self) -> Float[np.ndarray, "p N"]:
        return self.array.T

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array if dtype in (None, np.float64) and not copy else np.array(self.array, dtype=dtype)

    def __getitem__(self, index: Any) -> Any:
        return self.array[index]

    def __len__(self) -> int:
        return self.shape[0]

    def __matmul__(self, W: np.ndarray) -> np.ndarray:
        """Return Phi W for W p x M, or for one vector."""
        if not self.structured:
            return self.array @ W
        W = np.asarray(W, dtype=np.float64)
        columns = torch.as_tensor(np.ascontiguousarray(W if W.ndim == 2 else W[:, None]))
        product = self._architecture.first_layer(columns, self._X).numpy()
        return product if W.ndim == 2 else product[:, 0]

    def nonzero(self) -> Bool[np.ndarray, "N"]:
        """Mark the rows that are not zero, by the sums of their magnitudes."""
        if isinstance(self._X, CompactMatrix):
            return (self._X.abs() @ torch.ones(self.shape[1], 1, dtype=torch.float64))[:, 0].numpy() > 0
        absolute = self._architecture.absolute()
        if not self.structured or absolute is None:
            return np.any(self.array != 0, axis=1)
        # |Phi| 1 > 0 exactly at the rows with a nonzero entry, because magnitudes cannot cancel.
        return Rows(absolute, np.abs(self._X.numpy())) @ np.ones(self.shape[1]) > 0

    def largest(self) -> float:
        """Return max |Phi| over the rows of the sample with the largest |X|."""
        if isinstance(self._X, CompactMatrix):
            return float(self._X.abs().amax())
        sample = int(self._X.abs().reshape(len(self._X), -1).amax(dim=1).argmax())
        return float(self._architecture.phi_rows(self._X[sample : sample + 1]).abs().max())
