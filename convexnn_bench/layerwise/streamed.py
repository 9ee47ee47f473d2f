"""The certificate of a stage over data that are never in memory at once: two passes, float64 sums.

The first pass gives predictions, n x c numbers that are kept, and so F and Lambda = grad F; the second
    G_k[., alpha, .] = sum_i sum_{kappa in window alpha} P[alpha, kappa] D_k[i, kappa] x_{i, kappa} Lambda_i^T,
one matrix product for each window alpha over the samples and pixels of a batch. Then, as everywhere (`certificates`),
p* >= -F*(s Lambda) for s max_k ||G_k||_2 <= beta.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch.nn import functional

from convexnn_bench import parallel
from convexnn_bench.certificates.bounds import best_dual, concluded
from convexnn_bench.certificates.certificate import Certificate
from convexnn_bench.dual_norms import EPS, MaxDualNorm, max_spectral_norm
from convexnn_bench.errors import InputError
from convexnn_bench.layerwise.stage import Maps, Stage
from convexnn_bench.losses.base import BaseLoss

# the rows, and their maps before `prepared`; of several processes the batches of this one
Batches = Callable[[], Iterator[tuple[slice, Maps]]]


@dataclass(frozen=True)
class Adjoint:
    """G (P x p x q), and a bound on the Frobenius norm of the rounding error of any of its blocks."""

    G: torch.Tensor
    rounding: float

    def norm(self) -> MaxDualNorm:
        """max_k ||A_k^* Lambda||_2, on the safe side of all rounding."""
        found = max_spectral_norm(self.G)
        low = found.value * (1 - 8 * sum(self.G.shape[1:]) * EPS) - self.rounding
        return MaxDualNorm(found.value + self.rounding, found.block, low, found.method)


def predictions(stage: Stage, batches: Batches, n: int) -> Float[torch.Tensor, "n c"]:
    """A(Z) of all samples, float64 on the stage's device."""
    found = torch.zeros(n, stage.c, dtype=torch.float64, device=stage.U.device)
    for rows, X in batches():
        found[rows] = stage.predict(stage.hidden(stage.prepared(X.double())))
    parallel.add_up(found)
    return found


def adjoint(stage: Stage, batches: Batches, Lambda: Float[torch.Tensor, "n c"]) -> Adjoint:
    """A_k^* Lambda of every block.

    Rounding: every entry of G is a sum of n window products x Lambda / window, masks only remove terms, and the norm of
    a sum is at most the sum of norms. So the error of a block is below (n window + a few) eps sum_{i, kappa}
    ||x_{i, kappa}|| ||Lambda_i|| / window (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
    """
    a, c = stage.plan.pool, stage.c
    G = torch.zeros(a * a, stage.p, stage.P * c, dtype=torch.float64, device=Lambda.device)
    magnitude, terms = torch.zeros(2, dtype=torch.float64, device=Lambda.device).unbind()
    for rows, X in batches():
        patches, masks = _windows(stage, stage.prepared(X.double()))  # a^2 x b window x p, and x P
        window = patches.shape[1] // (rows.stop - rows.start)
        weights = (Lambda[rows] / window).repeat_interleave(window, dim=0)  # b window x c
        for at, part in zip(G, zip(patches, masks, strict=True), strict=True):
            own, active = part
            at.addmm_(own.T, (active.double()[:, :, None] * weights[:, None, :]).flatten(1))
        lengths = torch.linalg.vector_norm(patches, dim=2) @ torch.linalg.vector_norm(weights, dim=1)
        magnitude += lengths.sum()
        terms.fill_(window)
    parallel.add_up(G, magnitude, terms)  # of several processes `terms` is too many, which is safe
    G = G.view(a * a, stage.p, stage.P, c).permute(2, 1, 0, 3).reshape(stage.P, stage.p, stage.q)
    return Adjoint(G, (Lambda.shape[0] * float(terms) + stage.p + 20) * EPS * float(magnitude))


def _windows(stage: Stage, maps: Maps) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches and masks sorted by the pooling windows they are in."""
    kernel, a = stage.plan.kernel, stage.plan.pool
    n, _, height, width = maps.shape
    patches = functional.unfold(maps, kernel, padding=kernel // 2).view(n, -1, a, height // a, a, width // a)
    masks = stage.masks(maps).view(n, -1, a, height // a, a, width // a)
    window = height * width // (a * a)

    def by_window(array: torch.Tensor) -> torch.Tensor:
        return array.permute(2, 4, 0, 3, 5, 1).reshape(a * a, n * window, -1)

    return by_window(patches), by_window(masks)


def certify_stage(
    stage: Stage, batches: Batches, Y: Float[torch.Tensor, "n c"], loss: BaseLoss, beta: float, best: float = -math.inf
) -> tuple[Certificate, Float[torch.Tensor, "n c"]]:
    """(certificate of the stage's factors, its predictions); the program is that of the stage's own gates.

    best: a lower bound that was proven of the same program before; a bound once proven holds for every later point.
    Raises InputError for factors or predictions that are not finite.
    """
    z = predictions(stage, batches, Y.shape[0])
    R = stage.regulariser()
    if not bool(torch.isfinite(z).all()) or not math.isfinite(R):
        raise InputError("the stage's predictions or norms overflow: train it with a smaller rate")
    gradient = loss.gradient(z, Y)
    Lambda = loss.project_dual(gradient, Y)
    norm = adjoint(stage, batches, Lambda).norm()
    proven, multiplier = best_dual(loss, Y, Lambda, beta, norm.value)
    primal, error = float(loss.value(z, Y)) + beta * R, float((gradient * z).sum()) + beta * R
    kept = multiplier if proven >= best else None
    certificate = concluded(primal, max(proven, best), beta, norm, error, kept, scope="sampled", infeasibility=0.0)
    return certificate, z


def beta_max(stage: Stage, batches: Batches, Y: Float[torch.Tensor, "n c"], loss: BaseLoss) -> float:
    """max_k ||A_k^* grad F(0)||_2: from there on Z = 0 is optimal."""
    return adjoint(stage, batches, loss.gradient(torch.zeros_like(Y), Y)).norm().value
