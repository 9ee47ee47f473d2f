"""The exact convex program stated for a conic solver, in the form that was fastest (benchmarks/exact_forms.py).

Without cones (linear, gated ReLU) the dual program is solved,

    min_L F*(L)   subject to   ||A_k^* L||_2 <= beta for every block k,

in n_out c variables, whatever the number of blocks; the blocks Z_k are the multipliers of its constraints: minimising
F*(L) - sum_k <Z_k, A_k^* L> over L gives -F(A(Z)). The norm is a second-order cone where min(p, q) = 1. Otherwise
either one matrix inequality a block, [[beta I, G], [G^T, beta I]] >= 0 of size p + q, or, with g_j the columns (or rows) of
G of length r = min(p, q), max(p, q) small ones of size r + 1: since G G^T = sum_j g_j g_j^T,

    ||G||_2 <= beta   iff   there are T_j with [[T_j, g_j], [g_j^T, beta]] >= 0 and sum_j T_j = beta I.

With cones (ReLU, scalar output) the primal program is solved, Z_k = u_k - v_k with both in the cone,

    min F(z) + beta sum_k (||u_k|| + ||v_k||)   subject to   z = A(u - v),  F_k u_k >= 0,  F_k v_k >= 0,

F_k the non-redundant rows of K_k, and Lambda is the multiplier of z = A(u - v) (Pilanci & Ergen 2020, eq. 8).

Units: the objective is divided by F(0) and Z multiplied by beta / F(0), so that tolerances mean the same for data of any scale.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch

from convexnn_bench.algorithms.conic_maps import AdjointMap, adjoint_map
from convexnn_bench.formulations.point import Point

if TYPE_CHECKING:
    from convexnn_bench.problem import Problem


@dataclass(frozen=True)
class ConicProgram:
    """A CVXPY problem and `point`, which reads a Point off it once it is solved."""

    program: Any
    point: Callable[[], Point]


@dataclass(frozen=True)
class Units:
    """objective = F(0) objective', L = gradient L', Z = (F(0) / beta) Z'."""

    objective: float
    gradient: float
    blocks: float

    @classmethod
    def of(cls, problem: "Problem") -> "Units":
        Y = problem.operator().Y
        zero = torch.zeros_like(Y)
        value = float(problem.loss.value(zero, Y)) or 1.0
        gradient = float(problem.loss.gradient(zero, Y).abs().max()) or 1.0
        return cls(value, gradient, value / problem.beta)


def build(problem: "Problem") -> ConicProgram:
    """The program in the form this module holds best for the problem's structure."""
    return cone_program(problem) if problem.has_cone else dual_program(problem)


# -- the dual program -----------------------------------------------------------------------------------------


def _adjoint_expression(problem: "Problem", map_: AdjointMap, L: Any, factor: float) -> tuple[Any, list[Any]]:
    """vec of factor A^*(L) as an expression of L (n_out x c), with the equations of the tree if there is one."""
    import cvxpy as cp

    image = (factor * map_.R) @ cp.vec(L, order="C")
    if map_.T is None:
        return image, []
    G = cp.Variable(problem.P * problem.p * problem.q)
    return G, [map_.T @ G == image]


def dual_program(problem: "Problem", form: str | None = None, tree: bool | None = None) -> ConicProgram:
    """min F*(L) s.t. ||A_k^* L|| <= beta. form: "soc", "lmi", "rowlmi", or None to choose by p and q."""
    import cvxpy as cp

    units = Units.of(problem)
    L = cp.Variable((problem.n_out, problem.c))
    conjugate, domain = problem.loss.cvxpy_conjugate(units.gradient * L, problem.Y)
    map_ = adjoint_map(problem, tree)
    G, equations = _adjoint_expression(problem, map_, L, units.gradient / problem.beta)
    cones, blocks = NORM_FORMS[form or norm_form(problem.p, problem.q)](G, problem.P, problem.p, problem.q)
    program = cp.Problem(cp.Minimize(conjugate / units.objective), [*domain, *equations, *cones])

    def point() -> Point:
        return Point(blocks=units.blocks * blocks(), dual=units.gradient * L.value)

    return ConicProgram(program, point)


def norm_form(p: int, q: int) -> str:
    """Which statement of ||G|| <= 1 to use for p x q matrices."""
    small, large = sorted((p, q))
    if small == 1:
        return "soc"
    return "rowlmi" if large >= 4 * small else "lmi"


def norm_soc(G: Any, P: int, p: int, q: int) -> tuple[list[Any], Callable[[], np.ndarray]]:
    """||G_k|| <= 1 for vectors: one batched second-order cone."""
    import cvxpy as cp

    cone = cp.SOC(np.ones(P), cp.reshape(G, (p * q, P), order="F"))
    return [cone], lambda: np.ascontiguousarray(cone.dual_value[1].T).reshape(P, p, q)


def norm_lmi(G: Any, P: int, p: int, q: int) -> tuple[list[Any], Callable[[], np.ndarray]]:
    """[[I, G], [G^T, I]] >= 0: one batched matrix inequality of size p + q through a constant sparse map."""
    import cvxpy as cp

    d = p + q
    k, a, b = (index.ravel() for index in np.indices((P, p, q)))
    place = symmetric_places(k, a, p + b, d, P)
    cone = cp.reshape(np.tile(np.eye(d).ravel(), P) + place @ G, (P, d, d), order="C") >> 0
    return [cone], lambda: 2.0 * cone.dual_value[:, :p, p:]


def norm_rowlmi(G: Any, P: int, p: int, q: int) -> tuple[list[Any], Callable[[], np.ndarray]]:
    """[[T_j, g_j], [g_j^T, 1]] >= 0 with sum_j T_j = I: max(p, q) inequalities of size min(p, q) + 1 a block."""
    import cvxpy as cp

    r, s = min(p, q), max(p, q)
    d, lower = r + 1, np.tril_indices(r)
    size = len(lower[0])
    k, a, b = (index.ravel() for index in np.indices((P, p, q)))
    within, which = (a, b) if p <= q else (b, a)
    column = symmetric_places(k * s + which, within, np.full_like(k, r), d, P * s)
    block, entry = (index.ravel() for index in np.indices((P * s, size)))
    corner = symmetric_places(block, lower[0][entry], lower[1][entry], d, P * s)
    constant = np.zeros((P * s, d, d))
    constant[:, r, r] = 1.0
    T = cp.Variable(P * s * size)
    cone = cp.reshape(constant.ravel() + corner @ T + column @ G, (P * s, d, d), order="C") >> 0
    total = sp.kron(sp.eye_array(P), sp.kron(np.ones((1, s)), sp.eye_array(size)), format="csr")
    diagonal = np.tile((lower[0] == lower[1]).astype(float), P)

    def blocks() -> np.ndarray:
        columns = 2.0 * cone.dual_value[:, :r, r].reshape(P, s, r)
        return columns.transpose(0, 2, 1) if p <= q else columns

    return [cone, total @ T == diagonal], blocks


NORM_FORMS = {"soc": norm_soc, "lmi": norm_lmi, "rowlmi": norm_rowlmi}


def symmetric_places(
    block: np.ndarray, row: np.ndarray, column: np.ndarray, d: int, count: int
) -> sp.csr_array:
    """The 0/1 matrix that writes entry e of a vector at (row[e], column[e]) and (column[e], row[e]) of d x d matrix block[e]."""
    source = np.arange(len(block))
    off = row != column
    places = np.concatenate([block * d * d + row * d + column, (block * d * d + column * d + row)[off]])
    sources = np.concatenate([source, source[off]])
    return sp.csr_array((np.ones(len(places)), (places, sources)), shape=(count * d * d, len(source)))


# -- the primal program with cones ----------------------------------------------------------------------------


def cone_program(problem: "Problem", tree: bool | None = None, reduce: bool = True) -> ConicProgram:
    """min F(z) + beta sum_k (||u_k|| + ||v_k||), u_k and v_k in cone k, for scalar outputs.

    With the tree, T G = R L for the adjoint, A(Z) = R^T W where T^T W = vec(Z): W takes the place of u - v as variable
    and every coefficient matrix stays sparse.
    """
    import cvxpy as cp

    units = Units.of(problem)
    P, p = problem.P, problem.p
    map_ = adjoint_map(problem, tree)
    z = cp.Variable((problem.n_out, problem.c))
    W, v = cp.Variable(P * p), cp.Variable(P * p)
    u = v + (W if map_.T is None else map_.T.T @ W)
    value, domain = problem.loss.cvxpy_value(z, problem.Y)
    link = cp.vec(z, order="C") / units.blocks == map_.R.T @ W
    rows = facet_rows(problem, reduce)
    norms = sum(cp.sum(cp.norm(cp.reshape(x, (p, P), order="F"), 2, axis=0)) for x in (u, v))
    program = cp.Problem(
        cp.Minimize(value / units.objective + norms), [*domain, link, rows @ u >= 0, rows @ v >= 0]
    )

    def point() -> Point:
        assert problem.cones is not None
        split = np.stack([x.value.reshape(P, p) for x in (u, v)], axis=2) * units.blocks
        split = project_split(problem, split)
        dual = -units.objective / units.blocks * np.reshape(link.dual_value, (problem.n_out, problem.c))
        return Point(blocks=split[:, :, :1] - split[:, :, 1:], split=split, dual=dual)

    return ConicProgram(program, point)


def facet_rows(problem: "Problem", reduce: bool = True) -> sp.csr_array:
    """The rows of all cones, block diagonal: F_k (or all of K_k) in columns k p .. (k + 1) p."""
    assert problem.cones is not None
    signs = 2.0 * problem.masks - 1.0
    parts = [problem.cones.facets[k] if reduce else signs[:, k : k + 1] * problem.Phi for k in range(problem.P)]
    counts = [len(part) for part in parts]
    values = np.concatenate(parts)
    columns = np.repeat(np.arange(problem.P), counts)[:, None] * problem.p + np.arange(problem.p)
    starts = np.arange(0, values.size + 1, problem.p)
    return sp.csr_array((values.ravel(), columns.ravel(), starts), shape=(len(values), problem.P * problem.p))


def project_split(problem: "Problem", split: np.ndarray) -> np.ndarray:
    """Both columns of every block projected onto its cone."""
    assert problem.cones is not None
    return np.asarray(problem.cones.project(split))
