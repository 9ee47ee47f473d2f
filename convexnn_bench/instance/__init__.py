"""One instance of the training problem: data, blocks and beta, and instances that are made from it."""

from convexnn_bench.instance.checks import check_target_rows
from convexnn_bench.instance.instance import Instance
