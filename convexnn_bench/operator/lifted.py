"""The operator A(Z) = C(sum_k D_k Phi Z_k), its adjoint, and its factored form, by structure.

With the masks as a 0/1 matrix D (N x P) and Z as a P x pq matrix, sum_k D_k Phi Z_k has the rows
sum_a Phi_ia (D Z)_i,(a,c), and its adjoint is D^T applied to the N x pq matrix of products Phi_ia R_ic: one matrix
product with the masks each, never the n x Pd matrix [D_1 Phi .. D_P Phi]. Where the architecture gives its first layer
by structure, Phi is not formed, and the products are `Phi @ [Z_1 .. Z_P]` followed by the masks. Temporary arrays are
taken in chunks of at most `CHUNK_ELEMENTS` numbers. Adjoints of structured maps are vector-Jacobian products.
"""

import copy
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.architectures.base import BaseArchitecture
from convexnn_bench.operator.layers import Index, Layers, Predictions
from convexnn_bench.operator.pooled import POOLED_ELEMENTS, PooledBlocks

CHUNK_ELEMENTS = 2**24  # 128 MiB of float64
SMALLEST_PART, PART_ELEMENTS = 128, 2**16  # samples, and hidden units, of a part that stays in the cache: 512 KiB
PASSES = 500  # operations of matrix products that take as long as all else that is done to a hidden unit
KEPT = ("_linear", "_mask_matrix", "_pooled")  # cached properties that depend on the masks or on the samples

Blocks = Float[torch.Tensor, "P p q"]
Left = Float[torch.Tensor, "P p m"]
Right = Float[torch.Tensor, "P q m"]
Pullback = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _side_by_side(blocks: Float[torch.Tensor, "P rows m"]) -> Float[torch.Tensor, "rows Pm"]:
    """[B_1 .. B_P]."""
    return blocks.permute(1, 0, 2).reshape(blocks.shape[1], -1)


def _blocks(matrix: Float[torch.Tensor, "rows Pm"], P: int) -> Float[torch.Tensor, "P rows m"]:
    """The inverse of `_side_by_side`."""
    return matrix.view(matrix.shape[0], P, -1).permute(1, 0, 2)


class Operator(Layers):
    """A and its adjoint on one device, float64 by default.

    masks: N x P bool, one column a block.
    """

    def __init__(
        self,
        architecture: BaseArchitecture,
        X: np.ndarray,
        Y: np.ndarray,
        masks: np.ndarray,
        device: str = "cpu",
        dtype: torch.dtype = torch.float64,
    ):
        super().__init__(architecture, X, Y, device, dtype)
        self.masks = torch.as_tensor(np.ascontiguousarray(masks), device=self.device)  # N x P
        self.N, self.P = masks.shape
        self._trivial_mask = bool(masks.all())

    @cached_property
    def _linear(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Z -> C(Phi Z) by structure, where there is one block without a mask."""
        return self.architecture.linear_map(self.X, self.c) if self._trivial_mask and self.P == 1 else None

    def on_blocks(self, blocks: torch.Tensor) -> "Operator":
        """The operator of these blocks alone, in this order; a block may come several times.

        With one block a neuron and m = 1 its factored form is that of a set of neurons, whatever their number a block.
        """
        part = copy.copy(self)
        for name in KEPT:  # of all blocks
            part.__dict__.pop(name, None)
        if self._pooled is not None:
            part._pooled = self._pooled.on_blocks(blocks)
        part.masks = self.masks[:, blocks]
        part.P = part.masks.shape[1]
        return part

    @cached_property
    def _pooled(self) -> PooledBlocks | None:
        """The pooled masked rows, where C pools rows to half as many or fewer and they fit memory."""
        if not self._pools:
            return None
        samples, a = self.n_out, self.q // self.c
        if 2 * samples * a > self.N or samples * self.P * a * self.p > POOLED_ELEMENTS:
            return None
        S = torch.empty(samples, self.P, a, self.p, dtype=self.dtype, device=self.device)
        K = self.N // samples
        step = max(1, CHUNK_ELEMENTS // (K * self.P * self.p))
        for first in range(0, samples, step):
            part, rows = slice(first, first + step), slice(first * K, (first + step) * K)
            masked = (self.masks[rows, :, None] * self.Phi[rows, None, :]).flatten(1)
            S[part] = self.architecture.pool_rows(masked, self.X[part]).unflatten(2, (self.P, -1)).transpose(1, 2)
        return PooledBlocks(S, self.c)

    @property
    def product_rows(self) -> int:
        """How many rows a product with blocks Z goes over."""
        return self.N if self._pooled is None else self.n_out

    # -- A and its adjoint ------------------------------------------------------------------------------

    def _chunks(self, width: int) -> Iterator[slice]:
        step = max(1, CHUNK_ELEMENTS // (self.N * max(width, 1)))
        for start in range(0, self.P, step):
            yield slice(start, min(start + step, self.P))

    def _masked(self, H: torch.Tensor, chunk: slice, width: int) -> torch.Tensor:
        """D_k applied to the columns of H (N x (B width)), in place, as N x B x width."""
        H = H.view(self.N, -1, width)
        return H if self._trivial_mask else H.mul_(self.masks[:, chunk, None])

    @cached_property
    def _mask_matrix(self) -> torch.Tensor | None:
        """The masks as numbers, kept where they take no more than a chunk."""
        return self.masks.to(self.dtype) if self.N * self.P <= CHUNK_ELEMENTS else None

    def _mask_columns(self) -> Iterator[tuple[slice, Float[torch.Tensor, "N B"]]]:
        """The masks as numbers, some blocks at a time."""
        if self._mask_matrix is not None:
            yield slice(0, self.P), self._mask_matrix
            return
        for chunk in self._chunks(1):
            yield chunk, self.masks[:, chunk].to(self.dtype)

    def _feature_chunks(self) -> Iterator[slice]:
        """Columns of Phi, so many that N x (columns) x q numbers fit a chunk."""
        step = max(1, CHUNK_ELEMENTS // (self.N * self.q))
        for start in range(0, self.p, step):
            yield slice(start, min(start + step, self.p))

    @property
    def _through_masks(self) -> bool:
        """Whether Phi is at hand, so that products go through the mask matrix."""
        return not self._structured_first and not self._trivial_mask

    def apply(self, Z: Blocks) -> Predictions:
        """A(Z) = C(sum_k D_k Phi Z_k)."""
        if self._linear is not None:
            return self._linear(Z[0])
        if self._pooled is not None:
            return self._pooled.apply(Z)
        total = torch.zeros(self.N, self.q, dtype=self.dtype, device=self.device)
        if self._through_masks:
            for part in self._feature_chunks():
                flat = Z[:, part].reshape(self.P, -1)
                mixed = torch.zeros(self.N, flat.shape[1], dtype=self.dtype, device=self.device)  # N x (features q)
                for chunk, masks in self._mask_columns():
                    mixed.addmm_(masks, flat[chunk])
                total += torch.bmm(self.Phi[:, None, part], mixed.view(self.N, -1, self.q))[:, 0]
            return self.second_layer(total)
        for chunk in self._chunks(self.q):
            stacked = Z[chunk].permute(1, 0, 2).reshape(self.p, -1)
            total += self._masked(self.first_layer(stacked), chunk, self.q).sum(dim=1)
        return self.second_layer(total)

    def adjoint(self, L: Predictions) -> Blocks:
        """G_k = Phi^T D_k C^*(L) for every block."""
        if self._linear is not None:
            return self._adjoint_of("linear", self._linear, self.p, self.q)(L)[None]
        if self._pooled is not None:
            return self._pooled.adjoint(L)
        R = self.second_layer_adjoint(L)
        G = torch.empty(self.P, self.p, self.q, dtype=self.dtype, device=self.device)
        if self._through_masks:
            for part in self._feature_chunks():
                products = (self.Phi[:, part, None] * R[:, None, :]).view(self.N, -1)
                for chunk, masks in self._mask_columns():
                    G[chunk, part] = (masks.T @ products).view(masks.shape[1], -1, self.q)
            return G
        for chunk in self._chunks(self.q):
            blocks = chunk.stop - chunk.start
            if self._trivial_mask:
                masked = R[:, None, :].expand(-1, blocks, -1)
            else:
                masked = R[:, None, :] * self.masks[:, chunk, None]
            product = self.first_layer_adjoint(masked.reshape(self.N, -1))
            G[chunk] = product.view(self.p, blocks, self.q).permute(1, 0, 2)
        return G

    # -- the factored form A(U V^T) ---------------------------------------------------------------------

    def hidden(self, U: Left) -> Float[torch.Tensor, "N P m"]:
        """D_k Phi U_k for every block."""
        m = U.shape[2]
        H = self.first_layer(_side_by_side(U))
        return self._masked(H, slice(0, self.P), m)

    def combine(self, H: Float[torch.Tensor, "N P m"], V: Right) -> Predictions:
        """C(sum_k H_k V_k^T)."""
        return self.combine_neurons(H.reshape(self.N, -1), _side_by_side(V))

    def _wide(self, m: int | float, blocks: int | None = None) -> bool:
        """Whether A(U V^T) is cheaper through the blocks U_k V_k^T than through the hidden units of their m columns.

        Operations a sample: the blocks hold p q numbers, products of a feature and an output, the columns P m.
        blocks: how many, where not all.
        """
        if self._pooled is not None:
            return self._pooled.wide(m)
        P = self.P if blocks is None else blocks
        through_columns = P * m * (4 * self.p + 6 * self.q + PASSES)
        through_blocks = self.p * self.q * (4 * P + PASSES) + 6 * P * self.p * self.q * m / self.N
        return self._through_masks and through_blocks < through_columns

    def apply_factors(self, U: Left, V: Right) -> Predictions:
        """A(U V^T), without forming U V^T unless it is cheaper by it."""
        m = U.shape[2]
        if self._wide(m):
            return self.apply(U @ V.transpose(1, 2))
        linear = self._linear_on_products(m)
        if linear is not None:
            return linear(U[0] @ V[0].T)
        if self._pooled is not None:
            return self._pooled.hidden(U) @ self._pooled.weights(V)
        parts = []
        for chunk in self._chunks(m):
            H = self._masked(self.first_layer(_side_by_side(U[chunk])), chunk, m).reshape(self.N, -1)
            parts.append(self.combine_neurons(H, _side_by_side(V[chunk])))
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)

    def factor_gradients(self, H: Float[torch.Tensor, "N P m"], L: Predictions, V: Right) -> tuple[Left, Right]:
        """(G_k V_k, G_k^T U_k) for L = grad F, given H = hidden(U); G_k itself is not formed.

        G_k V_k = Phi^T D_k (C^*(L) V_k) and G_k^T U_k = C^*(L)^T D_k Phi U_k.
        """
        back, right = self.combine_adjoint(H.reshape(self.N, -1), _side_by_side(V), L)
        return self._pull(back, V.shape[2]), _blocks(right, self.P)

    def _pull(self, back: Float[torch.Tensor, "N Pm"], m: int) -> Left:
        """Phi^T D_k applied to the columns of each block."""
        back = self._masked(back.contiguous(), slice(0, self.P), m).reshape(self.N, -1)
        return _blocks(self.first_layer_adjoint(back), self.P)

    def factored(self, U: Left, V: Right) -> tuple[Predictions, Pullback]:
        """(A(U V^T), pullback) with pullback(L) = (G_k V_k, G_k^T U_k): `factor_gradients` after one evaluation."""
        linear = self._linear_on_products(U.shape[2])
        if linear is not None:

            def through_product(L: Predictions) -> tuple[Left, Right]:
                G = self.adjoint(L)[0]
                return (G @ V[0])[None], (G.T @ U[0])[None]

            return linear(U[0] @ V[0].T), through_product
        if self._wide(U.shape[2]):

            def through_blocks(L: Predictions) -> tuple[Left, Right]:
                G = self.adjoint(L)
                return G @ V, G.transpose(1, 2) @ U

            return self.apply(U @ V.transpose(1, 2)), through_blocks
        pooled = self._pooled
        if pooled is not None:
            H, weights = pooled.hidden(U), pooled.weights(V)
            return H @ weights, lambda L: pooled.pull(H, L, weights)
        if not self._structured_first and self.architecture.second_layer_is_identity:
            return self._factored_by_samples(_side_by_side(U), _side_by_side(V))
        H = self.hidden(U)
        if not self._structured_second:
            return self.combine(H, V), lambda L: self.factor_gradients(H, L, V)
        evaluated = torch.func.vjp(self.combine_neurons, H.reshape(self.N, -1), _side_by_side(V))

        def pullback(L: Predictions) -> tuple[Left, Right]:
            back, right = evaluated[1](L)
            return self._pull(back, U.shape[2]), _blocks(right, self.P)

        return evaluated[0], pullback

    def _factored_by_samples(
        self, U: Float[torch.Tensor, "p Pm"], V: Float[torch.Tensor, "q Pm"]
    ) -> tuple[Predictions, Pullback]:
        """`factored` for an MLP, some samples at a time."""
        parts = self.sample_parts(U.shape[1])
        m = U.shape[1] // self.P
        hidden = [self._masked_rows(self.Phi[rows] @ U, rows, m) for rows in parts]

        def pullback(L: Predictions) -> tuple[Left, Right]:
            left, right = torch.zeros_like(U), torch.zeros_like(V)
            for rows, H in zip(parts, hidden, strict=True):
                left.addmm_(self.Phi[rows].T, self._masked_rows(L[rows] @ V, rows, m))
                right.addmm_(L[rows].T, H)
            return _blocks(left, self.P), _blocks(right, self.P)

        return torch.cat([H @ V.T for H in hidden]), pullback

    def sample_parts(self, columns: int) -> list[slice]:
        """Rows of Phi, `part_size` of them at a time."""
        step = self.part_size(columns)
        return [slice(start, start + step) for start in range(0, self.N, step)]

    def summed(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two sums over `sample_parts` as sums over all samples: as they are, where these parts are all samples."""
        return left, right

    def part_size(self, columns: int) -> int:
        """How many rows of Phi to take at a time; on a CPU so few that their hidden units stay in the cache."""
        most = PART_ELEMENTS if self.device.type == "cpu" else CHUNK_ELEMENTS  # a GPU is to be kept busy
        return max(SMALLEST_PART, most // max(1, columns))

    def _masked_rows(self, H: Float[torch.Tensor, "rows Pm"], rows: slice, m: int) -> Float[torch.Tensor, "rows Pm"]:
        """The masks of some rows applied in place."""
        if not self._trivial_mask:
            masks = self.masks if self._mask_matrix is None else self._mask_matrix  # numbers are quicker than bools
            H.view(len(H), -1, m).mul_(masks[rows, :, None])
        return H

    def _linear_on_products(self, m: int) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Z -> C(Phi Z) by structure where Z = U V^T costs less than the N x m hidden units."""
        return self._linear if m >= self.c and self.q <= self.N else None

    def restricted(self, samples: Index, rows: Index, outputs: Index) -> "Operator":
        """The same operator on some samples only; `rows` and `outputs` are their rows of Phi and of Y.

        Nothing is copied where they are slices.
        """
        part = copy.copy(self)
        for name in KEPT:  # of all samples
            part.__dict__.pop(name, None)
        part.masks = self.masks[rows]
        part._restrict(samples, rows, outputs)
        part.N, part.n_out = len(part.masks), len(part.Y)
        return part

    def norm_squared(self, iterations: int = 30) -> float:
        """An estimate, from below, of the squared operator norm of A, by power iteration on A A^*."""
        generator = torch.Generator().manual_seed(0)
        L = torch.randn(self.n_out, self.c, generator=generator, dtype=self.dtype).to(self.device)
        size = torch.linalg.vector_norm(L)
        for _ in range(iterations):
            L = self.apply(self.adjoint(L / size.clamp_min(1e-300)))
            size = torch.linalg.vector_norm(L)
        return float(size)
