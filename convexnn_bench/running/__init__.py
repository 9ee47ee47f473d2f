"""Run one solver on one problem in this process: clock, scores and result."""

from convexnn_bench.running.arguments import check_arguments, check_device
from convexnn_bench.running.describe import describe_certificate, describe_problem, describe_result, describe_scores
from convexnn_bench.running.loading import load_result
from convexnn_bench.running.result import Result
from convexnn_bench.running.runner import solve
from convexnn_bench.running.untouched import Untouched
