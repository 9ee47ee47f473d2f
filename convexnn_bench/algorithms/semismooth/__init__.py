"""A semismooth Newton augmented Lagrangian method on the convex program (semismooth_newton)."""

from convexnn_bench.algorithms.semismooth.method import SemismoothNewton
