"""Newton on the faces of the ReLU cones.

This is how a descent solver ends at a certified point of a ReLU problem.
"""

from convexnn_bench.algorithms.relu.finish import ReportPoint, affordable, finish_factors, finish_network
from convexnn_bench.algorithms.relu.pricing import padded_rows
