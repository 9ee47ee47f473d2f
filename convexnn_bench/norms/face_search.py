"""Maxima of convex quadratic forms over polyhedral cones, by branch and bound over faces.

max u^T M u over {u : F u >= 0, ||u|| <= 1}, M = G G^T. A maximiser lies in the relative interior of one face
{F_S u = 0}, and there it is a top eigenvector of M restricted to the null space of F_S, since on a sphere every local
maximum of a quadratic form is global. A node is a set S of rows held at zero; its bound is the largest eigenvalue of
M on the null space. If the eigenvector w, or -w, lies in the cone, the bound is attained. Otherwise a maximiser u on
the face can move towards w (or -w) without losing value until it meets a further row i, so that one of the nodes
S + {i} has the same maximum.
"""

import numpy as np
from jaxtyping import Bool, Float

from convexnn_bench.cones import EPS, nearest_point
from convexnn_bench.deadline import time_is_up

INSIDE = 1e-9  # distance to the cone at which a direction counts as inside; the bound stays an upper one
DEPENDENT = 1e-6  # distance of a row from the span of the others at which it counts as dependent
ZERO = 1e-13  # distance at which it surely is dependent; in between the null space may be too large: the bound stays
CHUNK_ELEMENTS = 500_000  # numbers of the rows of a batch of nodes, 4 MB; the deadline is checked between two batches


class FaceSearch:
    """The search for several blocks at once, level by level, each level one batch of small eigenproblems.

    Parameters
    ----------
    facets : list of arrays, F_k x p
        Unit rows of every block's cone.
    G : array, k x p x q
    floor : float
        Norms below it do not matter; `upper` is at least `floor`.

    Attributes
    ----------
    upper, lower : arrays, k
        Bounds on the norms, after `run`.
    complete : bool
        Whether no node was left open.
    """

    def __init__(self, facets: list[np.ndarray], G: Float[np.ndarray, "k p q"], floor: float):
        self.k, self.p, self.q = G.shape
        self.G, self.M = G, G @ G.transpose(0, 2, 1)
        self.facets = facets
        width = max(self.p, *(len(rows) for rows in facets))
        self.F = np.zeros((self.k, width, self.p))
        self.real = np.zeros((self.k, width), dtype=bool)
        for number, rows in enumerate(facets):
            self.F[number, : len(rows)] = rows
            self.real[number, : len(rows)] = True
        self.floor = floor
        self.upper, self.lower = np.zeros(self.k), np.zeros(self.k)
        self.complete = True

    def run(self, nodes: int) -> int:
        """Search at most about `nodes` faces, until a deadline, and return their number."""
        block = np.arange(self.k)
        active = np.zeros((self.k, self.F.shape[1]), dtype=bool)
        above = np.full(self.k, np.inf)  # bounds of the parents
        seen = 0
        while block.size and seen + block.size <= nodes and not time_is_up():
            seen += block.size
            block, active, above = self._level(block, active, above)
        self._leave_open(block, above)
        self.upper = np.maximum(self.upper, np.maximum(self.floor, self.lower))
        return seen

    def _leave_open(self, block: np.ndarray, above: Float[np.ndarray, "m"]) -> None:
        """Keep the bounds of the parents for nodes that are not searched."""
        self.complete = self.complete and block.size == 0
        np.maximum.at(self.upper, block, above)

    def _level(
        self, block: np.ndarray, active: Bool[np.ndarray, "m f"], above: Float[np.ndarray, "m"]
    ) -> tuple[np.ndarray, Bool[np.ndarray, "n f"], Float[np.ndarray, "n"]]:
        """Bound all nodes of a level, close those whose eigenvector is inside, and return their children."""
        step = max(1, CHUNK_ELEMENTS // (self.F.shape[1] * self.p))
        found = []
        for start in range(0, block.size, step):
            if start > 0 and time_is_up():
                self._leave_open(block[start:], above[start:])
                break
            part = slice(start, start + step)
            found.append(self._nodes(block[part], active[part]))
        block, active, above = (np.concatenate([each[place] for each in found]) for place in range(3))
        if block.size:
            names = np.column_stack([block, np.packbits(active, axis=1)])
            first = np.unique(names, axis=0, return_index=True)[1]
            block, active, above = block[first], active[first], above[first]
        return block, active, above

    def _nodes(
        self, block: np.ndarray, active: Bool[np.ndarray, "m f"]
    ) -> tuple[np.ndarray, Bool[np.ndarray, "n f"], Float[np.ndarray, "n"]]:
        """Bound a batch of nodes.

        1. Compute the null space of the rows at zero.
        2. Take the top eigenvector of M there, whose eigenvalue bounds the node.
        3. Close the node if the eigenvector or its negative lies in the cone.
        4. Branch on the rows that are not at zero yet.
        """
        rows, M = self.F[block], self.M[block]
        # 1. The null space of F_S, with F_S = Q R, from the right singular vectors of R, which is at most p x p.
        values, basis = np.linalg.svd(np.linalg.qr(rows * active[:, :, None], mode="r"))[1:]
        held = values > DEPENDENT
        free = basis * ~held[:, :, None]  # its rows span the null space
        # 2. The top eigenvector w of M on the null space, and the bound of the node.
        projector = free.transpose(0, 2, 1) @ free
        spectrum, vectors = np.linalg.eigh(projector @ M @ projector)
        # the rounding of the null space is eps / (least singular value of the rows at zero)
        least = np.where(held, values, 1.0).min(axis=1)
        error = 64 * (self.p + self.q) * EPS * np.trace(M, axis1=1, axis2=2) / least
        bound = np.sqrt(np.maximum(spectrum[:, -1], 0.0) + error)
        w = vectors[:, :, -1]
        # 3. w or -w attains the bound if it lies in the cone.
        depth = np.einsum("mfp,mp->mf", rows, w)
        down, up = depth.min(axis=1), depth.max(axis=1)
        inside = (down >= -INSIDE) | (up <= INSIDE)
        # A row whose part in the null space is nearly zero might depend on S or not: the bound is kept to be safe.
        lengths = np.linalg.norm(rows @ projector, axis=2)
        inactive = self.real[block] & ~active
        doubtful = (inactive & (lengths > ZERO) & (lengths <= DEPENDENT)).any(axis=1)
        alive = bound > np.maximum(self.floor, self.lower[block])
        for place in np.flatnonzero((inside | doubtful) & alive):
            self.upper[block[place]] = max(self.upper[block[place]], bound[place])
        for place in np.flatnonzero(inside & alive):
            self._attain(int(block[place]), w[place] if down[place] >= -INSIDE else -w[place])
        self.floor = max(self.floor, float(self.lower.max()))
        # 4. Branch on every further row. With p - 1 rows at zero only a line is left, whose directions were tried
        # above.
        branch = np.flatnonzero(~inside & (bound > self.floor) & (held.sum(axis=1) < self.p - 1))
        # rows that vanish on the null space cut off nothing more
        node, row = np.nonzero(inactive[branch] & (lengths[branch] > DEPENDENT))
        children = active[branch][node]
        children[np.arange(node.size), row] = True
        return block[branch][node], children, bound[branch][node]

    def _attain(self, number: int, w: Float[np.ndarray, "p"]) -> None:
        """Raise the lower bound to the value at the point of the cone nearest to w."""
        u = nearest_point(self.facets[number], w)[0]
        size = float(np.linalg.norm(u))
        if size > 0.5:
            value = float(np.linalg.norm(self.G[number].T @ (u / size))) * (1 - (self.p + self.q + 8) * EPS)
            self.lower[number] = max(self.lower[number], value)
