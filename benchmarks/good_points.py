"""Networks of a low objective, found without the package's bounds, for `soundness.py`.

A search may be as rough as it likes: what it finds is judged by `exact_objective.py`. It works in numpy's longest
floating-point numbers, whose range (1e-4932 on x86) holds the squares of all float64 numbers.
"""

import numpy as np
from exact_objective import Statement

Array = np.ndarray
Neurons = tuple[Array, Array, Array | None]  # W1 (p x M), W2 (q x M), masks (N x M) or None


def joined(parts: list[Neurons]) -> Neurons:
    """Return all neurons side by side."""
    masks = None if parts[0][2] is None else np.concatenate([np.asarray(part[2]) for part in parts], axis=1)
    return (
        np.concatenate([part[0] for part in parts], axis=1),
        np.concatenate([part[1] for part in parts], axis=1),
        masks,
    )


def candidates(statement: Statement, directions: Array, masks: Array | None, z: Array) -> Neurons:
    """Return neurons along the steepest descent of the loss at predictions z, with small norms.

    directions: p x J, tried as first layers where masks is None; else each mask (N x P) takes its own best direction.
    """
    L = statement.loss.gradient(z, statement.long_Y)
    R = statement.gradient_rows(L)
    if masks is None:
        H = statement.long_rows @ directions.astype(np.longdouble)
        H = np.maximum(H, 0) if statement.activation == "relu" else H
        return _scaled(statement, directions, -(R.T @ H), None)
    left, right = [], []
    for k in range(masks.shape[1]):
        G = -(statement.long_rows.T @ np.where(masks[:, k, None], R, 0))
        u, v = top_pair(G)
        left.append(u)
        right.append(v)
    return _scaled(statement, np.stack(left, axis=1), np.stack(right, axis=1), masks)


def top_pair(G: Array) -> tuple[Array, Array]:
    """Return about the top singular pair of G, by a power iteration."""
    size = np.abs(G).max()
    if not size > 0:
        return np.zeros(G.shape[0]), np.zeros(G.shape[1])
    G = G / size
    v = G[np.argmax((G * G).sum(axis=1))]
    for _ in range(1 if G.shape[1] == 1 else 40):
        u = G @ v
        u = u / np.sqrt((u * u).sum())
        v = G.T @ u
        v = v / np.sqrt((v * v).sum())
    return u, v


def _scaled(statement: Statement, left: Array, right: Array, masks: Array | None) -> Neurons:
    """Return unit vectors; neurons of zero are left out."""
    left, right = left.astype(np.longdouble), right.astype(np.longdouble)
    sizes = [np.abs(side).max(axis=0) for side in (left, right)]
    kept = (sizes[0] > 0) & (sizes[1] > 0)
    out = []
    for side, size in zip((left, right), sizes, strict=True):
        side = side[:, kept] / size[kept]
        out.append(side / np.sqrt((side * side).sum(axis=0)))
    return out[0], out[1], None if masks is None else masks[:, kept]


def descend(statement: Statement, neurons: Neurons, sizes: Array, sweeps: int) -> tuple[Array, Array]:
    """Return (sizes, predictions): non-negative multiples of unit neurons, by Newton steps in one size at a time."""
    W1, W2, masks = neurons
    parts = statement.contributions(W1, W2, masks)
    loss, Y, beta = statement.loss, statement.long_Y, np.longdouble(statement.beta)
    z = np.tensordot(sizes, parts, axes=1)
    for _ in range(sweeps):
        moved = False
        for j, D in enumerate(parts):
            slope = (loss.gradient(z, Y) * D).sum() + beta
            if sizes[j] == 0 and slope >= 0:
                continue
            curvature = loss.curvature_along(z, Y, D)
            # where the loss is flat here, its largest curvature still gives a safe step
            curvature = max(curvature, 1e-3 * loss.smoothness * (D * D).sum())
            if not curvature > 0:
                continue
            after = max(sizes[j] - slope / curvature, np.longdouble(0))
            if not np.isfinite(after):
                continue
            z, moved = z + (after - sizes[j]) * D, moved or abs(after - sizes[j]) > 1e-18 * after
            sizes[j] = after
        if not moved:
            break
    return sizes, z


def search(
    statement: Statement, directions: Array, masks: Array | None, rounds: int = 4, sweeps: int = 10, most: int = 12
) -> Neurons | None:
    """Return neurons (float64) by adding those of steepest descent and minimising over their sizes, or None."""
    z = np.zeros_like(statement.long_Y)
    found: Neurons | None = None
    sizes = np.zeros(0, dtype=np.longdouble)
    with np.errstate(all="ignore"):
        for _ in range(rounds):
            new = candidates(statement, directions, masks, z)
            parts = statement.contributions(*new) if new[0].shape[1] else np.zeros((0, *z.shape))
            gain = -(parts * statement.loss.gradient(z, statement.long_Y)).sum(axis=(1, 2)) - statement.beta
            order = np.argsort(-gain, kind="stable")[:most]
            order = order[gain[order] > 0]
            if order.size == 0:
                break
            new = new[0][:, order], new[1][:, order], None if masks is None else new[2][:, order]
            found = new if found is None else joined([found, new])
            sizes = np.concatenate([sizes, np.zeros(order.size, dtype=np.longdouble)])
            sizes, z = descend(statement, found, sizes, sweeps)
            kept = sizes > 0
            found = found[0][:, kept], found[1][:, kept], None if masks is None else found[2][:, kept]
            sizes = sizes[kept]
        if found is None or not sizes.size:
            return None
        roots = np.sqrt(sizes)
        W1, W2 = (np.asarray(side * roots, dtype=np.float64) for side in found[:2])
    if not (np.isfinite(W1).all() and np.isfinite(W2).all()):
        return None
    return W1, W2, found[2]


def into_cones(statement: Statement, W1: Array, masks: Array, inside: Array) -> Array | None:
    """Return vectors that lie exactly in a closed cone of the masks, each moved as little as that takes; None if not.

    masks: N x P; inside: p x P, a vector in the interior of each cone (zero where none is known).
    """
    out = W1.copy()
    for j in range(W1.shape[1]):
        moved = _into_a_cone(statement, W1[:, j], masks, inside)
        if moved is None:
            return None
        out[:, j] = moved
    return out


def _into_a_cone(statement: Statement, u: Array, masks: Array, inside: Array) -> Array | None:
    signs = np.where(masks, 1, -1)
    pattern = statement.signs(u[:, None])
    wrong = (pattern * signs < 0).sum(axis=0)
    if (wrong == 0).any():
        return u
    size = np.abs(u).max()
    for k in np.argsort(wrong, kind="stable")[:3]:
        if not inside[:, k].any():
            continue
        step = inside[:, k] / np.abs(inside[:, k]).max()
        for exponent in range(-52, -20, 2):
            moved = u + size * 2.0**exponent * step
            if (statement.signs(moved[:, None])[:, 0] * signs[:, k] >= 0).all():
                return moved
    return None
