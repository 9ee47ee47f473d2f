"""Convex losses with gradient, conjugate and CVXPY expressions, one class per file."""

from convexnn_bench.losses._options import (
    OUTPUT_BIASES,
    plain_loss,
    weighted_part,
    with_output_bias,
    with_sample_weight,
)
from convexnn_bench.losses._output_bias import OutputBias
from convexnn_bench.losses._targets import read_targets
from convexnn_bench.losses._weights import WeightedLoss
from convexnn_bench.losses.base import BaseLoss, Curvature, Predictions, Scalar
from convexnn_bench.losses.cross_entropy import CrossEntropy
from convexnn_bench.losses.huber import Huber
from convexnn_bench.losses.logistic import Logistic
from convexnn_bench.losses.squared import Squared
from convexnn_bench.losses.squared_hinge import SquaredHinge
