"""An architecture whose hidden neurons have biases.

The biases have another weight decay than the weights, or none.
"""

import numpy as np
import torch

from convexnn_bench.architectures.base import BaseArchitecture

ROUNDS = 50  # steps towards the centre of the smallest ball around the rows


class WithBias(BaseArchitecture):
    """The rows (phi_i - shift, size) for the rows phi_i of another architecture.

    A neuron (u, w) of these rows has the pre-activations phi_i^T u + b with the bias b = size w - shift^T u, so that
    weight decay acts on ((b + shift^T u) / size)^2.

    Parameters
    ----------
    inner : BaseArchitecture
        The architecture without biases of hidden neurons.
    shift : array, one number for each column of the inner rows
        What is subtracted from every row.
    size : float
        The constant feature. Its square is the weight decay of the weights over that of the biases.
    radius : float, optional
        At least the length of every row phi_i - shift, where the biases have no weight decay and `size` belongs to a
        relaxation (see Notes). None, the default, where they have.

    Notes
    -----
    Let the biases have no weight decay, and let the multiplier have 1^T Lambda = 0. Then ||R^T (Phi u + b 1)_+|| with
    R = C^*(Lambda) does not change with b where |b| >= radius ||u||: the neuron is linear on all rows, or zero. So the
    dual norm over all b is that over the cylinder ||u|| <= 1, |b| <= radius, on which ||u||^2 + (b / size)^2 is at most
    1 + (radius / size)^2. Hence the problem with these rows and the weight decay beta / (1 + (radius / size)^2)^(1/2)
    has no larger optimum than the network, and nearly the same one for a large size.
    """

    name = "with_bias"

    def __init__(self, inner: BaseArchitecture, shift: np.ndarray, size: float, radius: float | None = None):
        self.inner, self.shift, self.size, self.radius = inner, np.asarray(shift, dtype=np.float64), size, radius
        self.second_layer_is_identity = inner.second_layer_is_identity

    @property
    def bias_radius(self) -> float | None:
        return self.radius

    def check_data(self, X: np.ndarray) -> None:
        self.inner.check_data(X)

    def phi_rows(self, X: torch.Tensor) -> torch.Tensor:
        rows = self.inner.phi_rows(X)
        moved = rows - torch.as_tensor(self.shift, dtype=rows.dtype, device=rows.device)
        return torch.nn.functional.pad(moved, (0, 1), value=self.size)

    def width_out(self, X: np.ndarray, c: int) -> int:
        return self.inner.width_out(X, c)

    def second_layer(self, M: torch.Tensor, X: torch.Tensor, c: int) -> torch.Tensor:
        return self.inner.second_layer(M, X, c)

    def combine(self, H: torch.Tensor, V: torch.Tensor, X: torch.Tensor, c: int) -> torch.Tensor:
        return self.inner.combine(H, V, X, c)

    def target_rows(self, Y: np.ndarray, X: np.ndarray) -> np.ndarray:
        return self.inner.target_rows(Y, X)


def centre_of(rows: np.ndarray) -> np.ndarray:
    """Return a point from which no row is far: the mean, moved towards the furthest rows while that helps.

    Badoiu and Clarkson, Smaller core-sets for balls, SODA 2003.
    """
    centre = best = rows.mean(axis=0)
    least = np.inf
    for step in range(ROUNDS):
        lengths = np.linalg.norm(rows - centre, axis=1)
        furthest = int(lengths.argmax())
        if lengths[furthest] < least:
            best, least = centre, float(lengths[furthest])
        centre = centre + (rows[furthest] - centre) / (step + 2)
    return best
