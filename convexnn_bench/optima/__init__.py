"""Smallest networks with given predictions, and the set of all global optima."""

from convexnn_bench.optima.minimal import minimal_network
from convexnn_bench.optima.optimal_set import OptimalSet, optimal_set
