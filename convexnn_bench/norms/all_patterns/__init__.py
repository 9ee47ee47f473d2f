"""Bounds on the dual norm over every activation pattern of a ReLU network at once."""

from convexnn_bench.norms.all_patterns.ascent import ascend
from convexnn_bench.norms.all_patterns.bounds import CompleteNorm
from convexnn_bench.norms.all_patterns.decision_rule import Adam, Rule
from convexnn_bench.norms.all_patterns.free_bias import FreeBiasNorm
from convexnn_bench.norms.all_patterns.moving_rules import MovingBound
