"""Estimate the least time of a conic solver: to compile its program, and for one factorisation.

A factorisation is one call into compiled code, which no time limit interrupts. If it would take longer than the time
that is left, the solver is therefore not started.

The flat map vec(G) = R vec(L) couples the entries of L and those of G. Eliminating G first, each row of R with r
entries costs r^2 operations, and the matrix of the n_out c entries of L that remains is dense. Eliminating L first, the
same holds for the columns of R and the matrix of the P p q entries of G. An interior-point method couples the outputs
through the norms of the blocks. A splitting method does not, so that the dense matrix splits into one for each output
if C is the identity. With the tree in place of the flat map the matrices are sparse and the cost is small.
"""

from dataclasses import dataclass

import numpy as np

from convexnn_bench.algorithms.conic.maps import AdjointMap
from convexnn_bench.problem import Problem

# Seconds that CVXPY takes to compile an entry of R, and seconds for an operation of the sparse factorisations of
# Clarabel (interior point) and SCS (splitting), measured on one core on the dual programs of benchmarks/time_limits.py.
COMPILED_ENTRY = 3e-7
INTERIOR_POINT, SPLITTING = 1e-9, 2.5e-9


@dataclass(frozen=True)
class Cost:
    """Seconds to compile the program and to factorise its matrix once."""

    compile: float = 0.0
    factorise: float = 0.0

    @classmethod
    def of(cls, problem: Problem, map_: AdjointMap, interior_point: bool) -> "Cost":
        """Return the expected cost of the program with this map."""
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
