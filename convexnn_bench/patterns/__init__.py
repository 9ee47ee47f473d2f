"""Count, enumerate and sample the activation patterns of a layer."""

from convexnn_bench.patterns.blocks import Patterns, patterns_from_masks, patterns_of_rows, with_scaled_feature
from convexnn_bench.patterns.enumeration import EnumerationCost, count_patterns, enumerate_patterns, enumeration_cost
from convexnn_bench.patterns.sampling import patterns_of_neurons, sample_patterns
