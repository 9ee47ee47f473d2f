"""The ReLU cones K_k u >= 0: facets, nearest points, and decompositions."""

from convexnn_bench.cones.all_cones import Cones
from convexnn_bench.cones.facets import HULL_DIMENSIONS, reduce_rows, unattained
from convexnn_bench.cones.plane import PlaneCones
from convexnn_bench.cones.projection import EPS, least_distance, nearest_point, nonnegative_least_squares, unit_rows
