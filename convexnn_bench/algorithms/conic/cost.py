"""Estimate the least time of a conic solver: to compile its program, and for one factorisation.

A factorisation is one call into compiled code, which no time limit interrupts. If it would take longer than the time
that is left, the solver is therefore not started.

The flat map vec(G) = R vec(L) couples the entries of L and those of G. Eliminating G first, each row of R with r
entries costs r^2 operations, and the matrix of the n_out c entries of L that remains is dense. Eliminating L first, the
same holds for the columns of R and the matrix of the P p q entries of G. An interior-point method couples the outputs
through the norms of the blocks. A splitting method does not, so that the dense matrix splits into one for each output
if C is the identity. With the tree in place of the flat map the matrices are sparse and the cost is small.

The programs add to that. An interior-point method factorises a dense matrix for each matrix inequality, whose order is
the number of entries of a triangle, and for each pair of facets it eliminates a multiplier that is in a p x p corner.
The primal program has no dense inequality: a factorisation takes a time in proportion to its coefficients.
"""

from dataclasses import dataclass

import numpy as np

from convexnn_bench.algorithms.conic.maps import AdjointMap
from convexnn_bench.deadline import OutOfTime, seconds_left
from convexnn_bench.problem import Problem

# Seconds that CVXPY takes to compile an entry of R, and seconds for an operation of the sparse factorisations of
# Clarabel (interior point) and SCS (splitting), measured on one core on the dual programs of benchmarks/time_limits.py.
COMPILED_ENTRY = 3e-7
INTERIOR_POINT, SPLITTING = 1e-9, 2.5e-9
# Seconds of Clarabel for an operation on a dense inequality, and for a coefficient of the primal program.
INEQUALITY, PRIMAL_ENTRY = 1e-10, 2e-7


@dataclass(frozen=True)
class Cost:
    """Seconds to compile the program and to factorise its matrix once."""

    compile: float = 0.0
    factorise: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.compile + other.compile, self.factorise + other.factorise)

    def check(self, coefficients: int) -> None:
        """Raise OutOfTime if the time that is left does not suffice.

        coefficients: of the program, for the message.
        """
        least, left = self.compile + self.factorise, seconds_left()
        if least > left:
            raise OutOfTime(
                f"the conic program has {coefficients} coefficients, and to compile it and factorise its matrix once "
                f"takes about {least:.2g} s, where {left:.2g} s are left"
            )

    @classmethod
    def of(cls, problem: Problem, map_: AdjointMap, interior_point: bool) -> "Cost":
        """Return the expected cost of G = A^* L and the objective of the dual program."""
        if map_.T is not None:
            return cls(COMPILED_ENTRY * map_.R.nnz)
        parts = 1 if interior_point or not problem.architecture.second_layer_is_identity else problem.c
        G, L = map_.R.shape
        rows = np.diff(map_.R.indptr).astype(float)
        columns = np.bincount(map_.R.indices, minlength=L).astype(float)
        G_first = rows @ rows + parts * (L / parts) ** 3 / 3
        L_first = columns @ columns + parts * (G / parts) ** 3 / 3
        each = INTERIOR_POINT if interior_point else SPLITTING
        return cls(COMPILED_ENTRY * map_.R.nnz, each * float(min(G_first, L_first)))

    @classmethod
    def of_inequalities(cls, count: int, size: int, pairs: int = 0, corner: int = 0) -> "Cost":
        """Return the cost that matrix inequalities of size x size add to an interior-point method.

        pairs: multipliers of pairs of facets in all of them, each with the coefficients of a corner x corner matrix.
        """
        triangle, entries = size * (size + 1) / 2, corner * (corner + 1) / 2
        operations = count * triangle**3 / 3 + pairs * entries**2
        return cls(COMPILED_ENTRY * pairs * corner**2, INEQUALITY * operations)

    @classmethod
    def of_primal(cls, map_: AdjointMap, facet_entries: int) -> "Cost":
        """Return the cost of the primal program.

        Its u and v have the coefficients of R and of the facets each.
        """
        entries = 2 * (map_.R.nnz + facet_entries)
        return cls(COMPILED_ENTRY * entries, PRIMAL_ENTRY * entries)
