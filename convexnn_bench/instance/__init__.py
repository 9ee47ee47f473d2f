"""One instance of the training problem: data, blocks and beta, and its variants."""

from convexnn_bench.instance.checks import check_target_rows
from convexnn_bench.instance.instance import Instance
