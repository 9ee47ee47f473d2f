"""Newton's method on the Burer-Monteiro factors over a working set of blocks (bm_newton)."""

from convexnn_bench.algorithms.newton.neurons import BlockNeurons
from convexnn_bench.algorithms.newton.point import PointState
from convexnn_bench.algorithms.newton.working_problem import WorkingProblem
from convexnn_bench.algorithms.newton.working_set import WorkingSetNewton
