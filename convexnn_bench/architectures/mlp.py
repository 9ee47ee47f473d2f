"""Two-layer perceptron (Sahiner et al., ICLR 2024, eq. 1)."""

import numpy as np
import torch

from convexnn_bench.architectures.base import BaseArchitecture, check_rank


class MLP(BaseArchitecture):
    """One hidden layer: Phi = X (n x d), q = c, and C is the identity."""

    name = "mlp"
    second_layer_is_identity = True

    @property
    def degree(self) -> int | None:
        return 1 if type(self) is MLP else None  # a subclass may have other rows

    @property
    def rounds(self) -> bool:
        return type(self) is not MLP

    @property
    def rows_are_data(self) -> bool:
        return type(self) is MLP  # a subclass may have other rows

    def check_data(self, X: np.ndarray) -> None:
        check_rank(X, 2, "n x d")

    def phi_rows(self, X: torch.Tensor) -> torch.Tensor:
        return X

    def width_out(self, X: np.ndarray, c: int) -> int:
        return c

    def second_layer(self, M: torch.Tensor, X: torch.Tensor, c: int) -> torch.Tensor:
        # Each row of Phi is a sample with q = c, so that D_k Phi Z_k has the shape of the predictions.
        return M

    def absolute(self) -> "MLP | None":
        return self if type(self) is MLP else None  # a subclass may have other rows
