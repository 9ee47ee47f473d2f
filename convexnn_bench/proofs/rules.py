"""Witnesses over every activation pattern at once, proven by decision rules.

The set {R^T (Phi u)_+ : ||u|| <= 1} lies in the span of the rows of R, which is split into orthogonal lines and planes.
In each of them a polygon of tangents v^T z <= reach encloses it. An affine decision rule
(norms/all_patterns/decision_rule.py) bounds a reach. The rule is rounded to integers, and the checker decides which
reach they prove.
"""

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from convexnn_bench.deadline import working_on
from convexnn_bench.norms import Rule
from convexnn_bench.proofs.checker import checker

BITS = 28  # of the coefficients of a rule
SPREAD = 2.0**-24  # least weight d of a row in the norm of the zonotope, relative to the largest
WEIGHT_BITS = 40  # bits of the largest 1 / d
SIDES = 12  # tangents in a plane
STEPS = 200  # gradient steps for one rule
LARGER = (1e-12, 1e-9, 1e-6, 1e-4, 1e-2, 1.0)  # parts by which a reach may exceed its float64 value

Vector = list[int]


def rule_witnesses(of: Any, M: list[Vector]) -> tuple[list[dict[str, Any]], Fraction]:
    """Return the planes of the proof for the multiplier M, and what they prove.

    They prove a bound on max ||R^T (Phi u)_+||^2.

    Parameters
    ----------
    of : Problem of the checker
    M : integers, n_out x c
        The multiplier, in any unit.
    """
    R = [[a * b for a in weights for b in M[o]] for weights, o in zip(of.w, of.out, strict=True)]
    planes: list[dict[str, Any]] = []
    total = Fraction(0)
    for basis in _bases(of, M):
        tangents: list[dict[str, Any]] = []
        for along in _directions(basis):
            working_on(f"bounding direction {len(tangents) + 1} in plane {len(planes) + 1}")
            v = [sum(a * b[j] for a, b in zip(along, basis, strict=True)) for j in range(of.q)]
            tangents.append({"along": along, **_tangent(of, [_dot(row, v) for row in R], along)})
        planes.append({"basis": basis, "tangents": tangents})
        total += _square_radius(basis, tangents)
    return planes, total


def scaled(planes: list[dict[str, Any]], scale: int) -> list[dict[str, Any]]:
    """Return the planes for `scale` times the multiplier.

    Every reach is then `scale` times as large.
    """
    return [{**plane, "tangents": [{**t, "reach": t["reach"] * scale} for t in plane["tangents"]]} for plane in planes]


def _dot(a: Vector, b: Vector) -> int:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _bases(of: Any, M: list[Vector]) -> list[list[Vector]]:
    """Return orthogonal integer vectors that span the rows of R, in pairs.

    Vectors of similar size form a pair.
    """
    c = of.c
    if of.loss == "cross_entropy" and c <= 3:  # rows of M sum to zero
        outputs = [[1, -1]] if c == 2 else [[1, -1, 0], [1, 1, -2]][: c - 1]
    else:
        outputs = [[int(i == j) for j in range(c)] for i in range(c)]
        sizes = [math.hypot(*(float(row[j]) for row in M)) for j in range(c)]
        outputs.sort(key=lambda e: -sizes[e.index(1)])
    vectors = [
        [x if a == b else 0 for b in range(of.q // c) for x in output] for a in range(of.q // c) for output in outputs
    ]
    return [vectors[k : k + 2] for k in range(0, len(vectors), 2)]


def _directions(basis: list[Vector]) -> list[Vector]:
    """Return the coefficients of the tangents' normals, in the order of their angles."""
    if len(basis) == 1:
        return [[1], [-1]]
    lengths = [math.sqrt(_dot(b, b)) for b in basis]
    turns = [2 * math.pi * k / SIDES for k in range(SIDES)]
    return [[round(1024 * math.cos(t) / lengths[0]), round(1024 * math.sin(t) / lengths[1])] for t in turns]


def _tangent(of: Any, h: Vector, along: Vector) -> dict[str, Any]:
    """Return a rule for sum_r h_r (phi_r u)_+ and the reach that it proves."""
    rows = [[abs(s) * x for x in row] for row, s in zip(of.phi, h, strict=True)]
    largest = max((abs(x) for row in rows for x in row), default=0) or 1
    A, B = (
        torch.tensor(
            [[float(Fraction(x, largest)) for x in row] for row, s in zip(rows, h, strict=True) if s * sign > 0],
            dtype=torch.float64,
        ).reshape(-1, of.p)
        for sign in (1, -1)
    )
    mass = float(torch.linalg.vector_norm(A, dim=1).sum() + torch.linalg.vector_norm(B, dim=1).sum())
    # 1. The rule in float64, and in integers.
    if len(A) == 0 or mass == 0.0:
        groups = {"negative": [0] * len(B), "constant": [0], "slopes": [[0]] * len(A)}
        witness, value = {"bits": BITS, "inverse": [1] * (len(A) + 1), **groups}, 0.0
    else:
        rule = Rule(A / mass, B / mass)
        value = rule.minimise(0.0, STEPS) * mass
        witness = _integers(rule)
    # 2. The least reach that the integers prove, up to rounding.
    for part in (0.0, *LARGER) if value == 0.0 else LARGER:
        reach = math.ceil(Fraction(value * (1 + part)) * largest)
        try:
            checker().Norms.tangent(SimpleNamespace(of=of), h, along=along, reach=reach, **witness)
        except ValueError:
            continue
        return {"reach": reach, **witness}
    raise ArithmeticError("no reach was proven")


def _integers(rule: Rule) -> dict[str, Any]:
    """Return the best rule of a search, in integers in units of 2^-BITS.

    The rule is e_h = constant_h + sum_i slopes_ih d_i.
    """
    logits, logd = rule.parameters
    weights = torch.softmax(logits, 0)
    x, y, z = weights[: rule.g], weights[rule.g : 2 * rule.g], weights[-2]
    slopes = ((x - y)[rule.group] * rule.share).numpy()
    # Rounding towards zero keeps the sum of magnitudes below one, so that a constant with 0 <= e_h <= 1 exists.
    slopes = np.trunc(slopes * 2.0**BITS).astype(np.int64)
    low, high = np.minimum(slopes, 0).sum(axis=0), np.maximum(slopes, 0).sum(axis=0)
    constant = np.round((z + y.sum(0)).numpy() * 2.0**BITS).astype(np.int64)
    constant = np.clip(constant, -low, 2**BITS - high)
    d = logd.exp().numpy()
    d = np.maximum(d, d.max() * SPREAD)
    inverse = np.maximum(np.round(2.0**WEIGHT_BITS * d.min() / d), 1).astype(np.int64)
    if rule.h == 0:  # no rows with a negative sign
        slopes, constant = np.zeros((len(rule.A), 1), dtype=np.int64), np.zeros(1, dtype=np.int64)
    return {
        "bits": BITS,
        "inverse": [*inverse[1:].tolist(), int(inverse[0])],  # the centre is last
        "negative": rule.negative.tolist(),
        "constant": constant.tolist(),
        "slopes": slopes.tolist(),
    }


def _square_radius(basis: list[Vector], tangents: list[dict[str, Any]]) -> Fraction:
    """Return the largest ||z||^2 over the corners of a polygon of tangents."""
    sides = []
    for t in tangents:
        v = [sum(a * b[j] for a, b in zip(t["along"], basis, strict=True)) for j in range(len(basis[0]))]
        sides.append((v, t["reach"]))
    if len(basis) == 1:
        return max(Fraction(reach**2, _dot(v, v)) for v, reach in sides)
    corners = []
    for (v, s), (w, t) in zip(sides, sides[1:] + sides[:1], strict=True):
        vv, vw, ww = _dot(v, v), _dot(v, w), _dot(w, w)
        corners.append(Fraction(s * s * ww - 2 * s * t * vw + t * t * vv, vv * ww - vw * vw))
    return max(corners)
