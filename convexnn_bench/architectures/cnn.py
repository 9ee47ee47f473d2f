"""Two-layer convolutional network with linear pooling.

It is that of Sahiner et al., ICLR 2024, eqs. 7 and 25.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.architectures.base import BaseArchitecture, check_rank
from convexnn_bench.checks import check_array
from convexnn_bench.errors import InputError
from convexnn_bench.plugins import Whole, is_whole


class CNN(BaseArchitecture):
    """Convolution, activation, linear pooling P (a x K), linear layer.

    X is n x channels x h x w.

    Filter j sees K patches of every image: Phi holds them row by row (N = nK, p = channels * patch^2, in the order of
    torch.nn.functional.unfold), and with V_j in R^{ac}, q index (alpha, c') with alpha major,
    C(M)[i, c'] = sum over alpha, kappa of P[alpha, kappa] M[(i, kappa), (alpha, c')].

    Parameters
    ----------
    patch : int
        Side of the square filters.
    stride, padding : int
        As in torch.nn.Conv2d; zeros are padded.
    pool : "global", "identity", int or array a x K
        "global" averages over all patches (a = 1), "identity" does not pool (a = K), and an integer g averages to a
        grid of g x g as torch.nn.AdaptiveAvgPool2d does (a = g^2), which is AvgPool2d if g divides the sides.
    bias : bool
        Whether a constant 1 is appended to every patch, so that each filter has a bias, which decays like its weights.
    """

    name = "cnn"

    def __init__(self, patch: Any = 3, stride: Any = 1, padding: Any = 0, pool: Any = "global", bias: Any = False):
        self.patch: int = Whole().check("patch", patch)
        self.stride: int = Whole().check("stride", stride)
        self.padding: int = Whole(low=0).check("padding", padding)
        self.pool = _check_pool(pool)
        if not isinstance(bias, bool | np.bool_):
            raise InputError(f"bias must be True or False, got {bias!r}")
        self.bias = bool(bias)

    @property
    def degree(self) -> int | None:
        # The constant 1 of a bias does not grow with X, and a subclass may have other maps.
        return 1 if type(self) is CNN and not self.bias else None

    @property
    def rounds(self) -> bool:
        return type(self) is not CNN

    def check_data(self, X: np.ndarray) -> None:
        check_rank(X, 4, "n x channels x height x width")
        height, width = X.shape[2:]
        if self.patch > min(height, width) + 2 * self.padding:
            padded = f" padded by {self.padding}" if self.padding else ""
            raise InputError(f"patch must fit into the images, {height} x {width}{padded}, got patch={self.patch}")
        rows, columns = self._grid(X)
        if isinstance(self.pool, int) and self.pool > min(rows, columns):
            raise InputError(f"pool must be at most the {rows} x {columns} grid of patches, got pool={self.pool}")
        if isinstance(self.pool, np.ndarray) and self.pool.shape[1] != rows * columns:
            raise InputError(
                f"pool must have a column for each of the {rows} x {columns} = {rows * columns} patches, "
                f"got shape {self.pool.shape}"
            )

    def _grid(self, X: np.ndarray | torch.Tensor) -> tuple[int, int]:
        """Return how many patches an image has, downwards and across."""
        height, width = ((side + 2 * self.padding - self.patch) // self.stride + 1 for side in X.shape[2:])
        return height, width

    def _is(self, pool: str) -> bool:
        return isinstance(self.pool, str) and self.pool == pool

    def _pooled(self, X: np.ndarray | torch.Tensor) -> int:
        """Return a, the number of pooled values of a filter."""
        if isinstance(self.pool, np.ndarray):
            return len(self.pool)
        if isinstance(self.pool, int):
            return self.pool**2
        return 1 if self._is("global") else math.prod(self._grid(X))

    def _pooling(self, X: torch.Tensor) -> Float[torch.Tensor, "a K"]:
        """Return P, unless the pooling is "global" or "identity"."""
        if isinstance(self.pool, np.ndarray):
            matrices = _POOLING_MATRICES.setdefault(self, {})
            if (X.dtype, X.device) not in matrices:
                matrices[X.dtype, X.device] = torch.as_tensor(self.pool, dtype=X.dtype, device=X.device)
            return matrices[X.dtype, X.device]
        assert isinstance(self.pool, int)
        return _grid_average(self.pool, *self._grid(X), X.dtype, X.device)

    def pool_rows(self, H: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
        """Return the patches of every image after pooling with P."""
        n, M = X.shape[0], H.shape[1]
        rows, columns = self._grid(X)
        if isinstance(self.pool, int) and rows % self.pool == columns % self.pool == 0:  # equal windows: plain sums
            down, across = rows // self.pool, columns // self.pool
            bands = H.reshape(n * self.pool, down, -1).sum(dim=1)
            return bands.view(n * self.pool**2, across, M).sum(dim=1).view(n, -1, M) / (down * across)
        # P acts on the patches of each image, axis 1, for every filter alike.
        H = H.reshape(n, -1, M)
        if self._is("global"):
            return H.mean(dim=1, keepdim=True)
        return H if self._is("identity") else self._pooling(X) @ H

    def phi_rows(self, X: torch.Tensor) -> torch.Tensor:
        # unfold gives n x p x K; row (i, kappa) of Phi is patch kappa of image i.
        patches = torch.nn.functional.unfold(X, self.patch, padding=self.padding, stride=self.stride)
        rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
        return torch.nn.functional.pad(rows, (0, 1), value=1.0) if self.bias else rows

    def width_out(self, X: np.ndarray, c: int) -> int:
        return self._pooled(X) * c

    def second_layer(self, M: torch.Tensor, X: torch.Tensor, c: int) -> torch.Tensor:
        M = M.reshape(X.shape[0], -1, self._pooled(X), c)
        if self._is("global"):
            return M.mean(dim=1)[:, 0]
        # With P = I the pooled value alpha of output c' is that of patch kappa = alpha: the diagonal, summed.
        if self._is("identity"):
            return M.diagonal(dim1=1, dim2=2).sum(dim=-1)
        return torch.einsum("ak,ikac->ic", self._pooling(X), M)

    def combine(self, H: torch.Tensor, V: torch.Tensor, X: torch.Tensor, c: int) -> torch.Tensor:
        """Return C(H V^T), pooling the hidden units first.

        That takes n x aM numbers instead of N x ac.
        """
        # Pooling acts on rows and V on columns, so that P (H V^T) = (P H) V^T.
        pooled = self.pool_rows(H, X)
        weights = V.reshape(pooled.shape[1], c, -1).transpose(1, 2).reshape(-1, c)
        return pooled.reshape(X.shape[0], -1) @ weights

    def linear_map(self, X: torch.Tensor, c: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return Z -> A(Z), computed from the pooled patches (n x a x p)."""
        # P (Phi Z) = (P Phi) Z, and P Phi depends on the data alone: it is computed once.
        pooled = self.pool_rows(self.phi_rows(X), X)
        n, a, p = pooled.shape
        features = pooled.reshape(n, a * p)
        return lambda Z: features @ Z.reshape(p, a, c).transpose(0, 1).reshape(a * p, c)

    def absolute(self) -> "CNN | None":
        if type(self) is not CNN:
            return None  # a subclass may have other maps
        # Averages have no negative weight; only a matrix of the user's may have one.
        pool = np.abs(self.pool) if isinstance(self.pool, np.ndarray) else self.pool
        return CNN(self.patch, self.stride, self.padding, pool, self.bias)


# The pooling matrices of architectures on each device, so that no product copies them there again.
_POOLING_MATRICES: WeakKeyDictionary[CNN, dict[tuple[torch.dtype, torch.device], torch.Tensor]] = WeakKeyDictionary()


def _check_pool(pool: Any) -> str | int | np.ndarray:
    allowed = 'pool must be "global", "identity", a whole number g for a grid of g x g, or a matrix a x K'
    if isinstance(pool, str):
        if pool not in ("global", "identity"):
            raise InputError(f"{allowed}, got {pool!r}")
        return pool
    if isinstance(pool, int | np.integer):  # also True, which is refused
        if not is_whole(pool) or pool < 1:
            raise InputError(f"{allowed}, got {pool!r}")
        return int(pool)
    matrix = check_array("pool", pool).copy()
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"{allowed}, got an array of shape {matrix.shape}")
    return matrix


@lru_cache(maxsize=32)
def _grid_average(
    side: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device
) -> Float[torch.Tensor, "a K"]:
    """Return the matrix of adaptive average pooling to side x side.

    Window i of an axis of length L covers floor(i L / side) .. ceil((i + 1) L / side), as in torch.
    """

    def windows(length: int) -> np.ndarray:
        matrix = np.zeros((side, length))
        for i in range(side):
            first, last = i * length // side, -(-(i + 1) * length // side)
            matrix[i, first:last] = 1.0 / (last - first)
        return matrix

    # A mean over a rectangle is a mean over rows of means over columns: a Kronecker product.
    return torch.as_tensor(np.kron(windows(rows), windows(columns)), dtype=dtype, device=device)
