"""Read the data X of a problem.

They become dense float64 arrays, sparse matrices, or float32 arrays.

An architecture with Phi = X and an activation without cones need products with X and no single entries. Then SciPy's
sparse matrices stay sparse, and float32 arrays stay float32 if they have more numbers than a temporary array may have.
"""

import math
from typing import Any

import numpy as np
import scipy.sparse
import torch

from convexnn_bench.architectures import BaseArchitecture
from convexnn_bench.checks import aligned_copy, as_numpy, check_array, check_finite
from convexnn_bench.errors import InputError
from convexnn_bench.operator.chunks import fits
from convexnn_bench.operator.compact import DataArray, entries, with_entries

SINGLE = ("float32", "torch.float32")


def read_data(X: Any, architecture: BaseArchitecture, has_cone: bool = False, *, name: str = "X") -> DataArray:
    """Return data as a dense array or a sparse matrix.

    Raise InputError for unusable data.

    A dense array is float64 or float32; an array that needs no conversion is returned itself. A sparse matrix is a
    copy: a `scipy.sparse.csr_array` of float64 with sorted indices, without duplicates and explicit zeros. has_cone:
    whether the blocks have cones. name: the name of the data in messages.
    """
    if scipy.sparse.issparse(X):
        if not architecture.rows_are_data:
            raise InputError(
                f"{name} is sparse, and the {architecture.name} architecture takes dense data: {name}.toarray()"
            )
        if has_cone:
            raise InputError(
                f"{name} is sparse, and the cones of ReLU blocks need dense data: {name}.toarray(), or "
                "activation='gated_relu' or 'linear'"
            )
        return _read_sparse(name, X)
    multiplies = architecture.rows_are_data and not has_cone
    if (
        multiplies
        and isinstance(X, np.ndarray | torch.Tensor)
        and str(X.dtype) in SINGLE
        and not fits(math.prod(X.shape))
    ):
        single = np.ascontiguousarray(as_numpy(X, name, widen=False))
        check_finite(name, single)
        return single
    return check_array(name, X)


def aligned_data(X: DataArray) -> DataArray:
    """Return a copy of the data in aligned arrays, see `aligned_copy`; sparse data share their indices."""
    return with_entries(X, aligned_copy(entries(X)))


def _read_sparse(name: str, X: Any) -> scipy.sparse.csr_array:
    """Return a copy of any sparse matrix of SciPy, as a canonical `csr_array` of float64."""
    if X.dtype.kind not in "fiub":
        raise InputError(f"{name} must be a numeric matrix, got a sparse {type(X).__name__} of dtype {X.dtype}")
    if X.ndim != 2:
        raise InputError(f"{name} must be a sparse matrix of shape n x d, got a {type(X).__name__} of shape {X.shape}")
    try:
        # The copy is float64 before duplicates are added, so that no sum of whole numbers overflows. SciPy checks the
        # coordinates of a COO matrix here. For other formats it checks no indices, and would read beyond its arrays.
        own = X.copy() if X.dtype == bool else X.astype(np.float64)
        if hasattr(own, "check_format"):
            own.check_format(full_check=True)
    except ValueError as error:
        raise InputError(f"{name} is a sparse matrix that cannot be read: {error}") from error
    matrix = scipy.sparse.csr_array(own)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    bad = np.flatnonzero(~np.isfinite(matrix.data))
    if len(bad):
        row = int(np.searchsorted(matrix.indptr, bad[0], side="right")) - 1
        first = row, int(matrix.indices[bad[0]])
        raise InputError(f"{name} has {len(bad)} NaN or infinite entries, the first at index {first}")
    small = max(matrix.nnz, *matrix.shape) <= np.iinfo(np.int32).max  # 32-bit indices take half the memory
    indices, indptr = (array.astype(np.int32 if small else np.int64) for array in (matrix.indices, matrix.indptr))
    return scipy.sparse.csr_array((matrix.data.astype(np.float64, copy=False), indices, indptr), shape=matrix.shape)
