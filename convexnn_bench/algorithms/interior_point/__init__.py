"""A primal-dual interior-point method on the dual in n_out c variables (interior_point)."""

from convexnn_bench.algorithms.interior_point.method import InteriorPoint
from convexnn_bench.algorithms.interior_point.route import reason_against
