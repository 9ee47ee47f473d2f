"""Upper bounds in float64 that follow from IEEE 754 alone.

They are bounds on sums, logarithms, exponentials and spectral norms.

The operations + - * / and the square root are rounded to nearest, with a relative error of at most u = 2^-53. A sum of
n products is off by at most gamma_n = n u / (1 - n u) times the sum of their magnitudes, in any order of summation and
with or without fused operations (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; Rump, Acta
Numerica 2010, uses it for matrix products). `math.fsum` rounds an exact sum once. No function of a mathematical library
is trusted: eigenvectors are only used where a residual bounds their error.

Numbers that underflow are off by at most 2^-1022 besides, also where a processor flushes them to zero. `UNDERFLOW` is
far larger, and every bound adds it.
"""

import math

import numpy as np
from jaxtyping import Float

U = 2.0**-53
SERIES_ERROR = 16 * U  # relative error of `_two_atanh`, `_log` and `_exp`, proven where they are defined
UNDERFLOW = 1e-290
LARGEST_EXPONENT = 700.0
SQRT_HALF = 0.7071067811865476
LN2, LOG2E = 0.6931471805599453, 1.4426950408889634
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # the first has 32 bits, together 85
ATANH_TERMS, EXP_TERMS = 18, 15

Array = Float[np.ndarray, "..."]


def gamma(terms: int) -> float:
    """Return a bound on the relative rounding error of a chain of `terms` operations."""
    if terms * U > 1e-3:
        raise OverflowError(f"a sum of {terms} terms is too long for a bound on its rounding")
    return 1.01 * terms * U


def above(x: Array) -> Array:
    """Return the next larger float64 numbers.

    They bound the exact results of one operation that was rounded to nearest.
    """
    return np.nextafter(x, np.inf)


def sum_above(terms: Array) -> float:
    """Return an upper bound on the sum of all entries."""
    return math.nextafter(math.fsum(terms.ravel()) + UNDERFLOW, math.inf)


def log_bounds(x: Array) -> tuple[Array, Array]:
    """Return lower and upper bounds on log(x), for x > 0."""
    return _around(_log(x))


def log1p_bounds(x: Array) -> tuple[Array, Array]:
    """Return lower and upper bounds on log(1 + x), for -1/2 <= x <= 1."""
    return _around(_two_atanh(x / (2.0 + x)))


def exp_above(x: Array) -> Array:
    """Return upper bounds on exp(x); infinity above LARGEST_EXPONENT."""
    value = _exp(np.clip(x, -LARGEST_EXPONENT, LARGEST_EXPONENT))
    return np.where(x > LARGEST_EXPONENT, np.inf, above(value * (1 + SERIES_ERROR)))


def log1p_above(x: Array) -> Array:
    """Return upper bounds on log(1 + x), for x >= 0."""
    small = log1p_bounds(np.minimum(x, 1.0))[1]
    return np.where(x <= 1.0, small, log_bounds(above(1.0 + np.maximum(x, 1.0)))[1])


def _around(value: Array) -> tuple[Array, Array]:
    error = 2 * SERIES_ERROR * np.abs(value) + UNDERFLOW  # the factor 2 covers the rounding of this line
    return value - error, value + error


def _two_atanh(s: Array) -> Array:
    """Return 2 atanh(s), |s| <= 1/3, within a relative error of 8 u.

    2 atanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...).

    The relative error of s may be 2 u, that of s^2 is then 5 u. The series is positive, and Horner's rule damps the
    error of each step by s^2 <= 1/9, so that it ends below 2 u + 8 u / 9 < 3 u; the two products add 2 u, and s its own
    2 u. The terms left out are below (1/9)^18 / 37 < 2e-19 of the sum.
    """
    square = s * s
    total = np.full_like(s, 1.0 / (2 * ATANH_TERMS - 1))
    for k in range(ATANH_TERMS - 2, -1, -1):
        total = total * square + 1.0 / (2 * k + 1)
    return 2.0 * s * total


def _log(x: Array) -> Array:
    """Return log(x) within a relative error of 16 u.

    log(x) = e log 2 + log m, with x = 2^e m and 1/sqrt(2) <= m < sqrt(2).

    Splitting x is exact, and m - 1 is exact by Sterbenz's lemma, so that s = (m - 1) / (m + 1) has a relative error of
    2 u and |s| < 0.18. For e != 0, |log m| <= |e log 2| / 2 cancels at most half, and the sum has a relative error of
    at most (8 u / 2 + 2 u) 2 + u.
    """
    m, e = np.frexp(x)
    small = m < SQRT_HALF
    m, e = np.where(small, 2.0 * m, m), e - small
    return e * LN2 + _two_atanh((m - 1.0) / (m + 1.0))


def _exp(x: Array) -> Array:
    """Return exp(x) = 2^k exp(r), |x| <= 700, within a relative error of 16 u.

    k log 2 is subtracted in two parts, the first product of which is exact since |k| < 2^11, so that r is off by at
    most 2 u |r| + 1e-22 and |r| < 0.36. Horner's rule 1 + r (1 + r/2 (1 + r/3 ...)) damps the error of step j by r / j:
    it ends below 4 u, which is 6 u of exp(r) >= 0.69. The terms left out are below 0.36^16 / 16! < 1e-20.
    """
    k = np.rint(x * LOG2E)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    total = np.ones_like(r)
    for j in range(EXP_TERMS, 0, -1):
        total = 1.0 + r / j * total
    return np.ldexp(total, k.astype(np.int64))


def lengths_above(G: Float[np.ndarray, "P n"]) -> Float[np.ndarray, " P"]:
    """Return upper bounds on the Euclidean lengths of the rows of G."""
    squares = np.sum(G * G, axis=1)
    return above(np.sqrt(squares * (1 + gamma(G.shape[1] + 4)) + UNDERFLOW)) * (1 + 4 * U)


def largest_spectral_norm(G: Float[np.ndarray, "P p q"]) -> tuple[float, int]:
    """Return an upper bound on max_k ||G_k||_2, and the block that it comes from.

    The Frobenius norm bounds a block far below the largest. The others are bounded by the eigenvalues of a Gram matrix.
    """
    P, p, q = G.shape
    bounds = lengths_above(G.reshape(P, p * q))
    if min(p, q) > 1:
        # Which blocks are refined is a matter of cost: every block keeps a bound of its own.
        near = np.flatnonzero(bounds >= bounds.max() / min(p, q) ** 0.5)
        bounds[near] = np.minimum(bounds[near], _spectral_above(G[near], bounds[near]))
    block = int(np.argmax(bounds))
    return float(bounds[block]), block


def _spectral_above(G: Float[np.ndarray, "P p q"], lengths: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Return upper bounds on ||G_k||_2. lengths: upper bounds on the Frobenius norms.

    Let M = G^T G or G G^T, computed with an error of at most gamma ||G||_F^2 in the Frobenius norm, and V D V^T an
    approximate eigendecomposition. M = V D V^T + E gives lambda_max(M) <= max(D, 0) ||V^T V|| + ||E||_F for every V and
    D, and ||V^T V|| <= 1 + ||V^T V - I||_F.
    """
    _, p, q = G.shape
    T = G.transpose(0, 2, 1)
    M = T @ G if q <= p else G @ T
    r = min(p, q)
    squares = lengths**2 * (1 + 4 * U)
    if r == 2:  # half the trace + sqrt((half the difference)^2 + m^2): no cancellation between these terms
        half, off = 0.5 * (M[:, 0, 0] - M[:, 1, 1]), M[:, 0, 1]
        top = 0.5 * (M[:, 0, 0] + M[:, 1, 1]) + np.sqrt(half * half + off * off)
        top = top * (1 + 12 * U)
    else:
        D, V = np.linalg.eigh(M)
        D = np.maximum(D, 0.0)
        W = V.transpose(0, 2, 1)
        sizes = np.sum(V * V, axis=(1, 2)) * (1 + gamma(r * r + 4))  # ||V||_F^2 bounds || |V|^T |V| ||_F
        orthogonal = lengths_above((W @ V - np.eye(r)).reshape(-1, r * r)) + gamma(r + 2) * sizes
        rest = lengths_above((M - (V * D[:, None, :]) @ W).reshape(-1, r * r))
        rest = rest + gamma(r + 4) * (squares + D.max(axis=1) * sizes) * 1.01
        top = D.max(axis=1) * (1 + orthogonal) + rest
    top = (top + gamma(max(p, q) + 4) * squares + UNDERFLOW) * (1 + 8 * U)
    return above(np.sqrt(top)) * (1 + 4 * U)
