"""The convex program stated for conic solvers, and the Burer-Monteiro program for nonlinear ones, through CVXPY."""

from convexnn_bench.algorithms.conic.factorised import FactorisedSolver
from convexnn_bench.algorithms.conic.infinite_width import infinite_width_program
from convexnn_bench.algorithms.conic.maps import adjoint_map
from convexnn_bench.algorithms.conic.mosek import mosek_backend, mosek_missing, mosek_parameters
from convexnn_bench.algorithms.conic.program import (
    ConicProgram,
    dual_program,
    only_second_order,
    primal_cone_program,
    split_point,
)
from convexnn_bench.algorithms.conic.solver import ConicSolver
