"""Upper bounds in float64 on a loss and its conjugate, from their formulas.

Rounding is bounded by `intervals`. The losses are those of verify_proof.py, with sample weights w and an output bias.
All functions return upper bounds on exact values, as long as no number is near the ends of float64's range.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from convexnn_bench.errors import UnsupportedError
from convexnn_bench.losses import BaseLoss, OutputBias, WeightedLoss
from convexnn_bench.proofs.intervals import (
    UNDERFLOW,
    U,
    above,
    exp_above,
    gamma,
    log1p_above,
    log1p_bounds,
    log_bounds,
    sum_above,
)

LOSSES = ("squared", "huber", "squared_hinge", "logistic", "cross_entropy")
CONICAL = ("squared", "squared_hinge")  # the domain of F* contains every multiple of its points
Rows = Float[np.ndarray, "n_out c"]


@dataclass
class LossParts:
    """A loss as its name, its targets, the weights of its rows and its output bias.

    bias: the factor of the penalty of an output bias, 0.0 for a free one, None without an output bias.
    delta: of Huber's loss.
    """

    name: str
    Y: Rows
    w: Float[np.ndarray, "n_out 1"]
    bias: float | None
    delta: float

    @classmethod
    def of(cls, loss: BaseLoss, Y: Rows) -> "LossParts":
        """Take a loss apart.

        Raise UnsupportedError for a loss whose formula is not known here.
        """
        bias = None
        if isinstance(loss, OutputBias):
            bias, loss = loss.penalty, loss.loss
        w = np.ones((len(Y), 1))
        if isinstance(loss, WeightedLoss):
            w, loss = loss.weights[:, None].astype(np.float64), loss.loss
        # A class of the user's with a registered name may be another function.
        if loss.name not in LOSSES or not type(loss).__module__.startswith("convexnn_bench.losses."):
            raise UnsupportedError(f"verified bounds know the losses {', '.join(LOSSES)}, and not {loss.name!r}")
        return cls(loss.name, Y, w, bias, float(getattr(loss, "delta", np.inf)))

    # -- the conjugate --------------------------------------------------------------------------------------

    def conjugate_above(self, L: Rows, s: float) -> float:
        """Return an upper bound on F*(s L), for L and s L in dom F*."""
        t = s * L  # off by u |t|
        if self.name == "cross_entropy":
            terms = _entropy_above(t, self.Y, self.w)
        elif self.name == "logistic":  # cross-entropy of (y z, -y z) / 2
            a = self.Y * t
            pairs = np.stack([a, -a], axis=2).reshape(-1, 2)
            one = np.tile([1.0, 0.0], (len(pairs), 1))
            terms = _entropy_above(pairs, one, np.repeat(self.w, t.shape[1], axis=0))
        else:  # w f*(t / w) = t^2 / (2 w) + t y, also for weights of zero, at which t = 0
            half = t * t / (2 * np.where(self.w > 0, self.w, 1.0))
            terms = half * (1 + 8 * U) + t * self.Y + 8 * U * np.abs(t * self.Y) + UNDERFLOW
        total = [sum_above(terms)]
        if self.bias:
            columns = np.abs(t.sum(axis=0)) + gamma(len(t) + 2) * np.abs(t).sum(axis=0)
            total.append(float(np.sum(columns**2)) / (2 * self.bias) * (1 + gamma(len(columns) + 8)))
        return sum_above(np.array(total))

    # -- the loss -------------------------------------------------------------------------------------------

    def value_above(self, z: Rows, error: Rows, b: Float[np.ndarray, " c"]) -> float:
        """Return an upper bound on F(z' + b) + bias/2 ||b||^2 for |z' - z| <= `error`."""
        if np.any(b):
            z = z + b
            error = error + U * np.abs(z) * (1 + 4 * U)
        error = above(error + UNDERFLOW) * (1 + 4 * U)
        penalty = (self.bias or 0.0) / 2 * float(np.sum(b * b)) * (1 + gamma(len(b) + 8))
        terms = self._terms_above(z, error)
        # A term that overflows does not count if its weight is zero.
        terms = np.where(self.w > 0, above(self.w * np.where(self.w > 0, terms, 0.0)), 0.0)
        return sum_above(np.array([sum_above(terms), penalty]))

    def _terms_above(self, z: Rows, error: Rows) -> Float[np.ndarray, "n_out k"]:
        if self.name == "cross_entropy":
            return _cross_entropy_above(z, error, self.Y)
        if self.name == "logistic":
            x = above(-(self.Y * z) + error)
            return above(np.maximum(x, 0.0) + log1p_above(exp_above(-np.abs(x))))
        if self.name == "squared_hinge":
            r = np.maximum(above(above(1.0 - self.Y * z) + error), 0.0)
        else:
            r = above(above(np.abs(z - self.Y)) + error)
        h = np.minimum(r, self.delta)
        return above(above(h * above(r - 0.5 * h)))


def _entropy_above(t: Rows, Y: Rows, w: Float[np.ndarray, "n_out 1"]) -> Float[np.ndarray, "n_out 1"]:
    """Return upper bounds on sum_j a_j log(a_j / T), one for each row.

    a = t' + w Y, and T = w sum(Y).

    t' are exact numbers within 2 u |t| of t, whose rows sum to zero, with a >= 0. With r = a / T the terms are
    T r log r. r = d + pi with d = t' / T and pi = Y / sum(Y); where pi is one, log r = log(1 + d).
    """
    c = t.shape[1]
    total = Y.sum(axis=1, keepdims=True)
    T = w * total
    alive = T > 0
    safe = np.where(alive, T, 1.0)
    d, pi = t / safe, Y / np.where(total > 0, total, 1.0)
    certain = (pi == 0.0) | ((pi == 1.0) & (np.count_nonzero(Y, axis=1, keepdims=True) == 1))
    spread = gamma(c + 8) * np.abs(d) + np.where(certain, 0.0, gamma(c + 4) * pi) + UNDERFLOW
    ends = []
    for side in (-spread, spread):
        e = d + side + np.sign(side) * 4 * U * np.abs(d)
        near = certain & (pi == 1.0) & (e >= -0.5) & (e <= 1.0)
        r = np.maximum(e + pi, 0.0)
        r = np.maximum(r + np.sign(side) * (2 * U * r + UNDERFLOW), 0.0)
        high = np.where(near, log1p_bounds(np.where(near, e, 0.0))[1], log_bounds(np.where(r > 0, r, 1.0))[1])
        # x log x is convex: its largest value over an interval is at one of the ends.
        ends.append(np.maximum(r * (1 + 8 * U) * high, r * (1 - 8 * U) * high))
    worst = np.maximum(*ends)
    grow = gamma(c + 12)
    terms = np.where(alive, safe * worst + grow * np.abs(safe * worst) + UNDERFLOW, 0.0)
    return terms.sum(axis=1, keepdims=True) + gamma(c + 2) * np.abs(terms).sum(axis=1, keepdims=True)


def _cross_entropy_above(z: Rows, error: Rows, Y: Rows) -> Float[np.ndarray, "n_out 1"]:
    """Return upper bounds on sum_l y_l log sum_j exp(z_j - z_l).

    This is sum(y) logsumexp(z) - <y, z>.
    """
    n, c = z.shape
    value = np.zeros(n)
    for label in range(c):
        rows = np.flatnonzero(Y[:, label])
        if not rows.size:
            continue
        # 1. Differences from the entry of the label, which is zero itself.
        x = above(above(z[rows] - z[rows, label, None]) + above(error[rows] + error[rows, label, None]))
        x = np.delete(x, label, axis=1)
        # 2. Divide all exponentials by the largest.
        top = np.maximum(x.max(axis=1, initial=0.0), 0.0)
        others = exp_above(above(x - top[:, None])).sum(axis=1) * (1 + gamma(c + 2))
        logs = np.where(top > 0, log_bounds(above(others + exp_above(-top)))[1], log1p_above(others))
        value[rows] += Y[rows, label] * above(top + logs) * (1 + 4 * U)
    return (value * (1 + gamma(c + 4)) + UNDERFLOW)[:, None]
