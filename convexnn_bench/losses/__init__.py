"""Convex losses with gradient, conjugate and CVXPY expressions, one class a file."""

from convexnn_bench.losses._output_bias import OutputBias
from convexnn_bench.losses.base import BaseLoss, Curvature, Predictions, Scalar

__all__ = ["BaseLoss", "Curvature", "OutputBias", "Predictions", "Scalar"]
