"""Where cells run, one executor per file."""

from convexnn_bench.harness.executors.base import BaseExecutor, Events, Job
from convexnn_bench.harness.executors.local import LocalExecutor
