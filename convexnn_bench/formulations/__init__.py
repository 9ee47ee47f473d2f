"""The three statements of one problem: objectives, start points, and maps."""

from convexnn_bench.formulations import burer_monteiro, convex, network
from convexnn_bench.formulations.burer_monteiro import balance
from convexnn_bench.formulations.conversion import converted
from convexnn_bench.formulations.convex import ranks
from convexnn_bench.formulations.evaluation import Evaluation
from convexnn_bench.formulations.point import ConvexPoint, FactoredPoint, Point
