"""Evaluate both terms of an objective at a point, and the violation of the cones."""

from dataclasses import dataclass

import torch

from convexnn_bench.formulations import burer_monteiro
from convexnn_bench.instance import Instance
from convexnn_bench.operator import TINY, sum_rounding

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Evaluation:
    """Both terms of the objective at a point, in float64, with their errors.

    Attributes
    ----------
    predictions : n_out x c
    regulariser, regulariser_rounding : float
        The regulariser R, and a bound on its relative rounding error.
    sizes : p x q
        sum_k |Z_k|, or sum |u| |v|^T over columns or neurons. The rounding of the predictions is bounded by it.
    columns : int
        Number of nonzero blocks, columns or neurons.
    infeasibility : float
        Largest violation of a row of the ReLU cones, relative to that row's largest pre-activation.
    factors : pair or None
        (U, V) of a point that has factors.
    """

    predictions: torch.Tensor
    regulariser: float
    regulariser_rounding: float
    sizes: torch.Tensor
    columns: int
    infeasibility: float = 0.0
    factors: Pair | None = None


def evaluate_factors(problem: Instance, U: torch.Tensor, V: torch.Tensor, device: str) -> Evaluation:
    """Return the terms of the factored objective, with R = 1/2 (||U||^2 + ||V||^2)."""
    U, V = U.to(device), V.to(device)
    R, rounding = half_squares(U, V)
    columns = int(((U != 0).any(dim=1) & (V != 0).any(dim=1)).sum())
    sizes = U.abs().transpose(0, 1).flatten(1) @ V.abs().transpose(0, 1).flatten(1).T
    # balanced, so that a short u with a long v counts for what it contributes
    infeasibility = violation(problem, burer_monteiro.balance(U, V)[0])
    predictions = problem.operator(device).apply_factors(U, V)
    return Evaluation(predictions, R, rounding, sizes, columns, infeasibility, (U, V))


def half_squares(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    """Return 1/2 (||first||^2 + ||second||^2), and a bound on its relative error."""
    half, size = 0.5 * float(first.square().sum() + second.square().sum()), first.numel() + second.numel()
    # Squares below the normal numbers may lose all digits, but not more than TINY.
    if half < 1e-290 and (bool(first.any()) or bool(second.any())):
        half += size * TINY
    return half, sum_rounding(size)


def violation(problem: Instance, U: torch.Tensor) -> float:
    """Return the largest violation of a row of K_k U_k >= 0.

    It is relative to the largest pre-activation of that row.
    """
    return 0.0 if problem.cones is None else float(problem.cones.violation(U.numpy()))
