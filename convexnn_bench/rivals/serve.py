"""The rival's side of `convexnn_bench/algorithms/rival.py`. It runs in the rival's environment and imports only numpy.

Messages are JSON objects; an array follows the message that gives its shape, as float64 in C order.

    out  {"ready": version}                                            after the rival's imports
    in   {"problem": path of an .npz, "parameters": {...}}             in place of any tolerance, a further problem
    out  {"set_up": seconds}                                           conversion of the data, without reading them
    in   {"tolerance": t}, any number of times
    out  {"seconds": s, "words": w, "peak_mb": m, "shape": [...]}      then the array; s is of this solve alone
    out  {"error": words}                                              instead of any answer; then the process ends
"""

import ctypes
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

PR_SET_PDEATHSIG = 1  # linux/prctl.h

Solve = Callable[[float], tuple[np.ndarray, str]]
SetUp = Callable[[dict[str, np.ndarray], dict[str, Any]], Solve]


def serve(load: Callable[[], tuple[SetUp, str]]) -> None:
    """Answer on the connection whose descriptor is the last command line argument, until the other end closes it.

    load: imports the rival; returns `set_up` and the rival's version. set_up(data, parameters): takes Phi (N x p),
    Y (n_out x c), masks (N x P, bool) and beta; returns `solve`. solve(tolerance): goes on from its last point; returns
    the blocks P x p x q and the rival's words about them.
    """
    if sys.platform == "linux":
        # A parent that was killed can end nothing, and the rival may compute for hours before it reads again.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # end together with the parent process
    link = Connection(int(sys.argv[-1]))
    try:
        _answer(link, load)
    except EOFError:
        return  # the other end has closed the connection
    except Exception as error:
        traceback.print_exc()
        _send(link, error=" ".join(f"{type(error).__name__}: {error}".split())[:400])


def _answer(link: Connection, load: Callable[[], tuple[SetUp, str]]) -> None:
    set_up, version = load()
    _send(link, ready=version)
    asked = json.loads(link.recv_bytes())
    while True:
        if "problem" in asked:
            with np.load(asked["problem"]) as file:
                # An .npz file is read lazily. All arrays are read here, so that the clock does not count the disk.
                data = {name: file[name] for name in file.files}
            started = time.perf_counter()
            solve = set_up(data, asked["parameters"])
            _send(link, set_up=time.perf_counter() - started)
        else:
            started = time.perf_counter()
            blocks, words = solve(asked["tolerance"])
            # The clock stops before the answer is converted and sent: pipe and copy are not the rival's time.
            seconds = time.perf_counter() - started
            blocks = np.ascontiguousarray(blocks, dtype=np.float64)
            _send(link, seconds=seconds, words=words, peak_mb=_peak_mb(), shape=blocks.shape)
            link.send_bytes(blocks.tobytes())
        asked = json.loads(link.recv_bytes())


def _send(link: Connection, **message: Any) -> None:
    link.send_bytes(json.dumps(message).encode())


def _peak_mb() -> float | None:
    """Return the largest resident memory of this process in MiB, or None without /proc."""
    # ru_maxrss survives exec on Linux, so that it may be the parent's peak
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next(float(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
