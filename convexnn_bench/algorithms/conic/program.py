"""The exact convex program stated for a conic solver.

It has the form that was fastest (benchmarks/exact_forms.py).

In most cases that is the dual program,

    min_L F*(L)   subject to   ||A_k^* L||_k <= beta for every block k,   ||.||_k the dual norm of the block,

which has n_out c variables, whatever the number of blocks. The blocks Z_k are the multipliers of its constraints:
minimising F*(L) - sum_k <Z_k, A_k^* L> over L gives -F(A(Z)). The norms are stated in `norms.conic_forms`, the matrices
of A^* in `maps`.

For ReLU with sampled patterns, an interior-point method is faster on the primal program,

    min F(z) + beta sum_k (||u_k|| + ||v_k||)   subject to   z = A(u - v),  F_k u_k >= 0,  F_k v_k >= 0,

where F_k are the non-redundant rows of K_k and Lambda is the multiplier of z = A(u - v) (Pilanci & Ergen 2020, eq. 8).

For vector-output ReLU the block norm and its dual are NP-hard. An upper bound replaces the dual norm, and the program
becomes the dual of the doubly non-negative relaxation

    min F(A(Z)) + beta/2 sum_k (tr S_k + tr T_k)   subject to   [[S_k, Z_k], [Z_k^T, T_k]] >= 0,  F_k S_k F_k^T >= 0

of the copositive program of Sahiner et al. (ICLR 2021). Its value is a lower bound on the optimum, and equals it if
every S_k is a sum of products u u^T with u in cone k, which always holds with at most four facets. `norms.cone_factors`
looks for such columns u, so that the point is feasible and its objective an upper bound.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from convexnn_bench.algorithms.conic.cost import Cost
from convexnn_bench.algorithms.conic.maps import AdjointMap, adjoint_map, facet_rows
from convexnn_bench.algorithms.conic.rounding import round_relaxation
from convexnn_bench.errors import UnsupportedError
from convexnn_bench.formulations import Point
from convexnn_bench.norms import NORM_FORMS, Frame, Relaxation, cone_frames, norm_cone, norm_cone_lmi, norm_form
from convexnn_bench.problem import Problem

EXACT_ROUNDING = 1e-6  # relative distance from the relaxation's value up to which a point is called exact
MOST_ENTRIES = 50_000_000  # of the matrix of the multipliers' p x p products of facets, 600 MB as a sparse matrix


@dataclass(frozen=True)
class ConicProgram:
    """A CVXPY problem, and `point`, which reads a Point from it after it was solved.

    relaxation: for vector-output ReLU, reads the solution of the doubly non-negative relaxation itself. remark: returns
    a remark for the user about a point. cost: the seconds of compilation and factorisation.
    """

    program: Any
    point: Callable[[], Point]
    relaxation: Callable[[], Relaxation] | None = None
    remark: Callable[[Point], str] = lambda point: ""
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Units:
    """Units of the objective, of L and of Z in the program.

    Tolerances then mean the same on data of any scale.

    `gradient` is the root mean square residual at z = 0, (2 F(0) / number of targets)^(1/2), or max |grad F(0)| if that
    is less. `objective` is gradient^2 if the loss is piecewise quadratic, which leaves its curvature at one, and F(0)
    otherwise. SCS took the fewest iterations with these units (commit 384fbfb); Clarabel hardly depends on them.
    """

    objective: float
    gradient: float
    blocks: float

    @classmethod
    def of(cls, problem: Problem, quadratic: bool) -> "Units":
        Y = problem.operator().Y
        zero = torch.zeros_like(Y)
        value = float(problem.loss.value(zero, Y)) or 1.0
        steepest = float(problem.loss.gradient(zero, Y).abs().max()) or 1.0
        gradient = min(float(np.sqrt(2.0 * value / Y.numel())), steepest)
        objective = 2.0 * value / Y.numel() if quadratic else value
        return cls(objective, gradient, objective / problem.beta)


def build_program(problem: Problem, interior_point: bool = True) -> ConicProgram:
    """Return the program in the form that was fastest for the problem's structure and the kind of solver.

    Raise OutOfTime if the solver could not stop before the deadline.
    """
    # Where masks differ in many rows, as sampled ones do, there is no tree, and for ReLU an interior-point method is
    # faster on the primal program.
    map_ = adjoint_map(problem)
    if problem.has_cone and not problem.vector_cone and interior_point and map_.T is None:
        return primal_cone_program(problem, map_)
    cost, form = Cost.of(problem, map_, interior_point), norm_form(problem.p, problem.q, interior_point)
    if not problem.has_cone and form in ("lmi", "rowlmi") and interior_point:
        small, large = sorted((problem.p, problem.q))
        count, size = (problem.P, small + large) if form == "lmi" else (problem.P * large, small + 1)
        cost += Cost.of_inequalities(count, size)
    cost.check(map_.R.nnz)
    if problem.vector_cone:
        return relaxed_program(problem, map_, interior_point, cost)
    return replace(dual_program(problem, map_, form), cost=cost)


def only_second_order(problem: Problem) -> str | None:
    """Return which further cones the program has beside linear and second-order ones, in words, or None."""
    import cvxpy as cp

    if problem.vector_cone or norm_form(problem.p, problem.q) != "soc":
        return f"blocks of {problem.p} x {problem.q} need matrix inequalities"
    L: Any = cp.Variable((problem.n_out, problem.c))
    if not problem.loss.cvxpy_conjugate(L, problem.Y)[0].is_qpwa():
        return f"the loss {problem.loss.name} needs exponential cones"
    return None


def dual_program(problem: Problem, map_: AdjointMap, form: str) -> ConicProgram:
    """Return min F*(L) s.t. ||A_k^* L|| <= beta, in units in which the bound is one.

    form: a name in NORM_FORMS for blocks without a cone; for blocks with a cone the form is always `norm_cone`.
    """
    import cvxpy as cp

    P, p, q = problem.P, problem.p, problem.q
    dual = DualSide.of(problem, map_, problem.has_cone)
    if problem.has_cone:
        cones, read = norm_cone(dual.G, facet_rows(problem), P, p)
    else:
        cones, read = NORM_FORMS[form](dual.G, P, p, q)

    def point() -> Point:
        # In the program Z_k is the multiplier of ||G_k|| <= 1, in units of objective / beta.
        values = dual.units.blocks * read()
        return split_point(problem, values, dual.value()) if problem.has_cone else Point(values, dual=dual.value())

    return ConicProgram(cp.Problem(cp.Minimize(dual.objective), [*dual.constraints, *cones]), point)


@dataclass(frozen=True)
class DualSide:
    """The part that all dual programs share, in the program's units.

    L: the variable, n_out x c. G: vec of the blocks A_k^* L / beta. objective: F*(L). constraints: dom F*, and the
    equations of G if it is a variable of its own.
    """

    units: Units
    L: Any
    G: Any
    objective: Any
    constraints: list[Any]

    @classmethod
    def of(cls, problem: Problem, map_: AdjointMap, own_variable: bool = False) -> "DualSide":
        """State the objective and G; own_variable makes G a variable also where an expression would do."""
        import cvxpy as cp

        L: Any = cp.Variable((problem.n_out, problem.c))
        # The units depend on whether F* is piecewise quadratic: F* is stated once to find out, and again in these
        # units.
        units = Units.of(problem, problem.loss.cvxpy_conjugate(L, problem.Y)[0].is_qpwa())
        conjugate, domain = problem.loss.cvxpy_conjugate(units.gradient * L, problem.Y)
        image = (units.gradient / problem.beta * map_.R) @ cp.vec(L, order="C")
        # With the tree G solves T vec(G) = vec(image), which stays an equation: the inverse of T is not sparse.
        G, equations = image, []
        if map_.T is not None or own_variable:
            G = cp.Variable(problem.P * problem.p * problem.q)
            equations = [(G if map_.T is None else map_.T @ G) == image]
        return cls(units, L, G, conjugate / units.objective, [*domain, *equations])

    def value(self) -> np.ndarray:
        """Return L in the problem's units, after the program was solved."""
        return np.asarray(self.units.gradient * self.L.value)


def relaxed_program(problem: Problem, map_: AdjointMap, interior_point: bool, cost: Cost) -> ConicProgram:
    """Return the dual of the doubly non-negative relaxation.

    It is for vector-output ReLU. cost: that of the map alone.

    A splitting method needs fewer iterations if the blocks G are variables of their own.
    """
    import cvxpy as cp

    assert problem.cones is not None
    frames = cone_frames(problem.cones)
    pairs = _check_size(frames)
    if interior_point:
        cost += Cost.of_inequalities(problem.P, problem.p + problem.q, pairs, problem.p)
        cost.check(map_.R.nnz + pairs * problem.p**2)
    dual = DualSide.of(problem, map_, not interior_point)
    cones, read = norm_cone_lmi(dual.G, frames, problem.p, problem.q)
    program = cp.Problem(cp.Minimize(dual.objective), [*dual.constraints, *cones])

    def value() -> float:
        return -dual.units.objective * float(program.value)

    def relaxation() -> Relaxation:
        return Relaxation(frames, dual.units.blocks * read(), value())

    def point() -> Point:
        U, V = round_relaxation(problem, relaxation(), program.status != cp.settings.USER_LIMIT)
        return Point(blocks=U @ V.transpose(0, 2, 1), cone_factors=(U, V), dual=dual.value())

    def remark(point: Point) -> str:
        assert point.cone_factors is not None
        excess = problem.factored_objective(*point.cone_factors) / value() - 1 if value() else 0.0
        exact = abs(excess) <= EXACT_ROUNDING
        words = "exact, rounded to a feasible point of that value" if exact else "best point found"
        return f"doubly non-negative relaxation: {words} (relative difference {excess:.4e})"

    return ConicProgram(program, point, relaxation, remark, cost)


def _check_size(frames: list[Frame]) -> int:
    """Return the number of multipliers of pairs of facets.

    Raise UnsupportedError if they do not fit memory.
    """
    # Every pair of facets has a multiplier, and every multiplier p x p coefficients in the matrix inequality.
    pairs = sum(len(frame.rows) * (len(frame.rows) - 1) // 2 for frame in frames)
    if frames and pairs * frames[0].map.size > MOST_ENTRIES:
        raise UnsupportedError(
            f"the doubly non-negative program has {pairs} multipliers of pairs of facets, for {len(frames)} cones in "
            f"{len(frames[0].map)} dimensions; about {MOST_ENTRIES // frames[0].map.size} fit: use fewer patterns, "
            "or a Burer-Monteiro solver"
        )
    return pairs


def primal_cone_program(problem: Problem, map_: AdjointMap, reduce: bool = True) -> ConicProgram:
    """Return min F(z) + beta sum_k (||u_k|| + ||v_k||), u_k and v_k in cone k, for scalar outputs and the flat map.

    reduce: state only the facets of every cone instead of all N rows of K_k.
    """
    import cvxpy as cp

    P, p = problem.P, problem.p
    z: Any = cp.Variable((problem.n_out, problem.c))
    value, domain = problem.loss.cvxpy_value(z, problem.Y)
    units = Units.of(problem, value.is_qpwa())
    u: Any = cp.Variable(P * p)
    v: Any = cp.Variable(P * p)
    link = cp.vec(z, order="C") / units.blocks == map_.R.T @ (u - v)
    rows = facet_rows(problem, reduce)
    cost = Cost.of_primal(map_, rows.nnz)
    cost.check(2 * (map_.R.nnz + rows.nnz))
    norms = sum(cp.sum(cp.norm(cp.reshape(x, (p, P), order="F"), 2, axis=0)) for x in (u, v))
    program = cp.Problem(cp.Minimize(value / units.objective + norms), [*domain, link, rows @ u >= 0, rows @ v >= 0])

    def point() -> Point:
        split = units.blocks * np.stack([x.value.reshape(P, p) for x in (u, v)], axis=2)
        # Stationarity in z of the Lagrangian: grad F(z) / objective + multiplier / blocks = 0, and Lambda = grad F(z).
        dual = -units.objective / units.blocks * np.reshape(link.dual_value, (problem.n_out, problem.c))
        return split_point(problem, split, dual)

    return ConicProgram(program, point, cost=cost)


def split_point(problem: Problem, split: np.ndarray, dual: np.ndarray) -> Point:
    """Return the point of cone vectors (P x p x 2).

    Each is projected onto its cone, to be feasible up to rounding.
    """
    assert problem.cones is not None
    split = np.asarray(problem.cones.project(split))
    return Point(blocks=split[:, :, :1] - split[:, :, 1:], split=split, dual=dual)
