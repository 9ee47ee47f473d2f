"""The check of docs/proofs.md once more, in another style: dense arrays of rational numbers, and intervals of mpmath.

It is written from the page, for proofs about the masks of a problem and about all masks, and takes the problem from the
package instead of from its file. Nothing is packed, scaled to integers or eliminated without fractions. Cones of the
plane are sorted by cross products, and a polygon of tangents is bounded by all of its vertices.
"""

from fractions import Fraction
from functools import cmp_to_key
from itertools import combinations, pairwise

import mpmath
import numpy as np

Q = np.vectorize(Fraction, otypes=[object])


def array(values) -> np.ndarray:
    """Return an array of rational numbers."""
    return Q(np.asarray(values, dtype=object))


def rows_and_map(problem):
    """Return Phi and the matrix C of the second layer as T[o, r, a]: C(M)[o, j] = sum T[o, r, a] M[r, a c + j]."""
    X, name = array(problem.X), problem.architecture.name
    n = len(X)
    if name == "mlp":
        return X, np.array([[[Fraction(o == r)] for r in range(n)] for o in range(n)], dtype=object)
    if name == "attention":
        s, d = X.shape[1:]
        pairs = [(i, a, t) for i in range(n) for a in range(s) for t in range(s)]
        Phi = np.array([np.outer(X[i, a], X[i, t]).ravel() for i, a, t in pairs], dtype=object)
        mean = problem.architecture.output == "mean"
        T = np.zeros((n if mean else n * s, len(pairs), d), dtype=object)
        for r, (i, a, t) in enumerate(pairs):
            T[i if mean else i * s + a, r] = X[i, t] / (s if mean else 1)
        return Phi, T
    return _convolution(problem, X)


def _convolution(problem, X):
    made = problem.architecture
    edge, k, step = made.padding, made.patch, made.stride
    X = np.pad(X, ((0, 0), (0, 0), (edge, edge), (edge, edge)), constant_values=Fraction(0))
    corners = [
        (y, x) for y in range(0, X.shape[2] - k + 1, step) for x in range(0, X.shape[3] - k + 1, step)
    ]  # fmt: skip
    down = len({y for y, _ in corners})
    Phi = [
        [*image[:, y : y + k, x : x + k].ravel(), *([Fraction(1)] * made.bias)] for image in X for y, x in corners
    ]  # fmt: skip
    K = len(corners)
    if isinstance(made.pool, np.ndarray):
        pool = array(made.pool)
    elif isinstance(made.pool, int):
        pool = np.array([np.outer(a, b).ravel() for a in _windows(made.pool, down)
                         for b in _windows(made.pool, K // down)], dtype=object)  # fmt: skip
    else:
        pool = np.full((1, K), Fraction(1, K), dtype=object) if made.pool == "global" else array(np.eye(K, dtype=int))
    T = np.zeros((len(X), len(X) * K, len(pool)), dtype=object)
    for i in range(len(X)):
        T[i, i * K : (i + 1) * K] = pool.T
    return np.array(Phi, dtype=object), T


def _windows(g, length):
    rows = []
    for i in range(g):
        first, last = (i * length) // g, ((i + 1) * length + g - 1) // g
        rows.append([Fraction(1, last - first) if first <= t < last else Fraction(0) for t in range(length)])
    return rows


def positive_semidefinite(A) -> bool:
    """Decide by symmetric elimination with the largest pivot."""
    A = A.copy()
    left = list(range(len(A)))
    while left:
        k = max(left, key=lambda i: A[i, i])
        if A[k, k] <= 0:
            return all(A[i, j] == 0 for i in left for j in left)
        left.remove(k)
        for i in left:
            for j in left:
                A[i, j] = A[i, j] - A[i, k] * A[k, j] / A[k, k]
    return True


# -- losses, as intervals ----------------------------------------------------------------------------------


def interval(x: Fraction):
    mpmath.iv.prec = 250
    return mpmath.iv.mpf(x.numerator) / mpmath.iv.mpf(x.denominator)


def upper(x) -> Fraction:
    """Return the upper end of an interval as a rational number; numbers are as they are."""
    if not isinstance(x, mpmath.ctx_iv.ivmpf):
        return Fraction(x)
    sign, mantissa, exponent, _ = x._mpi_[1]
    return Fraction((-1) ** sign * int(mantissa)) * Fraction(2) ** exponent


def parts(problem):
    """Return the plain loss, the weights of the rows, and (has a bias, its weight decay)."""
    loss, bias, weights = problem.loss, (False, Fraction(0)), np.ones(len(problem.Y))
    if hasattr(loss, "best_bias"):
        bias, loss = (True, Fraction(loss.beta or 0)), loss.loss
    if hasattr(loss, "weights"):
        weights, loss = loss.weights, loss.loss
    return loss, array(weights), bias


def conjugate(problem, L):
    """Return an upper bound on F*(L), or None outside the domain."""
    loss, weights, (has_bias, decay) = parts(problem)
    total = Fraction(0)
    for row, targets, w in zip(L, array(problem.Y), weights, strict=True):
        if w == 0 and any(row):
            return None
        if w == 0:
            continue
        if loss.name == "cross_entropy":
            P = row + w * targets
            if sum(row) != 0 or min(P) < 0:
                return None
            whole = w * sum(targets)
            total += sum(upper(interval(a) * mpmath.iv.log(interval(a / whole))) for a in P if a)
            continue
        for a, y in zip(row, targets, strict=True):
            s = -y * a
            if loss.name == "logistic":
                if not 0 <= s <= w:
                    return None
                total += sum(upper(interval(t) * mpmath.iv.log(interval(t / w))) for t in (s, w - s) if t)
            elif (loss.name == "huber" and abs(a) > w * Fraction(loss.delta)) or (
                loss.name == "squared_hinge" and s < 0
            ):
                return None
            else:
                total += a * a / (2 * w) - s
    if has_bias:
        sums = L.sum(axis=0)
        if decay == 0 and any(sums):
            return None
        total += sum(x * x for x in sums) / (2 * decay) if decay else 0
    return total


def loss_value(problem, z):
    """Return an upper bound on F(z)."""
    loss, weights, _ = parts(problem)
    total = Fraction(0)
    for row, targets, w in zip(z, array(problem.Y), weights, strict=True):
        if loss.name == "cross_entropy":
            logs = mpmath.iv.log(sum(mpmath.iv.exp(interval(a)) for a in row))
            total += w * (sum(targets) * upper(logs) - sum(row * targets))
            continue
        for a, y in zip(row, targets, strict=True):
            if loss.name == "logistic":
                total += w * upper(mpmath.iv.log(1 + mpmath.iv.exp(interval(-y * a))))
            elif loss.name == "squared_hinge":
                total += w * max(1 - y * a, Fraction(0)) ** 2 / 2
            else:
                r, delta = abs(a - y), Fraction(loss.delta) if loss.name == "huber" else None
                total += w * (r * r / 2 if delta is None or r <= delta else delta * r - delta**2 / 2)
    return total


# -- the check ---------------------------------------------------------------------------------------------


def holds(problem, content) -> bool:
    """Return whether a proof holds."""
    Phi, T = rows_and_map(problem)
    masks, beta, c = problem.masks, Fraction(problem.beta), problem.c
    # 1. The multiplier and its value.
    stated = content["multiplier"]
    L = array(stated["rows"]) * Fraction(stated["scale"], 2 ** stated["bits"])
    if parts(problem)[0].name == "cross_entropy":
        L = np.column_stack([L, -L.sum(axis=1)])
    value = conjugate(problem, L)
    if value is None or -value < Fraction(content["bound"]):
        return False
    # 2. The blocks. R[r, a c + j] = sum_o T[o, r, a] L[o, j].
    R = np.tensordot(T, L, axes=(0, 0)).reshape(len(Phi), -1)
    every = content["masks"] != "listed"
    if every and problem.activation.name != "relu":
        return False
    if content["masks"] == "plane" and not _plane(Phi, R, beta):
        return False
    if content["masks"] == "rule" and not _rule(Phi, R, beta, content["witnesses"], _unit(problem, stated)[1]):
        return False
    for k in range(0 if every else masks.shape[1]):
        signs = np.where(masks[:, k], 1, -1)[:, None]
        G = Phi.T @ (masks[:, k, None] * R)
        if not _block(G, signs * Phi, beta, content["witnesses"].get(str(k)), _unit(problem, stated)):
            return False
    # 3. The point.
    if content["point"] is None:
        return content["primal"] is None and content["gap"] is None
    primal, bound = Fraction(content["primal"]), Fraction(content["bound"])
    reached = _objective(problem, content["point"], Phi, T, None if every else masks, beta, c)
    return reached is not None and reached <= primal and primal - bound <= Fraction(content["gap"]) * abs(bound)


def _unit(problem, stated):
    """Return (units of Phi, units of R) in which the witnesses of cones are stated."""
    data = max(Fraction(x).denominator for x in problem.X.ravel().tolist())
    phi, name = data, problem.architecture.name
    w = 1
    if name == "attention":
        phi, w = data**2, data * (problem.X.shape[1] if problem.architecture.output == "mean" else 1)
    if name == "cnn":
        entries = rows_and_map(problem)[1].ravel()
        w = int(np.lcm.reduce([Fraction(x).denominator for x in entries]))
    return phi, phi * w * 2 ** stated["bits"]


def _block(G, K, beta, witness, units):
    p, q = G.shape
    small = G.T @ G if q <= p else G @ G.T
    identity = array(np.eye(len(small), dtype=int))
    if positive_semidefinite(beta**2 * identity - small):
        return True
    if witness is None:
        return False
    phi, both = units
    # A term l 2^bits multiplies integer rows, phi K, in an integer vector, both g.
    factor = Fraction(2 ** witness["bits"] * phi, both)
    if q == 1:
        for sign, name in ((1, "plus"), (-1, "minus")):
            if any(value < 0 for _, value in witness[name]):
                return False
            g = sign * G[:, 0] + sum((factor * value * K[i] for i, value in witness[name]), 0 * G[:, 0])
            if sum(g * g) > beta**2:
                return False
        return True
    if any(value < 0 for *_, value in witness["pairs"]):
        return False
    A = beta**2 * array(np.eye(p, dtype=int)) - G @ G.T
    low = (beta * both).denominator ** 2
    for i, j, value in witness["pairs"]:
        n = Fraction(value * 2 ** witness["bits"] * phi**2, low * both**2)
        A = A - n * (np.outer(K[i], K[j]) + np.outer(K[j], K[i]))
    return positive_semidefinite(A)


def _plane(Phi, R, beta):
    """Check every cone of the plane in which no row changes its sign, by the values of a quadratic form."""
    lines = [*(row for row in Phi if any(row)), *array([[1, 0], [0, 1]])]
    rays = [array([-side * row[1], side * row[0]]) for row in lines for side in (1, -1)]
    upper = [ray for ray in rays if ray[1] > 0 or (ray[1] == 0 and ray[0] > 0)]
    upper.sort(key=cmp_to_key(lambda a, b: a[1] * b[0] - a[0] * b[1]))
    around = [*upper, *(-ray for ray in upper), upper[0]]
    for a, b in pairwise(around):
        G = R.T @ ((Phi @ (a + b) > 0)[:, None] * Phi)
        M = beta**2 * array(np.eye(2, dtype=int)) - G.T @ G
        # (s a + t b)^T M (s a + t b) is non-negative for all s, t >= 0
        first, mixed, last = a @ M @ a, a @ M @ b, b @ M @ b
        if first < 0 or last < 0 or (mixed < 0 and mixed**2 > first * last):
            return False
    return True


def _rule(Phi, R, beta, planes, unit):
    """Check that orthogonal lines and planes hold all rows of R, and that their polygons lie in discs that fit beta."""
    basis = [array(b) for plane in planes for b in plane["basis"]]
    if any(a @ b != 0 for a, b in combinations(basis, 2)):
        return False
    if any(row @ row != sum((row @ b) ** 2 / (b @ b) for b in basis) for row in R):
        return False
    total = Fraction(0)
    for plane in planes:
        basis = [array(b) for b in plane["basis"]]
        normals = [array(t["along"]) for t in plane["tangents"]]
        reaches = [Fraction(t["reach"], unit) for t in plane["tangents"]]
        for t, c, reach in zip(plane["tangents"], normals, reaches, strict=True):
            if not _tangent(Phi, R @ sum(x * b for x, b in zip(c, basis, strict=True)), reach, t):
                return False
        square = _largest_square(normals, reaches, [b @ b for b in basis])
        if square is None:
            return False
        total += square
    return total <= beta**2


def _tangent(Phi, h, reach, t):
    """Check sum_r h_r (phi_r u)_+ <= reach |u| by an affine rule e(d) and weights of a zonotope."""
    if reach < 0 or min(t["inverse"]) <= 0:
        return False
    constant, slopes = (array(t[name]) / 2 ** t["bits"] for name in ("constant", "slopes"))
    slopes = slopes.reshape(-1, len(constant))
    least, most = (constant + sum(np.array([f(s, Fraction(0)) for s in row]) for row in slopes) for f in (min, max))
    if any(x < 0 for x in least) or any(x > 1 for x in most):
        return False
    positive = [abs(x) * row for x, row in zip(h, Phi, strict=True) if x > 0]
    negative = [abs(x) * row for x, row in zip(h, Phi, strict=True) if x < 0]
    groups = array(np.zeros((len(constant), Phi.shape[1]), dtype=int))
    for k, row in zip(t["negative"], negative, strict=True):
        groups[k] = groups[k] + row
    # sum_i d_i w_i - sum_k constant_k groups_k with d_i = (1 + s_i) / 2
    w = [row - slope @ groups for row, slope in zip(positive, slopes, strict=True)]
    centre = sum(w, 0 * groups[0]) / 2 - constant @ groups
    parts = [*(row / 2 for row in w), centre]
    weights = [Fraction(x) for x in t["inverse"]]
    A = sum(x * np.outer(row, row) for x, row in zip(weights, parts, strict=True)) * sum(1 / x for x in weights)
    return positive_semidefinite(reach**2 * array(np.eye(len(A), dtype=int)) - A)


def _largest_square(normals, reaches, lengths):
    """Return the largest |z|^2 over c^T y <= reach, |z|^2 = sum y_k^2 / lengths_k, or None if that is not bounded."""
    if len(lengths) == 1:
        ends = [[r / c[0] for c, r in zip(normals, reaches, strict=True) if c[0] * side > 0] for side in (1, -1)]
        return max(min(ends[0]) ** 2, max(ends[1]) ** 2) / lengths[0] if all(ends) else None
    around = list(zip(normals, [*normals[1:], normals[0]], strict=True))
    if len(normals) < 3 or any(a[0] * b[1] - a[1] * b[0] <= 0 for a, b in around):
        return None
    squares = []
    for (a, s), (b, t) in combinations(zip(normals, reaches, strict=True), 2):
        det = a[0] * b[1] - a[1] * b[0]
        if det == 0:
            continue
        y = array([(s * b[1] - t * a[1]) / det, (a[0] * t - b[0] * s) / det])
        if all(c @ y <= r for c, r in zip(normals, reaches, strict=True)):
            squares.append(sum(x**2 / length for x, length in zip(y, lengths, strict=True)))
    return max(squares)


def _objective(problem, point, Phi, T, masks, beta, c):
    unit = Fraction(1, 2 ** point["bits"])
    U, V, bias = (array(point[name]) * unit for name in ("first", "second", "bias"))
    z = np.tile(bias, (len(problem.Y), 1))
    for u, v, k in zip(U, V, point["blocks"], strict=True):
        h = Phi @ u
        mask = h > 0 if masks is None else masks[:, k]
        if problem.has_cone and any(x < 0 if on else x > 0 for x, on in zip(h, mask, strict=True)):
            return None
        z = z + _outputs(T, mask * h, v, c)
    decay = beta * (sum(U.ravel() ** 2) + sum(V.ravel() ** 2)) + parts(problem)[2][1] * sum(bias**2)
    return loss_value(problem, z) + decay / 2


def _outputs(T, h, v, c):
    """Return C(h v^T)."""
    per_output = np.einsum("ora,r->oa", T, h)
    return per_output @ v.reshape(-1, c)
