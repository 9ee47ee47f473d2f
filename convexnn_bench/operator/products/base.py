"""What every way of forming products offers.

It offers A(Z), A^*(L), and the factored form A(U V^T) with its gradient.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int

from convexnn_bench.operator.layers import Blocks, Left, Predictions, Pullback, Right
from convexnn_bench.operator.masked_layers import MaskedLayers


class Products(ABC):
    """One way to form the products of A(Z) = C(sum_k D_k Phi Z_k).

    Every method is handed the masked layers and no object keeps them, so that an operator that is dropped frees its
    arrays at once.
    """

    @abstractmethod
    def apply(self, layers: MaskedLayers, Z: Blocks) -> Predictions:
        """Return A(Z)."""

    @abstractmethod
    def adjoint(self, layers: MaskedLayers, L: Predictions) -> Blocks:
        """Return G_k = A_k^*(L) = Phi^T D_k C^*(L) of every block."""

    def apply_factors(self, layers: MaskedLayers, U: Left, V: Right) -> Predictions:
        """Return A(U V^T), here through the blocks U_k V_k^T."""
        return self.apply(layers, U @ V.transpose(1, 2))

    def factored(self, layers: MaskedLayers, U: Left, V: Right) -> tuple[Predictions, Pullback]:
        """Return A(U V^T) and the pullback L -> (G_k V_k, G_k^T U_k).

        Here they go through the blocks U_k V_k^T and G_k.
        """

        # d <L, A(U V^T)> = sum_k <G_k, dU_k V_k^T + U_k dV_k^T> with G_k = A_k^*(L).
        def pullback(L: Predictions) -> tuple[Left, Right]:
            G = self.adjoint(layers, L)
            return G @ V, G.transpose(1, 2) @ U

        return self.apply(layers, U @ V.transpose(1, 2)), pullback


class ColumnProducts(Products):
    """Products whose factored form may also go through the hidden units of the m columns of each block."""

    def rows(self, layers: MaskedLayers) -> int:
        """Return how many rows a product with blocks Z goes over."""
        return layers.N

    @abstractmethod
    def images(
        self, layers: MaskedLayers, E: Float[torch.Tensor, "r p q"], owner: Int[torch.Tensor, " r"]
    ) -> Float[torch.Tensor, "n_out c r"]:
        """Return the predictions A_k(E_e) of matrices that belong to blocks k = owner[e]."""

    @abstractmethod
    def through_blocks(self, layers: MaskedLayers, m: int | float, blocks: int | None = None) -> bool:
        """Return whether the factored form is cheaper through the blocks U_k V_k^T than through their m columns.

        blocks: how many of them there are, if not all.
        """

    @abstractmethod
    def apply_columns(self, layers: MaskedLayers, U: Left, V: Right) -> Predictions:
        """Return A(U V^T) from hidden units; U V^T is not formed."""

    @abstractmethod
    def factored_columns(self, layers: MaskedLayers, U: Left, V: Right) -> tuple[Predictions, Pullback]:
        """Return A(U V^T) and its pullback from hidden units; neither U V^T nor G_k is formed."""

    def apply_factors(self, layers: MaskedLayers, U: Left, V: Right) -> Predictions:
        """Return A(U V^T), the cheaper way."""
        way = super().apply_factors if self.through_blocks(layers, U.shape[2]) else self.apply_columns
        return way(layers, U, V)

    def factored(self, layers: MaskedLayers, U: Left, V: Right) -> tuple[Predictions, Pullback]:
        """Return A(U V^T) and its pullback, the cheaper way."""
        way = super().factored if self.through_blocks(layers, U.shape[2]) else self.factored_columns
        return way(layers, U, V)
