"""The certificate that follows from an objective and a lower bound."""

import math
from dataclasses import replace
from typing import Any

import torch

from convexnn_bench.certificates.certificate import Certificate, relative_gap
from convexnn_bench.norms import MaxDualNorm

# fraction of the bound by which a point that violates its cones within the tolerance above may fall below the bound
ROUNDING_TOLERANCE = 1e-10


def concluded(
    primal: float,
    dual: float,
    beta: float,
    norm: MaxDualNorm,
    stationarity_error: float,
    multiplier: torch.Tensor | None,
    *,
    refused: str | None = None,
    **fields: Any,
) -> Certificate:
    """Return the certificate of an objective and a lower bound.

    norm: that of grad F. fields: its other fields.
    """
    refused = refused or _contradiction(primal, dual)
    return Certificate(
        primal=primal,
        dual=dual,
        gap=math.nan if refused else relative_gap(primal, dual),
        # Theorem 3.4 bounds (p_hat - p*) / p* by this at a stationary point. The error of stationarity is reported
        # beside it, since the same proof adds it at every other point.
        stationarity_bound=max(norm.value / beta - 1.0, 0.0),
        stationarity_error=stationarity_error,
        max_dual_norm=norm.value,
        worst_block=norm.block,
        dual_norm_lower=norm.lower,
        dual_norm_method=norm.method,
        refused=refused,
        multiplier=None if multiplier is None else multiplier.cpu().numpy(),
        **fields,
    )


def strengthened(certificate: Certificate, other: Certificate) -> Certificate:
    """Return the certificate with the lower bound of another point, if it is larger.

    Both points are of the same program.

    A bound once proven holds for every point. The other one may be the larger, too, because this one met a deadline.
    """
    if other.scope != certificate.scope or not other.dual > certificate.dual:
        return certificate
    refused = certificate.refused or _contradiction(certificate.primal, other.dual)
    gap = math.nan if refused else relative_gap(certificate.primal, other.dual)
    verified = certificate.verified and other.verified
    changes: dict[str, Any] = {"dual": other.dual, "multiplier": other.multiplier, "gap": gap, "refused": refused}
    return replace(certificate, verified=verified, **changes)


def _contradiction(primal: float, dual: float) -> str | None:
    """Return why no gap is stated, if the numbers contradict weak duality, else None."""
    # Weak duality says dual <= p* <= primal. If the numbers contradict it by more than the tolerance of the cones
    # explains, one of them is wrong.
    if primal < dual - ROUNDING_TOLERANCE * abs(dual):
        return f"the objective {primal:.12g} came out below the proven bound {dual:.12g}: rounding is too large here"
    return None
