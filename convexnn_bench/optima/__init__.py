"""The set of optima: the smallest network of a point, and the predictions of all global optima."""

from convexnn_bench.optima.minimal import minimal_network
from convexnn_bench.optima.optimal_set import OptimalSet, optimal_set
