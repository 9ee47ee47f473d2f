"""Sparse matrices of the lifted operator for the conic programs.

Vectors are row-major: vec(G) runs over (k, a, b) of the P x p x q blocks, vec(L) over (i, c') of the predictions. With
M = C^*(L), N x q, the adjoint is G_k = Phi^T D_k M. There are two ways to state vec(G) as a linear function of vec(L):

    flat   G = R L computes every block from all its rows, and has sum_k |D_k| p q entries;
    tree   G_k = G_parent(k) + Phi^T (D_k - D_parent(k)) M, that is T G = R L, follows a minimum spanning tree of the
           masks in Hamming distance, and has entries only for the rows in which a mask differs from its parent's.

In an arrangement of hyperplanes neighbouring cells differ in one row. For a complete set of patterns the tree therefore
has about P p q entries, and the flat map P N p q / 2.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool

from convexnn_bench.problem import Problem

TREE_SAVING = 4.0  # the tree is used if it has so many times fewer entries (measured: benchmarks/exact_forms.py)
TREE_BLOCKS = 4000  # most blocks for which the P x P distances are formed, 64 MB in float32


@dataclass(frozen=True)
class AdjointMap:
    """T vec(G) = R vec(L).

    T is unit triangular up to an ordering, and None stands for the identity (flat).
    """

    R: sp.csr_array
    T: sp.csr_array | None


def spanning_tree(masks: Bool[np.ndarray, "N P"]) -> tuple[np.ndarray, int]:
    """Return the parent of every block, -1 for the root, and the tree's length.

    The root is counted from the empty mask.
    """
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
    """Return a matrix with entries signs[k, i] Phi[i, a] times the identity.

    Its rows are (k, a), its columns i, and the identity has size q.
    """
    N, p = Phi.shape
    rows = (signs.row[:, None] * p + np.arange(p)).ravel()
    columns = np.repeat(signs.col, p)
    values = (signs.data[:, None] * Phi[signs.col]).ravel()
    flat = sp.csr_array((values, (rows, columns)), shape=(signs.shape[0] * p, N))
    return sp.csr_array(sp.kron(flat, sp.eye_array(q), format="csr")) if q > 1 else flat


def adjoint_map(problem: Problem, tree: bool | None = None) -> AdjointMap:
    """Return the adjoint A^* as sparse matrices; tree=None chooses the form by the number of entries."""
    masks, Phi, q = problem.masks, problem.Phi, problem.q
    parent, signs = None, sp.coo_array(masks.T.astype(np.float64))
    if tree or (tree is None and 1 < problem.P <= TREE_BLOCKS):
        parent, length = spanning_tree(masks)
        if tree or length * TREE_SAVING < masks.sum():
            # D_k - D_parent(k), where index -1, the root's parent, is the column of the empty mask.
            signed = np.column_stack([masks, np.zeros(len(masks), dtype=bool)]).astype(np.int8)
            signs = sp.coo_array((signed[:, :-1] - signed[:, parent]).T.astype(np.float64))
        else:
            parent = None
    R = _row_blocks(signs, Phi, q)
    if not problem.architecture.second_layer_is_identity:
        # vec(C^*(L)) = C^T vec(L).
        R = sp.csr_array(R @ problem.operator().second_layer_matrix().T)
    T = None
    if parent is not None:
        # (T vec(G))_k = G_k - G_parent(k), and G_k itself at the root.
        child = np.flatnonzero(parent >= 0)
        step = sp.csr_array((np.ones(len(child)), (child, parent[child])), shape=(problem.P, problem.P))
        T = sp.csr_array(sp.kron(sp.eye_array(problem.P) - step, sp.eye_array(problem.p * q), format="csr"))
    return AdjointMap(R, T)


def facet_rows(problem: Problem, reduce: bool = True) -> sp.csr_array:
    """Return the rows of all cones, block diagonal.

    They are the facets F_k, or all of K_k, in columns k p .. (k + 1) p.
    """
    assert problem.cones is not None
    cones, P, p = problem.cones, problem.P, problem.p
    parts = [cones.facets[k] if reduce else cones.signed_rows(k) for k in range(P)]
    values = np.concatenate(parts)
    columns = np.repeat(np.arange(P), [len(part) for part in parts])[:, None] * p + np.arange(p)
    starts = np.arange(0, values.size + 1, p)
    return sp.csr_array((values.ravel(), columns.ravel(), starts), shape=(len(values), P * p))
