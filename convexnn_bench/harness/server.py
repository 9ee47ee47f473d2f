"""Imported by the process server alone: what every cell starts with, and an end to all cells when the command is gone.

The server notices that the command has died, by whatever signal, and ends. Its cells would die with it; what they had
started would not.
"""

import atexit
import os

from convexnn_bench.harness import inside, preload  # noqa: F401
from convexnn_bench.harness.tree import kill_below

_SERVER = os.getpid()


@atexit.register
def _end() -> None:
    if os.getpid() == _SERVER:  # not in what was forked from it
        kill_below(_SERVER)
