"""The certificate of a stage over data that are never in memory at once.

It takes one pass over the data, with sums in float64.

Every batch gives its predictions z, its rows of Lambda = grad F(z), as F is a sum over samples, and its part of
    G_k[., alpha, .] = sum_i sum_{kappa in window alpha} P[alpha, kappa] D_k[i, kappa] x_{i, kappa} Lambda_i^T,
one matrix product for each window alpha over the samples and pixels of the batch. As for every certificate
(`certificates`), p* >= -F*(s Lambda) for s max_k ||G_k||_2 <= beta.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float

from convexnn_bench import parallel
from convexnn_bench.certificates import (
    Certificate,
    best_dual,
    check_conjugate,
    concluded,
    loss_upper_bound,
    objective_upper_bound,
)
from convexnn_bench.errors import InputError
from convexnn_bench.layerwise.stage import Maps, Masks, Patches, Stage, pooled_patches, window_parts
from convexnn_bench.losses import BaseLoss
from convexnn_bench.norms import EPS, MaxDualNorm, max_spectral_norm
from convexnn_bench.operator import sum_rounding, underflow

# makes an iterator over rows and their maps before `prepared`; with several processes, over the batches of this one
Batches = Callable[[], Iterator[tuple[slice, Maps]]]
POOL_FIRST = 2  # pixels of a window, in outputs c, from which pooling first takes fewer operations

Slope = Callable[[slice, Patches, Masks], Float[torch.Tensor, "b c"]]  # from rows and windows to Lambda


@dataclass(frozen=True)
class Adjoint:
    """G (P x p x q), and a bound on the Frobenius norm of the rounding error of any of its blocks.

    amplified: a bound on the change of ||A_k^* Lambda||_F if every entry of Lambda changes by at most one.
    """

    G: torch.Tensor
    rounding: float
    amplified: float

    def norm(self) -> MaxDualNorm:
        """Return max_k ||A_k^* Lambda||_2, enlarged by all rounding."""
        norm = max_spectral_norm(self.G)
        low = norm.value * (1 - 8 * sum(self.G.shape[1:]) * EPS) - self.rounding
        return MaxDualNorm(norm.value + self.rounding, norm.block, low, norm.method)


def adjoint(stage: Stage, batches: Batches, slope: Slope) -> Adjoint:
    """Return A_k^* Lambda of every block, for the rows of Lambda that `slope` computes batch by batch.

    Rounding: every entry of G is a sum of n window products x Lambda / window, masks only remove terms, and the norm of
    a sum is at most the sum of norms. So the error of a block is below (n window + a few) eps sum_{i, kappa}
    ||x_{i, kappa}|| ||Lambda_i|| / window (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
    Besides, underflow may change Lambda / window, the pooled patches, and each product.
    """
    a2, device = stage.plan.pool**2, stage.U.device
    G = torch.zeros(a2, stage.p, stage.P * stage.c, dtype=torch.float64, device=device)
    magnitude, reach, size, terms, nonzero = torch.zeros(5, dtype=torch.float64, device=device).unbind()
    for rows, X in batches():
        patches, masks = stage.windows(stage.prepared(X.double()))
        Lambda = slope(rows, patches, masks)
        gather(G, patches, masks, Lambda)
        # The mean over the pixels of a window is the sum over kappa in the bound, divided by the window.
        lengths, norms = _lengths(patches).view(a2, len(Lambda), -1), _lengths(Lambda)
        magnitude += (lengths.mean(dim=2) @ norms).sum()
        reach += lengths.mean(dim=2).sum()
        size += norms.sum()
        nonzero += Lambda.count_nonzero()
        # Over all batches these are the n window terms that each entry of G sums.
        terms += patches.shape[1]
    # G, its bound and the number of its terms are sums over samples, and so over the ranks.
    parallel.sum_over_ranks(G, magnitude, reach, size, terms, nonzero)
    amplified = float(reach) * stage.c**0.5
    changed = float(terms) * (amplified + (stage.p * stage.q) ** 0.5 + a2 * stage.p**0.5 * float(size))
    rounding = (float(terms) + stage.p + 20) * EPS * float(magnitude) + underflow(changed)
    # A multiplier of zeros has products of zeros, and beta_max is zero where that is the gradient at zero.
    return Adjoint(by_blocks(stage, G), rounding if float(nonzero) else 0.0, amplified)


def _lengths(rows: Float[torch.Tensor, "*rows p"]) -> Float[torch.Tensor, "*rows"]:
    """Return the lengths of rows up to relative rounding, and upper bounds if squares underflow."""
    return torch.linalg.vector_norm(rows, dim=-1) + (rows.shape[-1] * underflow(1.0)) ** 0.5


def gather(
    G: Float[torch.Tensor, "a2 p Pc"], patches: Patches, masks: Masks, Lambda: Float[torch.Tensor, "n c"]
) -> None:
    """Add the sums over the pixels of a batch to G.

    Each pixel is weighted by its Lambda_i / window, 2 p P c operations a pixel. If a window is large, the masked
    patches are pooled first instead, 2 p P operations a pixel and 2 p P c a window.
    """
    n, c = Lambda.shape
    window = patches.shape[1] // n
    if window >= POOL_FIRST * c:
        for G_window, pooled in zip(G, pooled_patches(patches, masks, n), strict=True):  # pooled: n x P x p
            G_window += (pooled.flatten(1).T @ Lambda).unflatten(0, (masks.shape[2], -1)).transpose(0, 1).flatten(1)
        return
    weights = (Lambda / window).repeat_interleave(window, dim=0)
    for part in window_parts(len(patches), masks.shape[1] * G.shape[2], G.device):
        masked = (masks[part].to(G.dtype)[..., None] * weights[:, None, :]).flatten(2)
        G[part].baddbmm_(patches[part].transpose(1, 2), masked)


def by_blocks(stage: Stage, G: Float[torch.Tensor, "a2 p Pc"]) -> Float[torch.Tensor, "P p q"]:
    """Return the same numbers with one matrix a block."""
    blocks = torch.empty(stage.P, stage.p, stage.q, dtype=G.dtype, device=G.device)
    blocks[:, stage.order] = G.unflatten(2, (stage.P, stage.c)).permute(2, 1, 0, 3).flatten(2)
    return blocks


def certify_stage(
    stage: Stage, batches: Batches, Y: Float[torch.Tensor, "n c"], loss: BaseLoss, beta: float, best: float = -math.inf
) -> tuple[Certificate, Float[torch.Tensor, "n c"]]:
    """Certify a stage in its own convex program, the one of its gates.

    Parameters
    ----------
    stage : Stage
        The stage with its factors.
    batches : callable
        Makes an iterator over (rows, maps), the maps before `Stage.prepared`.
    Y : torch.Tensor
        Targets, n x c.
    loss, beta
        Loss and weight decay of the program.
    best : float
        A lower bound proven of the same program before, which holds for every later point.

    Returns
    -------
    Certificate
        What is proven of the stage's factors.
    torch.Tensor
        The stage's predictions, n x c.

    Raises
    ------
    InputError
        If factors or predictions are not finite.
    """
    z, R, reach = torch.zeros_like(Y), stage.regulariser(), torch.zeros_like(Y[:, :1])

    def slope(rows: slice, patches: Patches, masks: Masks) -> torch.Tensor:
        # The magnitudes of the products in z_i add up to at most reach_i R, to which the rounding is relative. reach_i
        # is the length of the vector of mean_kappa ||x_{i, kappa}|| over the windows alpha.
        lengths = _lengths(patches).view(len(patches), rows.stop - rows.start, -1)
        terms = stage.p + lengths.shape[2] + len(patches) * stage.width + 20  # products that meet in an entry of z
        reach[rows, 0] = terms * EPS * torch.linalg.vector_norm(lengths.mean(dim=2), dim=0)
        z[rows] = stage.window_outputs(patches, masks, rows.stop - rows.start)
        return loss.project_dual(loss.gradient(z[rows], Y[rows]), Y[rows])

    # 1. One pass gives z and G together, because the row Lambda_i needs the prediction z_i alone.
    dual = adjoint(stage, batches, slope)
    norm = dual.norm()
    # Every rank has filled the rows of its own batches. The others are zero.
    parallel.sum_over_ranks(z, reach)
    if not bool(torch.isfinite(z).all()) or not math.isfinite(R):
        raise InputError("the stage's predictions or norms overflow: train it with a smaller rate")
    gradient = loss.gradient(z, Y)
    Lambda = loss.project_dual(gradient, Y)
    # 2. Scale Lambda so that it is feasible, with the norm of its adjoint enlarged by all rounding.
    proven, multiplier = best_dual(loss, Y, Lambda, beta, norm.value, underflow=underflow(dual.amplified))
    # 3. Compare it with the objective, rounded up. z is bilinear in U and V, so that <grad F, z> + beta R is half the
    # derivative of the factored objective along (U, V): the error term of Theorem 3.4, which vanishes at stationary
    # points.
    value, error = float(loss.value(z, Y)), float((gradient * z).sum()) + beta * R
    check_conjugate(loss, z, Y, value, gradient, Lambda)
    F = loss_upper_bound(loss, z, Y, value, gradient, R * reach.expand_as(z))
    R_rounding = 4 * (stage.p + stage.q) * min(stage.p, stage.q) * EPS + sum_rounding(stage.width * (stage.p + stage.q))
    primal = objective_upper_bound(F, beta, R, R_rounding)
    # The multiplier is reported only with its own bound, not with an earlier one that is better.
    kept = multiplier if proven >= best else None
    certificate = concluded(
        primal, max(proven, best), beta, norm, error, kept, scope="sampled", infeasibility=0.0,
        gradient_norm=stage.gradient_norm(dual.G, beta),
    )  # fmt: skip
    return certificate, z


def beta_max(stage: Stage, batches: Batches, Y: Float[torch.Tensor, "n c"], loss: BaseLoss) -> float:
    """Return max_k ||A_k^* grad F(0)||_2, the least beta at which Z = 0 is optimal."""
    return adjoint(stage, batches, lambda rows, *_: loss.gradient(torch.zeros_like(Y[rows]), Y[rows])).norm().value
