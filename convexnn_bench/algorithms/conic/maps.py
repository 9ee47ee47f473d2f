"""Sparse matrices of the lifted operator for the conic programs.

Vectors are row-major: vec(G) runs over (k, a, b) of the P x p x q blocks, vec(L) over (i, c') of the predictions. With
M = C^*(L), N x q, the adjoint is G_k = Phi^T D_k M. Two ways to state vec(G) as a linear function of vec(L):

    flat   G = R L, every block from all its rows: sum_k |D_k| p q entries
    tree   G_k = G_parent(k) + Phi^T (D_k - D_parent(k)) M, that is T G = R L, along a minimum spanning tree of the
           masks in Hamming distance: only the rows in which a mask differs from its parent's are entered

In an arrangement of hyperplanes neighbouring cells differ in one row, so that for a complete set of patterns the tree
has about P p q entries where the flat map has P N p q / 2.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool

from convexnn_bench.problem import Problem

TREE_SAVING = 4.0  # the tree is taken where it has this many times fewer entries than the flat map
TREE_BLOCKS = 4000  # the P x P distances of more blocks are not formed


@dataclass(frozen=True)
class AdjointMap:
    """T vec(G) = R vec(L), T square and unit triangular up to an ordering; T is None for the identity (flat)."""

    R: sp.csr_array
    T: sp.csr_array | None


def spanning_tree(masks: Bool[np.ndarray, "N P"]) -> tuple[np.ndarray, int]:
    """(parent of every block or -1 for the root, total Hamming length with the root counted from the empty mask)."""
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    P = masks.shape[1]
    values = masks.astype(np.float32)
    sizes = values.sum(axis=0)
    # |a xor b| = |a| + |b| - 2 <a, b>; one is added since the graph routines read zero as "no edge"
    distances = sizes[:, None] + sizes[None, :] - 2.0 * (values.T @ values) + 1.0
    np.fill_diagonal(distances, 0.0)
    tree = minimum_spanning_tree(distances)
    root = int(np.argmin(sizes))
    _, parent = breadth_first_order(tree, root, directed=False)
    parent = np.where(parent < 0, -1, parent)
    return parent, round(float(tree.sum() - (P - 1) + sizes[root]))


def _row_blocks(signs: sp.coo_array, Phi: np.ndarray, q: int) -> sp.csr_array:
    """Rows (k, a), columns i: signs[k, i] Phi[i, a], then a Kronecker product with the identity of size q."""
    N, p = Phi.shape
    rows = (signs.row[:, None] * p + np.arange(p)).ravel()
    columns = np.repeat(signs.col, p)
    values = (signs.data[:, None] * Phi[signs.col]).ravel()
    flat = sp.csr_array((values, (rows, columns)), shape=(signs.shape[0] * p, N))
    return sp.csr_array(sp.kron(flat, sp.eye_array(q), format="csr")) if q > 1 else flat


def adjoint_map(problem: Problem, tree: bool | None = None) -> AdjointMap:
    """The adjoint A^* as sparse matrices; tree=None chooses by the number of entries."""
    masks, Phi, q = problem.masks, problem.Phi, problem.q
    parent, signs = None, sp.coo_array(masks.T.astype(np.float64))
    if tree or (tree is None and 1 < problem.P <= TREE_BLOCKS):
        parent, length = spanning_tree(masks)
        if tree or length * TREE_SAVING < masks.sum():
            signed = np.column_stack([masks, np.zeros(len(masks), dtype=bool)]).astype(np.int8)
            signs = sp.coo_array((signed[:, :-1] - signed[:, parent]).T.astype(np.float64))
        else:
            parent = None
    R = _row_blocks(signs, Phi, q)
    if not problem.architecture.second_layer_is_identity:
        R = sp.csr_array(R @ problem.operator().second_layer_matrix().T)
    T = None
    if parent is not None:
        child = np.flatnonzero(parent >= 0)
        step = sp.csr_array((np.ones(len(child)), (child, parent[child])), shape=(problem.P, problem.P))
        T = sp.csr_array(sp.kron(sp.eye_array(problem.P) - step, sp.eye_array(problem.p * q), format="csr"))
    return AdjointMap(R, T)


def facet_rows(problem: Problem, reduce: bool = True) -> sp.csr_array:
    """The rows of all cones, block diagonal: the facets F_k, or all of K_k, in columns k p .. (k + 1) p."""
    assert problem.cones is not None
    cones, P, p = problem.cones, problem.P, problem.p
    parts = [cones.facets[k] if reduce else cones.signed_rows(k) for k in range(P)]
    values = np.concatenate(parts)
    columns = np.repeat(np.arange(P), [len(part) for part in parts])[:, None] * p + np.arange(p)
    starts = np.arange(0, values.size + 1, p)
    return sp.csr_array((values.ravel(), columns.ravel(), starts), shape=(len(values), P * p))
