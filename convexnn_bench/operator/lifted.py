"""The operator of the lifted program, its adjoint and its factored form.

A(Z) = C(sum_k D_k Phi Z_k), and the factored form is A(U V^T).

The n x Pp matrix [D_1 Phi .. D_P Phi] is never formed. How a product is formed instead depends on the architecture,
the masks and the sizes; `products/` holds the ways, and each operator takes the first of them that applies:

    linear_map     one block without a mask, and the architecture gives Z -> C(Phi Z) by structure
    pooled         C pools the rows of a sample first, and the pooled masked rows fit memory
    mask_matrix    Phi is at hand: one product with the 0/1 matrix of the masks
    hidden_units   Phi [Z_1 .. Z_P] by the architecture's first layer or by compact data, followed by the masks

Temporary arrays hold at most `CHUNK_ELEMENTS` numbers. Adjoints of structured maps are vector-Jacobian products.
"""

import copy
from functools import cached_property

import torch
from jaxtyping import Float, Int

from convexnn_bench.operator.compact import CompactMatrix
from convexnn_bench.operator.layers import Blocks, Index, Left, Predictions, Pullback, Right
from convexnn_bench.operator.masked_layers import MaskedLayers
from convexnn_bench.operator.products import (
    ColumnProducts,
    HiddenUnits,
    LinearMap,
    MaskMatrix,
    PooledRows,
    Products,
    pooled_rows,
)

CACHED = ("_linear_map", "_column_products", "mask_matrix")  # depend on the masks or on the samples


class Operator(MaskedLayers):
    """A and its adjoint on one device, float64 by default.

    Attributes
    ----------
    N, p, q, P, n_out, c : int
        Rows of Phi and its columns, length of a second-layer vector, blocks, and the shape of the predictions.
    X, Y, Phi, masks : torch.Tensor
        The data, the targets (n_out x c), the rows (N x p) and the masks (N x P, bool) on the device. Sparse data and
        large float32 data are a `CompactMatrix`, of which no Phi is formed.
    """

    @cached_property
    def _linear_map(self) -> LinearMap | None:
        # The architecture's map is Z -> C(Phi Z): it serves one block, and no mask may stand between Phi and C.
        forward = self.architecture.linear_map(self.X, self.c) if self.unmasked and self.P == 1 else None
        return None if forward is None else LinearMap(forward)

    @cached_property
    def _column_products(self) -> ColumnProducts:
        """The products for blocks and for thin factors, where the linear map does not apply."""
        # The order of the table above: S where C pools and S fits, then the mask matrix where Phi is at hand.
        return pooled_rows(self) or (MaskMatrix() if self.has_rows and not self.unmasked else HiddenUnits())

    @property
    def products(self) -> Products:
        """The way in which products with blocks are formed."""
        return self._linear_map or self._column_products

    # -- A and its adjoint ------------------------------------------------------------------------------

    def apply(self, Z: Blocks) -> Predictions:
        """Return A(Z) = C(sum_k D_k Phi Z_k)."""
        return self.products.apply(self, Z)

    def adjoint(self, L: Predictions) -> Blocks:
        """Return G_k = A_k^*(L) = Phi^T D_k C^*(L) of every block."""
        return self.products.adjoint(self, L)

    def images(
        self, E: Float[torch.Tensor, "r p q"], owner: Int[torch.Tensor, " r"]
    ) -> Float[torch.Tensor, "n_out c r"]:
        """Return the predictions A_k(E_e) of r matrices that belong to the blocks k = owner[e]."""
        return self._column_products.images(self, E, owner)

    def norm_squared(self, iterations: int = 30) -> float:
        """Estimate the squared operator norm of A, from below, by power iteration on A A^*."""
        generator = torch.Generator().manual_seed(0)
        L = torch.randn(self.n_out, self.c, generator=generator, dtype=self.dtype).to(self.device)
        size = torch.linalg.vector_norm(L)
        # ||A A^* L|| <= ||A||^2 for every L of length one, so that the estimate is a lower bound after any number of
        # steps.
        for _ in range(iterations):
            L = self.apply(self.adjoint(L / size.clamp_min(1e-300)))
            size = torch.linalg.vector_norm(L)
        return float(size)

    # -- the factored form A(U V^T) ---------------------------------------------------------------------

    def apply_factors(self, U: Left, V: Right) -> Predictions:
        """Return A(U V^T), without forming U V^T unless that is cheaper."""
        return self._for_factors(U.shape[2]).apply_factors(self, U, V)

    def factored(self, U: Left, V: Right) -> tuple[Predictions, Pullback]:
        """Return A(U V^T) and the pullback L -> (G_k V_k, G_k^T U_k): `factor_gradients` after one evaluation."""
        return self._for_factors(U.shape[2]).factored(self, U, V)

    def _for_factors(self, m: int) -> Products:
        linear = self._linear_map
        return linear if linear is not None and linear.cheaper(self, m) else self._column_products

    # -- what a product costs -----------------------------------------------------------------------------

    @property
    def is_pooled(self) -> bool:
        """Whether products go through the pooled masked rows."""
        return isinstance(self._column_products, PooledRows)

    @property
    def product_rows(self) -> int:
        """How many rows a product with blocks Z goes over."""
        return self._column_products.rows(self)

    def through_blocks(self, m: int | float, blocks: int | None = None) -> bool:
        """Return whether the factored form is cheaper through the blocks U_k V_k^T than through their m columns.

        blocks: how many of them there are, if not all.
        """
        return self._column_products.through_blocks(self, m, blocks)

    # -- parts of an operator -----------------------------------------------------------------------------

    def on_blocks(self, blocks: Int[torch.Tensor, " J"]) -> "Operator":
        """Return the operator of these blocks alone, in this order.

        A block may come several times.

        With one block a neuron and m = 1 its factored form is that of a set of neurons, whatever their number a block.
        """
        part = self._copy()
        if isinstance(self._column_products, PooledRows):
            # Pooled rows of some blocks are a selection from S; without it the rows would be pooled again.
            part._column_products = self._column_products.on_blocks(blocks)
        part.masks = self.masks[:, blocks]
        part.P = part.masks.shape[1]
        return part

    def restricted(self, samples: Index, rows: Index, outputs: Index) -> "Operator":
        """Return the same operator on some samples only; `rows` and `outputs` are their rows of Phi and of Y.

        Nothing is copied where they are slices.
        """
        part = self._copy()
        part.masks = self.masks[rows]
        part._restrict(samples, rows, outputs)
        part.N, part.n_out = len(part.masks), len(part.Y)
        return part

    def _copy(self) -> "Operator":
        # A shallow copy shares X, Y and Phi. What depends on the masks or on the samples is formed anew on first use.
        part = copy.copy(self)
        for name in CACHED:
            part.__dict__.pop(name, None)
        return part

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors that products are computed from, by name, as far as they are formed."""
        formed = {name: vars(self).get(name) for name in ("X", "Y", "masks", "Phi", "mask_matrix")}
        if isinstance(self.X, CompactMatrix):
            formed["X"] = self.X.stored()
        products = vars(self).get("_column_products")
        formed["pooled"] = products.S if isinstance(products, PooledRows) else None
        return {name: tensor for name, tensor in formed.items() if tensor is not None}
