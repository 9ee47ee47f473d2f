"""The training problem stated a second time, in exact arithmetic, for `soundness.py`.

Every float64 number is a whole number times a power of two, so that sums and products of the data and the weights are
computed without rounding in Python's integers. Only roots, exponentials and logarithms are rounded, to 60 digits.

Nothing here is taken from the package: the maps Phi and C of each architecture, the activations and the losses are
written out once more, from the equations of Sahiner et al., ICLR 2024 (eqs. 1, 7, 9) and of the losses.
"""

import math
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

DIGITS = 60
EPS = 2.0**-52
mp = mpmath.mp.clone()
mp.dps = DIGITS
Real = Any  # a number of mpmath, which has no annotations
Array = np.ndarray


# -- matrices of rational numbers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exact:
    """The array `whole` * 2^exponent / divisor, where `whole` holds Python integers."""

    whole: Array
    exponent: int = 0
    divisor: int = 1

    def __add__(self, other: "Exact") -> "Exact":
        left, right, exponent, divisor = aligned(self, other)
        return Exact(left + right, exponent, divisor)

    def __sub__(self, other: "Exact") -> "Exact":
        return self + Exact(-other.whole, other.exponent, other.divisor)

    def __mul__(self, other: "Exact") -> "Exact":
        return Exact(self.whole * other.whole, self.exponent + other.exponent, self.divisor * other.divisor)

    def __matmul__(self, other: "Exact") -> "Exact":
        return Exact(self.whole @ other.whole, self.exponent + other.exponent, self.divisor * other.divisor)

    def where(self, kept: Array) -> "Exact":
        """Return the array with zeros where `kept` is false."""
        return Exact(np.where(kept, self.whole, 0), self.exponent, self.divisor)

    def sum(self) -> Real:
        """Return the sum of all entries, rounded once."""
        return number(sum(self.whole.ravel().tolist()), self.exponent, self.divisor)

    def numbers(self) -> Array:
        """Return every entry as a number of mpmath."""
        flat = [number(int(value), self.exponent, self.divisor) for value in self.whole.ravel()]
        out = np.empty(len(flat), dtype=object)
        out[:] = flat
        return out.reshape(self.whole.shape)


def number(whole: int, exponent: int, divisor: int = 1) -> Real:
    """Return whole * 2^exponent / divisor, rounded to the precision of the context."""
    return mp.ldexp(mp.mpf(whole), exponent) / divisor


def exact(array: Any, highest: int | None = None) -> Exact:
    """Return a float64 array as it is. highest: the largest exponent that the result may have."""
    array = np.asarray(array, dtype=np.float64)
    fraction, exponents = np.frexp(array)
    whole = (fraction * 2.0**53).astype(np.int64)
    exponents = exponents.astype(np.int64) - 53
    lowest = int(exponents[whole != 0].min(initial=2000 if highest is None else highest))
    out = np.empty(array.size, dtype=object)
    out[:] = [int(w) << int(e - lowest) if w else 0 for w, e in zip(whole.ravel(), exponents.ravel(), strict=True)]
    return Exact(out.reshape(array.shape), lowest)


def aligned(a: Exact, b: Exact) -> tuple[Array, Array, int, int]:
    """Return the integers of both arrays for one exponent and one divisor."""
    exponent, divisor = min(a.exponent, b.exponent), math.lcm(a.divisor, b.divisor)
    left = a.whole * ((divisor // a.divisor) << (a.exponent - exponent))
    right = b.whole * ((divisor // b.divisor) << (b.exponent - exponent))
    return left, right, exponent, divisor


# -- the two maps of an architecture ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """The maps Phi and C, for arrays of numbers of any kind.

    kind: "mlp", "cnn" or "attention". The other fields are the parameters of the classes of the package; a pooling
    matrix is a tuple of rows.
    """

    kind: str
    patch: int = 1
    stride: int = 1
    padding: int = 0
    pool: Any = "global"
    bias: bool = False
    output: str = "tokens"

    def rows(self, X: Array, one: Any) -> Array:
        """Return Phi, N x p; `one` is the number 1 in the units of X."""
        if self.kind == "mlp":
            return X
        if self.kind == "attention":  # x_s (x) x_t
            n, s, d = X.shape
            return (X[:, :, None, :, None] * X[:, None, :, None, :]).reshape(n * s * s, d * d)
        n, channels, height, width = X.shape
        wide = np.zeros((n, channels, height + 2 * self.padding, width + 2 * self.padding), dtype=X.dtype)
        wide[:, :, self.padding : self.padding + height, self.padding : self.padding + width] = X
        corners = [range(0, side - self.patch + 1, self.stride) for side in wide.shape[2:]]
        patches = [
            wide[:, :, i : i + self.patch, j : j + self.patch].reshape(len(X), -1)
            for i in corners[0]
            for j in corners[1]
        ]
        rows = np.stack(patches, axis=1).reshape(len(X) * len(patches), -1)
        return np.concatenate([rows, np.full((len(rows), 1), one)], axis=1) if self.bias else rows

    def _grid(self, X: Array) -> tuple[int, int]:
        down, across = ((side + 2 * self.padding - self.patch) // self.stride + 1 for side in X.shape[2:])
        return down, across

    def pooling(self, X: Array) -> Exact:
        """Return the pooling matrix a x K of a CNN."""
        down, across = self._grid(X)
        K = down * across
        if self.pool == "identity":
            return exact(np.eye(K))
        if self.pool == "global":
            return Exact(np.full((1, K), 1, dtype=object), 0, K)
        if isinstance(self.pool, tuple):
            return exact(np.array(self.pool))

        # Window i of an axis covers floor(i L / g) .. ceil((i + 1) L / g), as in torch.nn.AdaptiveAvgPool2d.
        def windows(length: int) -> Exact:
            g = self.pool
            spans = [(i * length // g, -(-(i + 1) * length // g)) for i in range(g)]
            divisor = math.lcm(*(last - first for first, last in spans))
            whole = np.zeros((g, length), dtype=object)
            for i, (first, last) in enumerate(spans):
                whole[i, first:last] = divisor // (last - first)
            return Exact(whole, 0, divisor)

        a, b = windows(down), windows(across)
        return Exact(np.kron(a.whole, b.whole), 0, a.divisor * b.divisor)

    def width_out(self, X: Array, c: int) -> int:
        """Return q."""
        if self.kind == "attention":
            return int(X.shape[2]) * c
        return c if self.kind == "mlp" else len(self.pooling(X).whole) * c

    def outputs(self, M: Array, X: Array, c: int, pool: Array | None) -> Array:
        """Return C(M), n_out x c, apart from the mean over tokens, which is left to the caller as a sum."""
        n = len(X)
        if self.kind == "mlp":
            return M
        if self.kind == "attention":
            s, d = X.shape[1:]
            each = (M.reshape(n, s, s, d, c) * X[:, None, :, :, None]).sum(axis=(2, 3))
            return each.sum(axis=1) if self.output == "mean" else each.reshape(n * s, c)
        assert pool is not None
        a, K = pool.shape
        patches = M.reshape(n, K, a, c)
        return (patches * pool.T[None, :, :, None]).sum(axis=(1, 2))


# -- losses -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """A loss by its registered name, F(z) as a sum."""

    name: str
    delta: float = 1.0

    NAMES = ("squared", "huber", "squared_hinge", "logistic", "cross_entropy")

    def value(self, z: Exact, Y: Exact) -> Real:
        """Return F(z)."""
        if self.name == "squared":
            r = z - Y
            return (r * r).sum() / 2
        if self.name == "huber":
            return self._huber(z - Y)
        if self.name == "squared_hinge":
            rest = exact(np.ones(z.whole.shape)) - Y * z
            rest = rest.where(rest.whole > 0)
            return (rest * rest).sum() / 2
        # A rounded exponent of size 2^k would be off by 2^k units of the last place of the value.
        longest = max((abs(int(w)) for w in z.whole.ravel()), default=0).bit_length() + z.exponent
        with mp.workprec(mp.prec + max(0, longest) + 20):
            if self.name == "logistic":
                return mp.fsum(mp.log1p(mp.exp(-t)) for t in (Y * z).numbers().ravel())
            return mp.fsum(map(_cross_entropy, z.numbers(), Y.numbers()))

    def _huber(self, r: Exact) -> Real:
        # t (r - t / 2) with t = r clipped to [-delta, delta]
        left, delta, exponent, divisor = aligned(r, exact(np.full((1, 1), self.delta)))
        t = np.minimum(np.maximum(left, -delta), delta)
        return number(sum((t * (2 * left - t)).ravel().tolist()), 2 * exponent, 2 * divisor**2)

    def gradient(self, z: Array, Y: Array) -> Array:
        """Return grad F(z) in floating point of any length."""
        if self.name == "squared":
            return z - Y
        if self.name == "huber":
            return np.clip(z - Y, -self.delta, self.delta)
        if self.name == "squared_hinge":
            return -Y * np.maximum(1 - Y * z, 0)
        if self.name == "logistic":
            return -Y * _sigmoid(-Y * z)
        shifted = np.exp(np.maximum(z - z.max(axis=1, keepdims=True), -11000))
        return shifted / shifted.sum(axis=1, keepdims=True) - Y

    def curvature_along(self, z: Array, Y: Array, D: Array) -> Any:
        """Return <D, F''(z) D> in floating point of any length."""
        if self.name == "squared":
            return (D * D).sum()
        if self.name == "huber":
            return (D * D)[np.abs(z - Y) <= self.delta].sum()
        if self.name == "squared_hinge":
            return (D * D)[Y * z < 1].sum()
        if self.name == "logistic":
            a = _sigmoid(-Y * z)
            return (a * (1 - a) * D * D).sum()
        p = self.gradient(z, Y) + Y
        return ((p * D * D).sum(axis=1) - (p * D).sum(axis=1) ** 2).sum()

    @property
    def smoothness(self) -> float:
        """Return a Lipschitz constant of the gradient."""
        return {"logistic": 0.25, "cross_entropy": 0.5}.get(self.name, 1.0)


@dataclass(frozen=True)
class Weighted:
    """A loss whose rows have weights (n_out), sum_i w_i f(z_i, y_i)."""

    loss: Loss
    weights: Array

    @property
    def name(self) -> str:
        """Return the name of the package's loss."""
        return f"weighted {self.loss.name}"

    @property
    def _column(self) -> Array:
        return self.weights.astype(np.longdouble)[:, None]

    def value(self, z: Exact, Y: Exact) -> Real:
        """Return F(z), row by row."""
        rows = zip(exact(self.weights).numbers(), range(len(self.weights)), strict=True)
        return mp.fsum(w * self.loss.value(_of(z, slice(i, i + 1)), _of(Y, slice(i, i + 1))) for w, i in rows if w)

    def gradient(self, z: Array, Y: Array) -> Array:
        """Return grad F(z) in floating point of any length."""
        return self._column * self.loss.gradient(z, Y)

    def curvature_along(self, z: Array, Y: Array, D: Array) -> Any:
        """Return <D, F''(z) D> in floating point of any length."""
        return self.loss.curvature_along(z, Y, np.sqrt(self._column) * D)

    @property
    def smoothness(self) -> float:
        """Return a Lipschitz constant of the gradient."""
        return self.loss.smoothness * float(self.weights.max())


def _sigmoid(t: Array) -> Array:
    e = np.exp(-np.minimum(np.abs(t), 11000))
    return np.where(t >= 0, 1 / (1 + e), e / (1 + e))


def _cross_entropy(z: Array, y: Array) -> Real:
    # log(sum exp z) - <y, z> for rows y that sum to one, relative to the largest entry of z
    top = max(range(len(z)), key=lambda j: z[j])
    others = mp.fsum(mp.exp(z[j] - z[top]) for j in range(len(z)) if j != top)
    return mp.fsum(y[j] * (z[top] - z[j]) for j in range(len(z))) + mp.log1p(others)


# -- one training problem -----------------------------------------------------------------------------------------


class Statement:
    """A training problem: min F(C(phi(Phi W1) W2^T) + 1 b^T) + beta/2 (||W1||^2 + ||W2||^2), b = 0 by default.

    activation: "linear", "gated_relu" or "relu". output_bias: None, "penalised" (with beta/2 ||b||^2) or "free".
    """

    def __init__(
        self, X: Array, Y: Array, architecture: Architecture, activation: str, loss: Loss | Weighted, beta: float,
        output_bias: str | None = None,
    ):  # fmt: skip
        self.architecture, self.activation, self.loss = architecture, activation, loss
        self.beta, self.output_bias = beta, output_bias
        self.X, self.Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
        self.c = self.Y.shape[1]
        self._X, self._Y, self._beta = exact(self.X, highest=0), exact(self.Y), exact(np.array(beta))
        one = 1 << -self._X.exponent
        twice = 2 if architecture.kind == "attention" else 1
        self._rows = Exact(architecture.rows(self._X.whole, one), twice * self._X.exponent)
        self._pool = architecture.pooling(self.X) if architecture.kind == "cnn" else Exact(np.zeros((0, 0)), 0)
        self.N, self.p = self._rows.whole.shape
        self.q = architecture.width_out(self.X, self.c)
        # The same maps in the longest floating-point numbers of the machine, for searching and for error bounds.
        self.long_X, self.long_Y = self.X.astype(np.longdouble), self.Y.astype(np.longdouble)
        self.long_rows = architecture.rows(self.long_X, np.longdouble(1))
        self.long_pool = self._pool.whole.astype(np.longdouble) / self._pool.divisor
        self.long_pool = np.ldexp(self.long_pool, self._pool.exponent)
        self.tokens = int(self.X.shape[1]) if architecture.output == "mean" else 1  # of a mean

    # -- exact ------------------------------------------------------------------------------------------------

    def outputs(self, M: Exact) -> Exact:
        """Return C(M)."""
        value = self.architecture.outputs(M.whole, self._X.whole, self.c, self._pool.whole)
        if self.architecture.kind == "attention":
            return Exact(value, M.exponent + self._X.exponent, M.divisor * self.tokens)
        return Exact(value, M.exponent + self._pool.exponent, M.divisor * self._pool.divisor)

    def hidden(self, W1: Array, masks: Array | None = None) -> Exact:
        """Return phi(Phi W1), or D_j Phi w_j for neurons with masks (N x M)."""
        H = self._rows @ exact(W1)
        if masks is not None:
            return H.where(masks)
        return H.where(H.whole > 0) if self.activation == "relu" else H

    def signs(self, W1: Array) -> Array:
        """Return the signs -1, 0, 1 of Phi W1, N x M."""
        H = (self._rows @ exact(W1)).whole
        return (H > 0).astype(int) - (H < 0).astype(int)

    def loss_of(self, M: Exact, b: Array | None = None) -> Real:
        """Return F(C(M) + 1 b^T), with beta/2 ||b||^2 where the output bias is penalised."""
        z = self.outputs(M)
        if b is None:
            return self.loss.value(z, self._Y)
        shift = exact(np.broadcast_to(b, z.whole.shape))
        value = self.loss.value(z + shift, self._Y)
        return value + self.penalty(exact(b)) if self.output_bias == "penalised" else value

    def penalty(self, *arrays: Exact) -> Real:
        """Return beta/2 times the sum of all squares."""
        return self._beta.sum() * mp.fsum((array * array).sum() for array in arrays) / 2

    def network(self, W1: Array, W2: Array, masks: Array | None = None, b: Array | None = None) -> Real:
        """Return the objective of a network, each neuron with a mask where `masks` (N x M) are given."""
        if W1.shape[1] == 0:
            W1, W2, masks = np.zeros((self.p, 1)), np.zeros((self.q, 1)), None
        left, right = exact(W1), exact(W2)
        M = self.hidden(W1, masks) @ Exact(right.whole.T, right.exponent)
        return self.loss_of(M, b) + self.penalty(left, right)

    def blocks(self, Z: Array, masks: Array) -> Real:
        """Return F(A(Z)) + beta sum_k ||Z_k||_* for blocks P x p x q without cones."""
        return self.loss_of(self._sum(Z, masks)) + self._beta.sum() * mp.fsum(map(nuclear_norm, Z))

    def split(self, split: Array, masks: Array) -> Real:
        """Return the objective of Z_k = a_k - b_k at the cost ||a_k|| + ||b_k||, split being P x p x 2."""
        left, right = exact(split[:, :, :1]), exact(split[:, :, 1:])
        difference = left - right
        M = sum_of([(self._rows @ _of(difference, k)).where(masks[:, k, None]) for k in range(len(split))])
        lengths = mp.fsum(euclidean(exact(side)) for side in split.transpose(0, 2, 1).reshape(-1, split.shape[1]))
        return self.loss_of(M) + self._beta.sum() * lengths

    def _sum(self, Z: Array, masks: Array) -> Exact:
        return sum_of([(self._rows @ exact(Z[k])).where(masks[:, k, None]) for k in range(len(Z))])

    # -- floating point ---------------------------------------------------------------------------------------

    def long_outputs(self, M: Array) -> Array:
        """Return C(M) in long floating-point numbers."""
        return self.architecture.outputs(M, self.long_X, self.c, self.long_pool) / self.tokens

    def contributions(self, W1: Array, W2: Array, masks: Array | None = None) -> Array:
        """Return the outputs of every neuron, M x n_out x c, in long floating-point numbers."""
        H = self.long_rows @ W1.astype(np.longdouble)
        if masks is not None:
            H = np.where(masks, H, 0)
        elif self.activation == "relu":
            H = np.maximum(H, 0)
        V = W2.astype(np.longdouble)
        return np.stack([self.long_outputs(H[:, j : j + 1] * V[None, :, j]) for j in range(W1.shape[1])])

    def gradient_rows(self, L: Array) -> Array:
        """Return C^*(L), N x q, in long floating-point numbers, for L of the shape of the outputs."""
        n = len(self.X)
        if self.architecture.kind == "mlp":
            return L
        if self.architecture.kind == "attention":
            s, d = self.X.shape[1:]
            each = L.reshape(n, 1, self.c) if self.architecture.output == "mean" else L.reshape(n, s, self.c)
            each = np.broadcast_to(each / self.tokens, (n, s, self.c))
            return (each[:, :, None, None, :] * self.long_X[:, None, :, :, None]).reshape(n * s * s, d * self.c)
        a, K = self.long_pool.shape
        return (L[:, None, None, :] * self.long_pool.T[None, :, :, None]).reshape(n * K, a * self.c)

    def rounding(self, W1: Array, W2: Array, masks: Array | None, b: Array | None, objective: Real) -> Real:
        """Return by how much the objective of these neurons may be off when it is computed in float64.

        Each prediction is a sum of products, and is off by at most a multiple of eps times the sum of the magnitudes
        of its terms; the loss passes that on by its slope and its curvature, and is a sum of non-negative terms.
        """
        size = (np.abs(array).astype(np.longdouble) for array in (W1, W2))
        left, right = size
        absolute = self.architecture.outputs(
            self._absolute_hidden(left, masks) @ right.T, np.abs(self.long_X), self.c, np.abs(self.long_pool)
        )
        terms = 16 * (self.p + self.q + W1.shape[1] + self.N // len(self.X) + 8)
        z = self.contributions(W1, W2, masks).sum(axis=0) if W1.shape[1] else np.zeros_like(self.long_Y)
        if b is not None:
            z, absolute = z + b, absolute + np.abs(b)
        off = terms * EPS * absolute
        slope = np.abs(self.loss.gradient(z, self.long_Y))
        moved = (slope * (off + EPS * np.abs(z))).sum() + self.loss.smoothness * (off * off).sum()
        return mp.mpf(str(moved)) + terms * EPS * abs(objective)

    def _absolute_hidden(self, left: Array, masks: Array | None) -> Array:
        H = np.abs(self.long_rows) @ left
        return H if masks is None else np.where(masks, H, 0)


def _of(array: Exact, k: int | slice) -> Exact:
    return Exact(array.whole[k], array.exponent, array.divisor)


def sum_of(terms: list[Exact]) -> Exact:
    """Return the sum of arrays."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def euclidean(vector: Exact) -> Real:
    """Return the square root of the sum of squares."""
    return mp.sqrt((vector * vector).sum())


def nuclear_norm(Z: Array) -> Real:
    """Return the sum of the singular values of a float64 matrix."""
    Z = Z if Z.shape[0] >= Z.shape[1] else Z.T
    if not Z.any():
        return mp.mpf(0)
    left = exact(Z)
    if Z.shape[1] == 1:
        return euclidean(left)
    gram = Exact(left.whole.T @ left.whole, 2 * left.exponent)
    if Z.shape[1] == 2:  # (s1 + s2)^2 = s1^2 + s2^2 + 2 s1 s2
        (a, b), (_, d) = gram.whole.tolist()
        root = mp.sqrt(number(a * d - b * b, 2 * gram.exponent))
        return mp.sqrt(number(a + d, gram.exponent) + 2 * root)
    with mp.workdps(3 * DIGITS):
        values = mp.eigsy(mp.matrix(gram.numbers().tolist()), eigvals_only=True)
        return mp.fsum(mp.sqrt(max(value, mp.mpf(0))) for value in values)
