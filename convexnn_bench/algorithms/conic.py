"""The exact convex program stated for a conic solver, in the form that was fastest (benchmarks/exact_forms.py).

The dual program is solved,

    min_L F*(L)   subject to   ||A_k^* L||_k <= beta for every block k,   ||.||_k the dual norm of the block,

in n_out c variables, whatever the number of blocks; the blocks Z_k are the multipliers of its constraints: minimising
F*(L) - sum_k <Z_k, A_k^* L> over L gives -F(A(Z)). How the norms are stated is in `conic_norms`, the matrices of A^* in
`conic_maps`.

One kind of program an interior-point method solves faster from the primal side: ReLU with sampled patterns, where

    min F(z) + beta sum_k (||u_k|| + ||v_k||)   subject to   z = A(u - v),  F_k u_k >= 0,  F_k v_k >= 0,

F_k the non-redundant rows of K_k, and Lambda is the multiplier of z = A(u - v) (Pilanci & Ergen 2020, eq. 8).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convexnn_bench.algorithms.conic_maps import AdjointMap, adjoint_map, facet_rows
from convexnn_bench.algorithms.conic_norms import NORM_FORMS, norm_cone, norm_form
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
    """objective = `objective` objective', L = `gradient` L', Z = `blocks` Z': tolerances mean the same on any scale.

    gradient is the root mean square residual at z = 0, (2 F(0) / number of targets)^(1/2), or max |grad F(0)| if that
    is less; the objective is measured in gradient^2 where it is quadratic or piecewise so, which leaves its curvature
    at one, and in F(0) otherwise: of the scalings tried these took SCS the fewest iterations; Clarabel minds little.
    """

    objective: float
    gradient: float
    blocks: float

    @classmethod
    def of(cls, problem: "Problem", quadratic: bool) -> "Units":
        Y = problem.operator().Y
        zero = torch.zeros_like(Y)
        value = float(problem.loss.value(zero, Y)) or 1.0
        steepest = float(problem.loss.gradient(zero, Y).abs().max()) or 1.0
        gradient = min(float(np.sqrt(2.0 * value / Y.numel())), steepest)
        objective = gradient**2 if quadratic else value
        return cls(objective, gradient, objective / problem.beta)


def build(problem: "Problem", interior_point: bool = True) -> ConicProgram:
    """The program in the form measured fastest for the problem's structure and the kind of solver."""
    map_ = adjoint_map(problem)
    if problem.has_cone and interior_point and map_.T is None:
        return primal_cone_program(problem, map_)
    return dual_program(problem, map_, norm_form(problem.p, problem.q, interior_point))


def dual_program(problem: "Problem", map_: AdjointMap, form: str) -> ConicProgram:
    """min F*(L) s.t. ||A_k^* L|| <= beta, in units where the bound is one.

    form: a name in NORM_FORMS for blocks without a cone; blocks with a cone are held by `norm_cone`.
    """
    import cvxpy as cp

    P, p, q = problem.P, problem.p, problem.q
    L: Any = cp.Variable((problem.n_out, problem.c))
    units = Units.of(problem, problem.loss.cvxpy_conjugate(L, problem.Y)[0].is_qpwa())
    conjugate, domain = problem.loss.cvxpy_conjugate(units.gradient * L, problem.Y)
    image = (units.gradient / problem.beta * map_.R) @ cp.vec(L, order="C")
    G, equations = image, []
    if map_.T is not None or problem.has_cone:
        G = cp.Variable(P * p * q)
        equations = [(G if map_.T is None else map_.T @ G) == image]
    if problem.has_cone:
        cones, read = norm_cone(G, facet_rows(problem), P, p)
    else:
        cones, read = NORM_FORMS[form](G, P, p, q)
    program = cp.Problem(cp.Minimize(conjugate / units.objective), [*domain, *equations, *cones])

    def point() -> Point:
        dual, values = units.gradient * L.value, units.blocks * read()
        return split_point(problem, values, dual) if problem.has_cone else Point(blocks=values, dual=dual)

    return ConicProgram(program, point)


def primal_cone_program(problem: "Problem", map_: AdjointMap, reduce: bool = True) -> ConicProgram:
    """min F(z) + beta sum_k (||u_k|| + ||v_k||), u_k and v_k in cone k, for scalar outputs and the flat map.

    reduce: keep the facets of every cone only, rather than all N rows of K_k.
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
    norms = sum(cp.sum(cp.norm(cp.reshape(x, (p, P), order="F"), 2, axis=0)) for x in (u, v))
    program = cp.Problem(cp.Minimize(value / units.objective + norms), [*domain, link, rows @ u >= 0, rows @ v >= 0])

    def point() -> Point:
        split = units.blocks * np.stack([x.value.reshape(P, p) for x in (u, v)], axis=2)
        dual = -units.objective / units.blocks * np.reshape(link.dual_value, (problem.n_out, problem.c))
        return split_point(problem, split, dual)

    return ConicProgram(program, point)


def split_point(problem: "Problem", split: np.ndarray, dual: np.ndarray) -> Point:
    """The point of cone vectors (P x p x 2), each projected onto its cone so that it is feasible to rounding."""
    assert problem.cones is not None
    split = np.asarray(problem.cones.project(split))
    return Point(blocks=split[:, :, :1] - split[:, :, 1:], split=split, dual=dual)
