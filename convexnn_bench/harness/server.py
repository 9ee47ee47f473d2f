"""Imported by the process server only: load what every cell needs, and kill everything when the command is gone.

The server ends when the command has died, by whatever signal. Its cells die with it, and what these have started is
killed here.
"""

import atexit
import os

from convexnn_bench.harness import inside, preload  # noqa: F401
from convexnn_bench.harness.tree import kill_below

_SERVER = os.getpid()


@atexit.register
def _end() -> None:
    if os.getpid() == _SERVER:  # a forked process inherits this function
        kill_below(_SERVER)
