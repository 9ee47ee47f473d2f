"""What an architecture supplies: the rows Phi of the first layer and the linear map C of the second.

`A(Z) = C(sum_k D_k Phi Z_k)`; nothing else about the architecture is known to the rest of the package. The
adjoint of C, and its matrix for the conic solvers, are derived from `second_layer` and never written again.

Where Phi or the N x q argument of C is larger than it need be, an architecture may give the same maps a second time
by their structure: `first_layer`, `combine`, `linear_map`, `pool_rows`. Their adjoints are derived too.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.errors import InputError


class BaseArchitecture:
    """Two linear maps of the data.

    `C` is linear in M for fixed X. Set `second_layer_is_identity` where C(M) = M, to skip its products. The rows of
    Phi, and the outputs, of one sample stand together, in the order of the samples, and depend on that sample alone.
    """

    name: str
    second_layer_is_identity: bool = False

    def check_data(self, X: np.ndarray) -> None:
        """Raise InputError unless X has the shape this architecture reads."""
        raise TypeError(f"{type(self).__name__} must define check_data")

    def phi_rows(self, X: torch.Tensor) -> Float[torch.Tensor, "N p"]:
        """The pre-activation rows Phi, so that the first layer computes H = Phi U."""
        raise TypeError(f"{type(self).__name__} must define phi_rows")

    def width_out(self, X: np.ndarray, c: int) -> int:
        """q, the length of a second-layer weight vector, for c outputs."""
        raise TypeError(f"{type(self).__name__} must define width_out")

    def second_layer(self, M: Float[torch.Tensor, "N q"], X: torch.Tensor, c: int) -> Float[torch.Tensor, "n_out c"]:
        """C(M): the predictions from M = sum_k D_k Phi Z_k."""
        raise TypeError(f"{type(self).__name__} must define second_layer")

    def target_rows(self, Y: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Targets with one row an output, from the shapes that are natural here. InputError where they do not fit."""
        return Y

    # -- optional: the same maps by their structure -------------------------------------------------------

    def first_layer(self, W: Float[torch.Tensor, "p M"], X: torch.Tensor) -> Float[torch.Tensor, "N M"]:
        """Phi W. Where it is defined anew, Phi is formed only for what needs its entries (cones, enumeration)."""
        return self.phi_rows(X) @ W

    def combine(
        self, H: Float[torch.Tensor, "N M"], V: Float[torch.Tensor, "q M"], X: torch.Tensor, c: int
    ) -> Float[torch.Tensor, "n_out c"]:
        """C(H V^T)."""
        return self.second_layer(H @ V.T, X, c)

    def linear_map(self, X: torch.Tensor, c: int) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Z (p x q) -> C(Phi Z), for the linear activation, with what depends on X alone done beforehand."""
        return None

    def pool_rows(self, H: Float[torch.Tensor, "N M"], X: torch.Tensor) -> Float[torch.Tensor, "n_out a M"]:
        """The linear pooling R of the rows of a sample with which C(H V^T)_i = sum_alpha R(H)_i[alpha] V[(alpha, .)]^T,
        q = a c with alpha major; used where it is defined."""
        raise TypeError(f"{type(self).__name__} does not define pool_rows")

    def absolute(self) -> "BaseArchitecture | None":
        """The architecture whose Phi and C at |X| are |Phi| and |C| of this one at X, elementwise; None if unknown.

        It bounds rounding errors: `first_layer`, `combine` and `linear_map` of it must then add up the magnitudes of
        all terms, as they do where they are sums of products of entries of X.
        """
        return None

    def __repr__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in sorted(vars(self).items()))
        return f"{type(self).__name__}({inside})"


def check_rank(X: np.ndarray, ndim: int, shape: str) -> None:
    """Raise InputError unless X has `ndim` axes, none of them empty."""
    if X.ndim != ndim or 0 in X.shape:
        hint = "; one feature is X[:, None]" if ndim == 2 and X.ndim == 1 else ""
        raise InputError(f"X must be a non-empty array of shape {shape}, got shape {X.shape}{hint}")
