"""Data matrices that take less memory than dense float64 ones.

They are sparse matrices and float32 matrices.

A `CompactMatrix` X takes the place of a torch matrix in products X W and X^T B with dense W and B, for rows and for
|X|. Its float64 products equal those of the dense float64 matrix up to the order of summation, because conversion to
float64 is exact and a zero that is not stored adds no term. Bounds on the rounding of sums in any order hold for them.

Autograd differentiates the products with respect to W.
"""

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float

from convexnn_bench.errors import InputError
from convexnn_bench.operator.chunks import CHUNK_ELEMENTS

DataArray: TypeAlias = np.ndarray | scipy.sparse.csr_array  # the data X of a problem
PART_NUMBERS = 2**18  # numbers of X that are converted at a time: 2 MiB of float64, which fit a CPU's cache

Factor = Float[torch.Tensor, "d r"]
Product = Float[torch.Tensor, "n r"]
Weights = Float[torch.Tensor, " n"]
Index = torch.Tensor | slice


class CompactMatrix(ABC):
    """A matrix that multiplies dense matrices of `dtype` on `device`.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns.
    dtype : torch.dtype
        The dtype of the factors and products; the stored numbers may have another one.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def times(self, W: Factor) -> Product:
        """Return X W."""

    @abstractmethod
    def transposed_times(self, B: Product) -> Factor:
        """Return X^T B."""

    @abstractmethod
    def gram(self, weights: Weights) -> torch.Tensor:
        """Return X^T diag(weights) X, or its diagonal alone if the whole matrix would be too large."""

    @abstractmethod
    def abs(self) -> "CompactMatrix":
        """Return |X|."""

    @abstractmethod
    def amax(self) -> torch.Tensor:
        """Return the largest entry."""

    @abstractmethod
    def stored(self) -> torch.Tensor:
        """Return the tensor of the stored numbers."""

    @abstractmethod
    def __getitem__(self, rows: Index) -> "CompactMatrix":
        """Return some rows; a slice shares the stored numbers."""

    def __len__(self) -> int:
        return self.shape[0]

    def __matmul__(self, W: Factor) -> Product:
        product: torch.Tensor = _LinearProduct.apply(W, self, False)
        return product

    @property
    def T(self) -> "Transposed":
        return Transposed(self)


class Transposed:
    """The transpose X^T of a compact matrix X, for products."""

    def __init__(self, matrix: CompactMatrix):
        self.matrix = matrix

    def __matmul__(self, B: Product) -> Factor:
        product: torch.Tensor = _LinearProduct.apply(B, self.matrix, True)
        return product


class _LinearProduct(torch.autograd.Function):
    """The product X W or X^T W, which is linear in W.

    The derivative is the other product.
    """

    @staticmethod
    def forward(W: torch.Tensor, matrix: CompactMatrix, transposed: bool) -> torch.Tensor:
        return matrix.transposed_times(W) if transposed else matrix.times(W)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.matrix, ctx.transposed = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _LinearProduct.apply(gradients[0], ctx.matrix, not ctx.transposed), None, None


class SparseMatrix(CompactMatrix):
    """A matrix in compressed rows, multiplied by SciPy on the CPU.

    Products with X^T read the same arrays in their stored order, without a transposed copy.
    """

    def __init__(self, matrix: scipy.sparse.csr_array, dtype: torch.dtype):
        self.matrix, self.dtype, self.device = matrix, dtype, torch.device("cpu")
        self.shape = matrix.shape
        self._values = torch.from_numpy(matrix.data)

    def times(self, W: Factor) -> Product:
        return torch.from_numpy(self.matrix @ W.detach().contiguous().numpy())

    def transposed_times(self, B: Product) -> Factor:
        return torch.from_numpy(self.matrix.T @ B.detach().contiguous().numpy())

    def gram(self, weights: Weights) -> Float[torch.Tensor, " d"]:
        """Return the diagonal of X^T diag(weights) X."""
        return torch.from_numpy(with_entries(self.matrix, np.square(self.matrix.data)).T @ weights.numpy())

    def abs(self) -> "SparseMatrix":
        return SparseMatrix(with_entries(self.matrix, np.abs(self.matrix.data)), self.dtype)

    def amax(self) -> torch.Tensor:
        return torch.as_tensor(self.matrix.data.max(initial=0.0))

    def stored(self) -> torch.Tensor:
        return self._values

    def __getitem__(self, rows: Index) -> "SparseMatrix":
        if not isinstance(rows, slice):
            return SparseMatrix(self.matrix[rows.numpy()], self.dtype)
        start, stop, step = rows.indices(len(self))
        if step != 1:
            return SparseMatrix(self.matrix[rows], self.dtype)
        # Consecutive rows are consecutive numbers, so that nothing but the pointers to the rows is copied.
        stop = max(start, stop)
        pointers = self.matrix.indptr[start : stop + 1]
        own = slice(pointers[0], pointers[-1])
        parts = self.matrix.data[own], self.matrix.indices[own], pointers - pointers[0]
        return SparseMatrix(scipy.sparse.csr_array(parts, shape=(stop - start, self.shape[1])), self.dtype)


class SingleMatrix(CompactMatrix):
    """A dense float32 matrix with float64 products, for which some rows at a time are converted."""

    def __init__(self, matrix: Float[torch.Tensor, "n d"], dtype: torch.dtype, magnitudes: bool = False):
        self.matrix, self.dtype, self.device = matrix, dtype, matrix.device
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.magnitudes = magnitudes  # whether this is |X|, which is computed from X when needed

    def times(self, W: Factor) -> Product:
        product = W.new_empty(self.shape[0], W.shape[1])
        for rows in self._parts():
            torch.mm(self._converted(rows), W, out=product[rows])
        return product

    def transposed_times(self, B: Product) -> Factor:
        product = B.new_zeros(self.shape[1], B.shape[1])
        for rows in self._parts():
            product.addmm_(self._converted(rows).T, B[rows])
        return product

    def gram(self, weights: Weights) -> Float[torch.Tensor, "d d"]:
        """Return X^T diag(weights) X."""
        product = weights.new_zeros(self.shape[1], self.shape[1])
        for rows in self._parts():
            part = self._converted(rows)
            product.addmm_(part.T, weights[rows, None] * part)
        return product

    def abs(self) -> "SingleMatrix":
        return SingleMatrix(self.matrix, self.dtype, magnitudes=True)

    def amax(self) -> torch.Tensor:
        return torch.stack([self._converted(rows).amax() for rows in self._parts()]).amax()

    def stored(self) -> torch.Tensor:
        return self.matrix

    def __getitem__(self, rows: Index) -> "SingleMatrix":
        return SingleMatrix(self.matrix[rows], self.dtype, self.magnitudes)

    def _parts(self) -> list[slice]:
        most = PART_NUMBERS if self.device.type == "cpu" else CHUNK_ELEMENTS  # small products do not fill a GPU
        step = max(1, most // self.shape[1])
        return [slice(start, start + step) for start in range(0, len(self), step)]

    def _converted(self, rows: slice) -> torch.Tensor:
        part = self.matrix[rows].to(self.dtype)
        return part.abs() if self.magnitudes else part


def data_matrix(X: DataArray, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu") -> Any:
    """Return data as a torch tensor of `dtype`, or as a compact matrix.

    Sparse data, and float32 data for float64 products, become compact matrices. On the CPU a dense array of `dtype` is
    not copied. Raise InputError for sparse data on another device.
    """
    device = torch.device(device)
    if isinstance(X, scipy.sparse.csr_array):
        if device.type != "cpu":
            raise InputError(f"device {str(device)!r}: sparse X is multiplied on the CPU only; use device='cpu'")
        values = torch.as_tensor(X.data, dtype=dtype).numpy()
        return SparseMatrix(with_entries(X, values), dtype)
    tensor = torch.as_tensor(X, device=device)
    if tensor.dtype == torch.float32 and dtype == torch.float64 and X.ndim == 2:
        return SingleMatrix(tensor, dtype)
    return tensor.to(dtype)


def entries(X: DataArray) -> np.ndarray:
    """Return the array of all stored entries of data, all others being zero."""
    return X.data if isinstance(X, scipy.sparse.csr_array) else X


def with_entries(X: DataArray, values: np.ndarray) -> DataArray:
    """Return data with other stored entries; sparse data share their indices."""
    if not isinstance(X, scipy.sparse.csr_array):
        return values
    return scipy.sparse.csr_array((values, X.indices, X.indptr), shape=X.shape)
