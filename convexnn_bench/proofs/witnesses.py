"""Witnesses of ||G_k^T u|| <= beta ||u|| in the cones K_k u >= 0 of single blocks.

One output: multipliers l >= 0 with ||g + K^T l|| <= beta, for either sign of g. Several: N >= 0 elementwise with
G G^T + K^T N K <= beta^2 I. Both are searched in float64. The checker decides whether they hold exactly.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from convexnn_bench.cones import Cones, nearest_point, reduce_rows
from convexnn_bench.norms import unpack_answer
from convexnn_bench.problem import Problem

BITS = 64  # bits of a multiplier, relative to the norm that it lowers
CLEAR = 1e-9  # part of beta by which a norm without the cone is below beta, so that it needs no witness
FACET_DIMENSIONS = 8  # p up to which facets are cheap
MOST_ROWS = 40  # rows of a cone that enter a matrix N

ACCURACY = {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13, "max_threads": 1, "accept_unknown": True}

Pairs = list[tuple[int, int, float]]


def block_witnesses(problem: Problem, of: Any, unit: int, G: Float[np.ndarray, "P p q"]) -> dict[str, Any]:
    """Return the witnesses of all blocks whose norm exceeds beta outside the cone.

    Parameters
    ----------
    problem : Problem
        A problem with cones.
    of : Problem of the checker
        The exact data.
    unit : int
        The unit of the integer multiplier, M / unit.
    G : array P x p x q
        The blocks A_k^*(Lambda) in float64.
    """
    cones = problem.cones
    assert cones is not None
    rows = np.flatnonzero(np.any(cones.Phi != 0, axis=1))  # those of `signed_rows`
    units = _Units(of, unit, cones.Phi, rows)
    witnesses = {}
    for k in np.flatnonzero(np.linalg.norm(G, ord=2, axis=(1, 2)) > problem.beta * (1 - CLEAR)):
        signed, scaled = cones.signed_rows(int(k)), G[k] / problem.beta
        witness: dict[str, Any] = {"bits": 0, "plus": [], "minus": [], "pairs": []}
        if of.q == 1:
            sides = (nearest_point(signed, side)[1] for side in (scaled[:, 0], -scaled[:, 0]))
            witness |= units.multipliers(*sides)
        else:
            witness |= units.pairs(nonnegative_matrix(cones, int(k), scaled))
        witnesses[str(int(k))] = witness
    return witnesses


@dataclass
class _Units:
    """Turn multipliers of unit rows, with beta = 1, into those of the integers.

    The checker's blocks are `of.unit * unit` times A_k^*(Lambda), and its rows are integers times a power of two.
    """

    of: Any
    unit: int
    Phi: Float[np.ndarray, "N p"]
    rows: Int[np.ndarray, " n"]

    def __post_init__(self) -> None:
        r = int(self.rows[0])
        j = int(np.argmax(np.abs(self.Phi[r])))
        of_rows = 2 ** round(math.log2(abs(self.of.phi[r][j])) - math.log2(abs(self.Phi[r, j])))
        self.ratio = Fraction(self.of.beta * self.of.unit * self.unit) / of_rows  # for rows of length one
        self.lengths = np.linalg.norm(self.Phi[self.rows], axis=1)
        # The unit of multipliers is 2^-BITS of the size at which a row of the least length is as long as beta.
        longest = Fraction(float(self.lengths.max()))
        self.bits = max(0, _log2(self.ratio / longest) - BITS)
        limit = self.of.beta * self.of.unit * self.unit
        self.low = limit.denominator**2
        self.pair_bits = max(0, _log2(self.ratio**2 * self.low / longest**2) - BITS)

    def multipliers(self, plus: Float[np.ndarray, " n"], minus: Float[np.ndarray, " n"]) -> dict[str, Any]:
        return {"bits": self.bits, "plus": self._terms(plus), "minus": self._terms(minus)}

    def _terms(self, values: Float[np.ndarray, " n"]) -> list[list[int]]:
        terms = []
        for i in np.flatnonzero(values > 0):
            value = round(Fraction(float(values[i] / self.lengths[i])) * self.ratio / 2**self.bits)
            terms.append([int(self.rows[i]), value])
        return [term for term in terms if term[1]]

    def pairs(self, found: Pairs) -> dict[str, Any]:
        terms = []
        for i, j, n in found:
            value = Fraction(n / float(self.lengths[i] * self.lengths[j])) * self.ratio**2 * self.low
            terms.append([int(self.rows[i]), int(self.rows[j]), round(value / 2**self.pair_bits)])
        return {"bits": self.pair_bits, "pairs": [term for term in terms if term[2]]}


def _log2(value: Fraction) -> int:
    return value.numerator.bit_length() - value.denominator.bit_length()


def nonnegative_matrix(cones: Cones, k: int, G: Float[np.ndarray, "p q"]) -> Pairs:
    """Return the (i, j, n) for which I - G G^T - K^T N K is best, i < j and n > 0.

    i, j: positions in `signed_rows(k)`.

    N has the entries n at (i, j) and (j, i). The least t with t I - G G^T - K^T N K positive semidefinite is the doubly
    non-negative bound on the square of the norm (Sahiner et al., ICLR 2021).
    """
    signed = cones.signed_rows(k)
    index = _rows_of(cones, k, signed, G)
    F, M = signed[index], G @ G.T
    if len(index) < 2:
        return []
    if F.shape == (2, 2):
        return [(int(index[0]), int(index[1]), n) for n in [_in_the_plane(F, M)] if n > 0]
    N = _by_semidefinite_program(F, M)
    return [
        (int(index[i]), int(index[j]), float(N[i, j]))
        for i in range(len(index))
        for j in range(i + 1, len(index))
        if N[i, j] > 0
    ]


def _rows_of(
    cones: Cones, k: int, signed: Float[np.ndarray, "n p"], G: Float[np.ndarray, "p q"]
) -> Int[np.ndarray, " f"]:
    """Return the facets of a cone.

    If there are many features, return the rows that the leading directions violate most.
    """
    if cones.p <= FACET_DIMENSIONS:
        index = np.asarray(reduce_rows(signed, cones.interior(k)))
        if len(index) <= MOST_ROWS:
            return index
    else:
        index = np.arange(len(signed))
    leading = np.linalg.svd(G)[0][:, : min(G.shape)]
    values = signed[index] @ leading
    depth = np.minimum(values.min(axis=1), -values.max(axis=1))
    return index[np.argsort(depth)[:MOST_ROWS]]


def _in_the_plane(F: Float[np.ndarray, "2 2"], M: Float[np.ndarray, "2 2"]) -> float:
    """Return the n for which a form has no mixed term on the two rays.

    The form is u^T (I - M) u - 2 n (f_1 u)(f_2 u).
    """
    # With rays on which f_i r_j = 1 for i = j and 0 otherwise, u = s r_1 + t r_2 has (f_1 u)(f_2 u) = s t.
    rays = np.linalg.inv(F)
    return max(float(rays[:, 0] @ (np.eye(2) - M) @ rays[:, 1]), 0.0)


def _by_semidefinite_program(F: Float[np.ndarray, "f p"], M: Float[np.ndarray, "p p"]) -> Float[np.ndarray, "f f"]:
    import cvxpy as cp

    f, p = F.shape
    N, t = cp.Variable((f, f), symmetric=True), cp.Variable()
    slack = t * np.eye(p) - M - F.T @ N @ F
    program = cp.Problem(cp.Minimize(t), [N >= 0, cp.diag(N) == 0, (slack + slack.T) / 2 >> 0])
    data, chain, inverse = program.get_problem_data(cp.CLARABEL, solver_opts=ACCURACY, canon_backend="SCIPY")
    try:
        unpack_answer(program, chain.solve_via_data(program, data, solver_opts=ACCURACY), chain, inverse)
    except cp.SolverError:
        return np.zeros((f, f))
    return np.zeros((f, f)) if N.value is None else np.maximum(N.value, 0.0)
