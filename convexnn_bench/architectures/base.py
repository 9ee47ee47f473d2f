"""What an architecture supplies: the rows Phi, and the linear map C.

The rest of the package knows an architecture only by A(Z) = C(sum_k D_k Phi Z_k). The adjoint of C, and its matrix for
the conic solvers, are derived from `second_layer`.

Where Phi or the N x q argument of C is larger than necessary, an architecture may define the same maps a second time by
their structure: `first_layer`, `combine`, `linear_map`, `pool_rows`. Their adjoints are derived as well.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.architectures._integers import Integers
from convexnn_bench.errors import InputError


class BaseArchitecture:
    """The base of every architecture: two linear maps that depend on the data X.

    A new architecture defines `check_data`, `phi_rows`, `width_out` and `second_layer`. The rows of Phi, and the
    outputs, of one sample stand together, in the order of the samples, and depend on that sample alone.

    Attributes
    ----------
    name : str
        The name under which the class is registered.
    second_layer_is_identity : bool
        Whether C(M) = M, so that its products are skipped.
    degree : int or None
        The degree of homogeneity of A in X: A at t X is t^degree times A at X, for every t > 0. It is the sum of those
        of Phi and C. None, the default, if A is not homogeneous, or if the degree is not known.

    rows_are_data : bool
        Whether Phi = X and C(M) = M, so that X is multiplied only and may be sparse or stay in float32.

    Notes
    -----
    N rows of Phi (one or more a sample), p columns of Phi, M neurons, n_out x c predictions, q the length of a
    second-layer vector. X is a torch tensor with one sample for each index of its first axis.
    """

    name: str
    second_layer_is_identity: bool = False

    @property
    def degree(self) -> int | None:
        return None

    @property
    def rounds(self) -> bool:
        """Whether entries of Phi may be rounded.

        False if each is an entry of X or a constant.
        """
        return True

    def exact_rows(self, X: np.ndarray) -> Integers | None:
        """Return the rows of Phi before rounding as integers.

        Each row is multiplied by a positive factor.

        None, the default, means that they are not known. Enumeration then treats rounded rows that count as parallel as
        different ones.
        """
        return None

    @property
    def rows_are_data(self) -> bool:
        return False

    @property
    def bias_radius(self) -> float | None:
        """A number only if the last column of Phi is a bias without weight decay, see `WithBias`."""
        return None

    def check_data(self, X: np.ndarray) -> None:
        """Raise InputError unless X has the shape this architecture reads."""
        raise TypeError(f"{type(self).__name__} must define check_data")

    def phi_rows(self, X: torch.Tensor) -> Float[torch.Tensor, "N p"]:
        """Return the rows Phi, with which the first layer computes H = Phi U."""
        raise TypeError(f"{type(self).__name__} must define phi_rows")

    def width_out(self, X: np.ndarray, c: int) -> int:
        """Return q, the length of a second-layer weight vector, for c outputs."""
        raise TypeError(f"{type(self).__name__} must define width_out")

    def second_layer(self, M: Float[torch.Tensor, "N q"], X: torch.Tensor, c: int) -> Float[torch.Tensor, "n_out c"]:
        """Return C(M), the predictions from M = sum_k D_k Phi Z_k.

        C is linear in M for fixed X.
        """
        raise TypeError(f"{type(self).__name__} must define second_layer")

    def target_rows(self, Y: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return targets of any allowed shape with one row for each output.

        Raise InputError for other shapes.
        """
        return Y

    # -- optional: the same maps by their structure -------------------------------------------------------

    def first_layer(self, W: Float[torch.Tensor, "p M"], X: torch.Tensor) -> Float[torch.Tensor, "N M"]:
        """Return Phi W.

        An architecture that overrides this forms Phi for cones and enumeration only.
        """
        return self.phi_rows(X) @ W

    def combine(
        self, H: Float[torch.Tensor, "N M"], V: Float[torch.Tensor, "q M"], X: torch.Tensor, c: int
    ) -> Float[torch.Tensor, "n_out c"]:
        """Return C(H V^T)."""
        return self.second_layer(H @ V.T, X, c)

    def linear_map(self, X: torch.Tensor, c: int) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Return Z (p x q) -> C(Phi Z) for the linear activation.

        What depends on X alone is computed before.
        """
        return None

    def pool_rows(self, H: Float[torch.Tensor, "N M"], X: torch.Tensor) -> Float[torch.Tensor, "n_out a M"]:
        """Return the pooled rows R(H), with C(H V^T)_i = sum_alpha R(H)_i[alpha] V[(alpha, .)]^T.

        R is linear and pools the rows of each sample; q = a c with alpha major.
        """
        raise TypeError(f"{type(self).__name__} does not define pool_rows")

    def absolute(self) -> "BaseArchitecture | None":
        """Return the architecture with |Phi| and |C| at |X|, or None if unknown.

        Its Phi and C at |X| are the magnitudes of those of this one at X.

        It bounds rounding errors. Its `first_layer`, `combine` and `linear_map` must add up the magnitudes of all
        terms, as sums of products of entries of X do.
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
