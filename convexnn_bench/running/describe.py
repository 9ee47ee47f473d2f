"""Describe a problem, a certificate or a result by the fields of a record."""

import math
from typing import Any

import torch

from convexnn_bench.certificates import Certificate
from convexnn_bench.formulations import ranks
from convexnn_bench.problem import Problem
from convexnn_bench.running.result import Result


def describe_problem(problem: Problem) -> dict[str, Any]:
    """Return sizes and choices of a problem, the members of the field `problem`."""
    return {
        "n": problem.X.shape[0],
        "d": int(math.prod(problem.X.shape[1:])),
        "c": problem.c,
        "N": problem.N,
        "p": problem.p,
        "q": problem.q,
        "P": problem.P,
        "architecture": problem.architecture.name,
        "activation": problem.activation.name,
        "loss": problem.loss.name,
        "beta": problem.beta,
        "beta_max": problem.beta_max,
        "scope": problem.scope,
        "notes": " ".join(problem.notes),
    }


def describe_certificate(certificate: Certificate) -> dict[str, Any]:
    """Return what was proven of a point, as fields of a record."""
    return {
        "objective": certificate.primal,
        "lower_bound": certificate.dual,
        "gap": certificate.gap,
        "verified": "yes" if certificate.verified else "no",
        "scope": certificate.scope,
        "infeasibility": certificate.infeasibility,
        "stationarity_bound": certificate.stationarity_bound,
        "stationarity_error": certificate.stationarity_error,
        "max_dual_norm": certificate.max_dual_norm,
        "dual_norm_lower": certificate.dual_norm_lower,
        "dual_norm_method": certificate.dual_norm_method,
    }


def describe_ranks(result: Result) -> dict[str, int]:
    """Return the number of nonzero blocks, their largest rank and the sum of ranks.

    The result is empty where the point is not finite, or is a ReLU network with patterns outside the convex program.
    """
    # Ranks of a point without a certificate would be those of numbers that are not finite.
    blocks = result.blocks if result.certificate is not None else None
    if blocks is None:
        return {}
    block_ranks = ranks(torch.as_tensor(blocks))
    return {
        "active_blocks": int((block_ranks > 0).sum()),
        "largest_rank": int(block_ranks.max()),
        "total_rank": int(block_ranks.sum()),
    }


def describe_scores(result: Result) -> dict[str, Any]:
    """Return the scores on the held-out samples, as fields of a record.

    If the point cannot be scored, the field `reason` says why. The dict is empty if no samples are held out.
    """
    held_out, score = result.problem.held_out, result.held_out_score
    if held_out is None:
        return {}
    if score is None:
        return {"test_samples": held_out.X.shape[0]}
    fields = {"test_loss": score.loss, "test_accuracy": score.accuracy, "test_r2": score.r2}
    missing = {} if score.missing is None else {"reason": f"{result.reason}; no test scores: {score.missing}"}
    return {"test_samples": score.samples, **fields, **missing}


def describe_result(result: Result) -> dict[str, Any]:
    """Return the fields of a record for a result, without those of `describe_scores`."""
    proven = {} if result.certificate is None else describe_certificate(result.certificate)
    return {
        **proven,
        **describe_ranks(result),
        "chosen_solver": result.solver,
        "status": result.status,
        "reason": result.reason,
        "setup_seconds": result.setup_seconds,
        "solve_seconds": result.solve_seconds,
        "curve": [list(point) for point in result.curve],
    }
