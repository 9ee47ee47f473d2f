"""||G_k|| <= 1 for every block as conic constraints, G = A^* L / beta.

The blocks are their multipliers.

Each form takes vec(G), row-major over (k, a, b), as a CVXPY expression and returns the constraints and a function that
reads the multipliers once the program is solved. No loops over blocks: one batched cone through constant sparse maps.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from convexnn_bench.norms.cone_factors import Frame

Constraints = tuple[list[Any], Callable[[], np.ndarray]]


def unpack_answer(program: Any, raw: Any, chain: Any, inverse: Any) -> None:
    """Give the variables of a CVXPY program their values from a solver's raw answer.

    Raise cvxpy.SolverError where the solver failed.
    """
    import cvxpy as cp

    # `unpack_results` does the same, and warns where the answer is inaccurate, which is judged by certificates here. A
    # filter of warnings is no remedy: it belongs to the whole process, in which other threads may be at work.
    solution = chain.invert(raw, inverse)
    if solution.status in cp.settings.ERROR:
        raise cp.SolverError(f"Solver {chain.solver.name()!r} failed.")
    program.unpack(solution)


def norm_form(p: int, q: int, interior_point: bool = True) -> str:
    """Return the name of the cheapest statement of ||G|| <= 1 for p x q matrices, a key of NORM_FORMS.

    The cost of an interior-point method grows with the square of each inequality's triangle, so that many small ones
    are cheaper if one of p and q is much the larger. A splitting method factorises once and needs fewer iterations with
    a single inequality.
    """
    small, large = sorted((p, q))
    if small == 1:
        return "soc"
    single, split = (small + large) * (small + large + 1) // 2, large * (small + 1) * (small + 2) // 2
    return "rowlmi" if interior_point and 4 * split < single else "lmi"


def norm_soc(G: Any, P: int, p: int, q: int) -> Constraints:
    """State ||G_k|| <= 1 for vectors (p = 1 or q = 1): one batched second-order cone."""
    import cvxpy as cp

    cone = cp.SOC(np.ones(P), cp.reshape(G, (p * q, P), order="F"))
    return [cone], lambda: np.ascontiguousarray(cone.dual_value[1].T).reshape(P, p, q)


def norm_lmi(G: Any, P: int, p: int, q: int) -> Constraints:
    """State [[I, G], [G^T, I]] >= 0: one batched matrix inequality of size p + q."""
    import cvxpy as cp

    d = p + q
    k, a, b = (index.ravel() for index in np.indices((P, p, q)))
    # <W, [[I, G], [G^T, I]]> contains 2 <W_12, G>, so that the block is twice that corner of the multiplier W.
    place = symmetric_places(k, a, p + b, d, P)
    cone = cp.reshape(np.tile(np.eye(d).ravel(), P) + place @ G, (P, d, d), order="C") >> 0
    return [cone], lambda: 2.0 * cone.dual_value[:, :p, p:]


def norm_rowlmi(G: Any, P: int, p: int, q: int) -> Constraints:
    """State ||G_k|| <= 1 by max(p, q) inequalities of size r + 1 a block, r = min(p, q).

    With g_j the columns (or rows) of length r, G G^T (or G^T G) is sum_j g_j g_j^T, hence ||G|| <= 1 if and only if
    there are T_j with [[T_j, g_j], [g_j^T, 1]] >= 0 and sum_j T_j = I.
    """
    import cvxpy as cp

    r, s = min(p, q), max(p, q)
    d, lower = r + 1, np.tril_indices(r)
    size = len(lower[0])
    k, a, b = (index.ravel() for index in np.indices((P, p, q)))
    within, which = (a, b) if p <= q else (b, a)
    column = symmetric_places(k * s + which, within, np.full_like(k, r), d, P * s)
    block, entry = (index.ravel() for index in np.indices((P * s, size)))
    # The variables are the lower triangles of the T_j, one after the other.
    corner = symmetric_places(block, lower[0][entry], lower[1][entry], d, P * s)
    constant = np.zeros((P * s, d, d))
    constant[:, r, r] = 1.0
    T = cp.Variable(P * s * size)
    cone = cp.reshape(constant.ravel() + corner @ T + column @ G, (P * s, d, d), order="C") >> 0
    # sum_j T_j = I for every block, entry by entry of the lower triangle.
    total = sp.kron(sp.eye_array(P), sp.kron(np.ones((1, s)), sp.eye_array(size)), format="csr")
    diagonal = np.tile((lower[0] == lower[1]).astype(float), P)

    def blocks() -> np.ndarray:
        columns = 2.0 * cone.dual_value[:, :r, r].reshape(P, s, r)
        return columns.transpose(0, 2, 1) if p <= q else columns

    return [cone, total @ T == diagonal], blocks


def norm_cone(G: Any, rows: sp.csr_array, P: int, p: int) -> Constraints:
    """State |g_k^T u| <= 1 for every u of the unit ball with F_k u >= 0 (q = 1): there are lam, mu >= 0 with

        ||g_k - F_k^T lam|| <= 1   and   ||g_k + F_k^T mu|| <= 1    (the dual of eq. 23, q = 1),

    `rows` is block diagonal with blocks F_k. The multipliers are P x p x 2: minimising over lam and mu puts that of the
    first constraint, and minus that of the second, into the cone, and their difference is the block.
    """
    import cvxpy as cp

    lam, mu = cp.Variable(rows.shape[0], nonneg=True), cp.Variable(rows.shape[0], nonneg=True)
    plus = cp.SOC(np.ones(P), cp.reshape(G - rows.T @ lam, (p, P), order="F"))
    minus = cp.SOC(np.ones(P), cp.reshape(G + rows.T @ mu, (p, P), order="F"))
    return [plus, minus], lambda: np.stack([plus.dual_value[1].T, -minus.dual_value[1].T], axis=2)


def norm_cone_lmi(G: Any, frames: list[Frame], p: int, q: int) -> Constraints:
    """State ||G_k^T u|| <= 1 for every u of the unit ball with F_k u >= 0 (q > 1), by symmetric N_k >= 0 with

        [[I - F_k^T N_k F_k, G_k], [G_k^T, I]] >= 0,

    since then ||G_k^T u||^2 <= ||u||^2 - (F_k u)^T N_k (F_k u) <= 1. One batched matrix inequality of size p + q with a
    multiplier for each pair of rows of F_k; a diagonal of N_k would only shrink the left-hand side.

    Thin cones need huge N_k. In the coordinates u = B_k x of the frame, in which the cone is round, the inequality is
    [[B^T B - H^T N H, B^T G], [G^T B, I]] >= 0, H the rows of F B scaled to length one, and N is of order one. (If the
    cone spans less than R^p, so does B, and an identity is added on the rest.)

    The multipliers are the P matrices [[S', Z'], [Z'^T, T]] of the doubly non-negative program with
    S = B S' B^T and Z = B Z': minimising over N gives H S' H^T >= 0.
    """
    import cvxpy as cp

    P, d = len(frames), p + q
    k, a, b = (index.ravel() for index in np.indices((P, p, q)))
    constant = np.tile(np.eye(d), (P, 1, 1))
    constant[:, :p, :p] = [frame.gram for frame in frames]
    # B_k^T G_k, for the entries of G row by row.
    turn = sp.kron(sp.block_diag([frame.map for frame in frames]).T, sp.eye_array(q), format="csr")
    entries = constant.ravel() + (symmetric_places(k, a, p + b, d, P) @ turn) @ G
    products = facet_products([frame.rows for frame in frames], p, d)
    if products.shape[1] > 0:
        entries = entries - products @ cp.Variable(products.shape[1], nonneg=True)
    cone = cp.reshape(entries, (P, d, d), order="C") >> 0

    # Z' is twice the corner as in `norm_lmi`. With S' and T doubled too the matrix stays semidefinite, and the constant
    # of the inequality costs 1/2 (tr S + tr T).
    return [cone], lambda: 2.0 * cone.dual_value


def facet_products(facets: list[np.ndarray], p: int, d: int) -> sp.csr_array:
    """Return the map from multipliers to P matrices d x d, row-major.

    The multipliers are those of all pairs i < j of rows of every F_k.

    Each multiplier adds f_i f_j^T + f_j f_i^T to the leading p x p corner of its block.
    """
    columns, rows, values = [], [], []
    count = 0
    corner = (np.arange(p)[:, None] * d + np.arange(p)).ravel()
    for k, F in enumerate(facets):
        i, j = np.triu_indices(len(F), 1)
        outer = np.einsum("na,nb->nab", F[i], F[j])
        values.append((outer + outer.transpose(0, 2, 1)).ravel())
        rows.append(np.tile(k * d * d + corner, len(i)))
        columns.append(np.repeat(count + np.arange(len(i)), p * p))
        count += len(i)
    places = (np.concatenate(rows), np.concatenate(columns))
    return sp.csr_array((np.concatenate(values), places), shape=(len(facets) * d * d, count))


NORM_FORMS: dict[str, Callable[[Any, int, int, int], Constraints]] = {
    "soc": norm_soc,
    "lmi": norm_lmi,
    "rowlmi": norm_rowlmi,
}


def symmetric_places(block: np.ndarray, row: np.ndarray, column: np.ndarray, d: int, count: int) -> sp.csr_array:
    """Return the 0/1 matrix that writes a vector into `count` symmetric d x d matrices, row-major.

    Entry e goes to (row[e], column[e]) of matrix block[e], and to its mirror image.
    """
    source = np.arange(len(block))
    off = row != column
    places = np.concatenate([block * d * d + row * d + column, (block * d * d + column * d + row)[off]])
    sources = np.concatenate([source, source[off]])
    return sp.csr_array((np.ones(len(places)), (places, sources)), shape=(count * d * d, len(source)))
