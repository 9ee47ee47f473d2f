"""One stage: a two-layer gated ReLU CNN with average pooling.

Its parameters are the Burer-Monteiro factors of its convex program.

    z_i = sum_k sum_j sum_alpha P[alpha, :] (D_k,i (Phi_i u_kj)) V_k[(alpha, .), j],   D_k,i = diag 1{Phi_i g_k >= 0},

with Phi_i the patches of the maps of sample i (torch.nn.functional.unfold's order) and P averages over a x a windows:
the problem of `cnn.Problem` with architecture CNN(kernel, padding=kernel // 2, pool=a) and the masks of the gates.
"""

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch.nn import functional

from convexnn_bench.architectures import CNN
from convexnn_bench.errors import InputError
from convexnn_bench.layerwise.plans import StagePlan
from convexnn_bench.losses import BaseLoss
from convexnn_bench.problem import Problem

Maps = Float[torch.Tensor, "n _channels _height _width"]  # sides and channels change from maps to maps
Patches = Float[torch.Tensor, "a2 pixels p"]  # sorted by pooling windows, columns in `Stage.order`
Masks = Bool[torch.Tensor, "a2 pixels P"]


WINDOW_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}  # numbers in a temporary array over several windows, which fits a cache


def window_parts(windows: int, elements: int, device: torch.device) -> Iterator[slice]:
    """Yield windows, as many at a time as a temporary array has room for.

    elements: numbers in one window.
    """
    step = max(1, WINDOW_ELEMENTS[device.type] // elements)
    return (slice(first, first + step) for first in range(0, windows, step))


def pooled_patches(patches: Patches, masks: Masks, n: int) -> Iterator[Float[torch.Tensor, "n P p"]]:
    """Yield the means of the masked patches over the pixels of a window, window by window."""
    window = patches.shape[1] // n
    for in_window, active in zip(patches, masks, strict=True):
        weights = active.to(in_window.dtype).div_(window).view(n, window, -1)
        yield weights.transpose(1, 2) @ in_window.view(n, window, -1)


def _unmixed(X: Maps) -> Maps:
    return X.float() if X.dtype == torch.bfloat16 else X


class Stage:
    """Fixed gates (P x p) and trained factors of one stage.

    U is P x p x m, and V is P x a^2 c x m, with p = channels kernel^2.

    Parameters
    ----------
    plan : StagePlan
        Sizes of the stage.
    channels, c : int
        Channels of its maps, and outputs.
    scale : float
        Factor of the maps, which makes their mean square one. It changes no mask; with another scale the same optimum
        has other factors and belongs to another beta.

    Attributes
    ----------
    trained : tuple of str
        The names of the tensors that training changes.
    """

    trained: tuple[str, ...] = ("U", "V")

    def __init__(self, plan: StagePlan, channels: int, c: int, scale: float = 1.0):
        self.plan, self.channels, self.c, self.scale = plan, channels, c, scale
        self.p, self.q = channels * plan.kernel**2, plan.pool**2 * c
        self.gates = torch.zeros(plan.gates, self.p)
        self.U = torch.zeros(plan.gates, self.p, plan.m)
        self.V = torch.zeros(plan.gates, self.q, plan.m)

    @property
    def P(self) -> int:
        return self.plan.gates

    @property
    def width(self) -> int:
        """Channels of the masked maps, P m."""
        return self.P * self.plan.m

    def draw(self, generator: torch.Generator) -> None:
        """Draw gates and factors from normal distributions; hidden units become about as large as maps."""
        self.gates = torch.randn(self.gates.shape, generator=generator)
        # Maps have mean square one, so that x^T u has about mean square p / p = 1. A prediction sums width a^2 pooled
        # maps, each times a weight of mean square 1 / (width a^2).
        self.U = torch.randn(self.U.shape, generator=generator) / math.sqrt(self.p)
        self.V = torch.randn(self.V.shape, generator=generator) / math.sqrt(self.width * self.plan.pool**2)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors by name."""
        return {"gates": self.gates, "U": self.U, "V": self.V}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over tensors by name. Raises InputError for tensors of other shapes."""
        for name, current in self.tensors().items():
            if tensors[name].shape != current.shape:
                raise InputError(f"stage: {name} must be {tuple(current.shape)}, got {tuple(tensors[name].shape)}")
            setattr(self, name, tensors[name].to(current.device))

    def to(self, device: str) -> "Stage":
        """Move all tensors to the device; return the stage itself."""
        for name, tensor in self.tensors().items():
            setattr(self, name, tensor.to(device))
        # The cached order is a tensor on the device that was left.
        self.__dict__.pop("order", None)
        return self

    def prepared(self, X: Maps) -> Maps:
        """Return maps as the stage's convolutions take them: after space-to-depth, scaled."""
        return (functional.pixel_unshuffle(X, 2) if self.plan.downsample else X) * self.scale

    def masks(self, X: Maps) -> Bool[torch.Tensor, "n P height width"]:
        """Return 1{Phi_i g_k >= 0} for prepared maps.

        With maps in bfloat16 the gates are not rounded to it.
        """
        with torch.autocast(X.device.type, enabled=False):
            return self._convolve(_unmixed(X), self.gates) >= 0

    def _convolve(self, X: Maps, rows: torch.Tensor) -> torch.Tensor:
        kernel = self.plan.kernel
        filters = rows.reshape(-1, self.channels, kernel, kernel).to(X.dtype)
        return functional.conv2d(X, filters, padding=kernel // 2)

    def hidden(self, X: Maps, U: torch.Tensor | None = None) -> Maps:
        """Return the masked maps D_k (Phi u_kj) of prepared maps.

        They are n x P m x height x width, and the next stage's input.
        """
        U = self.U if U is None else U
        maps = self._convolve(X, U.transpose(1, 2).reshape(self.width, self.p))
        n, _, height, width = maps.shape
        masked = maps.view(n, self.P, self.plan.m, height, width) * self.masks(X)[:, :, None]
        return masked.view(n, self.width, height, width)

    def predict(self, hidden: Maps, V: torch.Tensor | None = None) -> Float[torch.Tensor, "n c"]:
        """Return predictions from the masked maps, never in mixed precision."""
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = _unmixed(hidden)
            V = (self.V if V is None else V).to(hidden.dtype)
            a, (height, width) = self.plan.pool, hidden.shape[2:]
            pooled = functional.avg_pool2d(hidden, (height // a, width // a))
            # The rows follow the flattened maps: gate, then column, then window.
            weights = V.view(self.P, a * a, self.c, self.plan.m).permute(0, 3, 1, 2).reshape(-1, self.c)
            return pooled.flatten(1) @ weights

    def outputs(self, X: Maps, hidden: Maps) -> Float[torch.Tensor, "n c"]:
        """Return predictions from prepared maps and their masked maps."""
        return self.predict(hidden)

    @cached_property
    def order(self) -> Int[torch.Tensor, " p"]:
        """The entries of a patch ordered by pixel, then channel: the order in which maps are copied quickest."""
        kernel = self.plan.kernel
        entries = torch.arange(self.p, device=self.U.device).view(self.channels, kernel, kernel)
        return entries.permute(1, 2, 0).flatten()

    def windows(self, X: Maps) -> tuple[Patches, Masks]:
        """Return patches and masks of prepared maps, sorted by pooling window, then by sample."""
        kernel, a = self.plan.kernel, self.plan.pool
        n, _, height, width = X.shape
        # Unfolding makes views of overlapping patches without a copy. The reshape below copies them once, sorted.
        rows = functional.pad(X, (kernel // 2,) * 4).permute(0, 2, 3, 1).contiguous()
        views = rows.unfold(1, kernel, 1).unfold(2, kernel, 1)  # n x height x width x channels x kernel x kernel
        views = views.unflatten(1, (a, height // a)).unflatten(3, (a, width // a))
        patches = views.permute(1, 3, 0, 2, 4, 6, 7, 5).reshape(a * a, n * height * width // (a * a), self.p)
        return patches, patches @ self.gates[:, self.order].T.to(X.dtype) >= 0

    def window_outputs(self, patches: Patches, masks: Masks, n: int) -> Float[torch.Tensor, "n c"]:
        """Return predictions of the n samples of these windows."""
        a2, m = len(patches), self.plan.m
        units = patches @ self.U[:, self.order].transpose(1, 2).reshape(self.width, self.p).T.to(patches.dtype)
        pooled = (units.unflatten(2, (self.P, m)) * masks[..., None]).view(a2, n, -1, self.width).mean(dim=2)
        weights = self.V.to(patches.dtype).view(self.P, a2, self.c, m).permute(1, 0, 3, 2).reshape(a2, -1, self.c)
        return (pooled @ weights).sum(dim=0)

    def gradient_norm(self, G: Float[torch.Tensor, "P p q"], beta: float) -> float | None:
        """Return ||(G_k V_k + beta U_k, G_k^T U_k + beta V_k)|| / (beta ||(U, V)||), for G_k = A_k^*(grad F)."""
        U, V = self.U.double(), self.V.double()
        slopes = torch.cat([(G @ V + beta * U).flatten(), (G.transpose(1, 2) @ U + beta * V).flatten()])
        size = beta * math.sqrt(float(U.square().sum() + V.square().sum()))
        slope = float(torch.linalg.vector_norm(slopes))
        return slope / size if size > 0 else slope / beta

    def settle(self) -> None:
        """Finish the stage after its training; factors need nothing."""

    def problem(self, X: Maps, Y: np.ndarray, loss: str | BaseLoss, beta: float) -> Problem:
        """Return the stage's training problem on these maps (before `prepared`).

        Every solver of the package takes it.
        """
        maps = self.prepared(X.double())
        masks = self.masks(maps).permute(0, 2, 3, 1).reshape(-1, self.P)
        architecture = CNN(self.plan.kernel, padding=self.plan.kernel // 2, pool=self.plan.pool)
        return Problem(
            maps.cpu().numpy(), Y, architecture=architecture, activation="gated_relu", loss=loss, beta=beta,
            patterns=masks.cpu().numpy(),
        )  # fmt: skip

    def regulariser(self) -> float:
        """Return R = 1/2 (||U||^2 + ||V||^2), in float64."""
        return 0.5 * float(self.U.double().square().sum() + self.V.double().square().sum())
