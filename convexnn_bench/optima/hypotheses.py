"""The hypotheses under which the optima of a problem are a polytope."""

import numpy as np
import torch
from jaxtyping import Bool, Float

from convexnn_bench.certificates import Certificate
from convexnn_bench.errors import UnsupportedError
from convexnn_bench.losses import WeightedLoss, weighted_part
from convexnn_bench.problem import Problem
from convexnn_bench.running import Result


def certified_blocks(result: Result) -> tuple[Certificate, Float[np.ndarray, "P p 1"]]:
    """Return certificate and blocks.

    Raise UnsupportedError if the optima are no polytope, or without a gap.
    """
    problem, certificate = result.problem, result.certificate
    if problem.has_cone:
        raise UnsupportedError(
            "optimal_set is for linear and gated ReLU networks: with ReLU a block is a difference of two vectors of a "
            "cone, and its directions at an optimum are no single ray"
        )
    if problem.q > 1:
        raise UnsupportedError(
            f"optimal_set is for one output: blocks are {problem.p} x {problem.q} matrices here, and where the largest "
            "singular value of G_k is multiple, a block can turn without leaving the optimal set"
        )
    if result.blocks is None or certificate is None or certificate.refused is not None:
        reason = result.reason if certificate is None else certificate.refused
        raise UnsupportedError(f"the result has no certified gap, so that nothing is known of the optima: {reason}")
    return certificate, result.blocks


def check_curvature(problem: Problem, f: Float[torch.Tensor, "n_out 1"], error: float) -> None:
    """Raise UnsupportedError unless F is strictly convex near f.

    Strict convexity implies that all optima have the same predictions.
    error: a bound on the distance of the gradient from that of the optimum.
    """
    # The minimum over a bias keeps strict convexity, for a free bias up to a shift of f. Rows of weight zero are not
    # in F.
    loss, Y = weighted_part(problem.loss), torch.as_tensor(problem.Y)
    if not loss.separable:
        raise UnsupportedError(f"optimal_set is for losses that are sums over samples, which {loss.name} is not")
    f, ones = f + torch.as_tensor(problem.output_bias_at(f)), torch.ones_like(f)[:, :, None]
    curvature = loss.curvature(f, Y)(ones)[:, :, 0]
    flat = curvature <= 0
    # Between kinks of the gradient the curvature is constant, so that the error of f is at most error / curvature. The
    # curvature must not change within this distance.
    for sign in (-1, 1) if loss.has_kinks else ():
        moved = f + sign * error / torch.where(flat, 1.0, curvature)
        flat |= loss.curvature(moved, Y)(ones)[:, :, 0] <= 0
    flat = flat[counted_rows(problem)]
    if bool(flat.any()):
        raise UnsupportedError(
            f"the {loss.name} loss has no curvature at {int(flat.sum())} of {len(flat)} predictions, or may have none "
            "within their error, so that optima may differ in predictions on the data; optimal_set needs a loss that "
            "is strictly convex there, such as squared or logistic"
        )


def counted_rows(problem: Problem) -> Bool[np.ndarray, " n_out"]:
    """Return which rows of predictions have a positive weight in the loss."""
    loss = weighted_part(problem.loss)
    return loss.weights > 0 if isinstance(loss, WeightedLoss) else np.ones(problem.n_out, dtype=bool)
