"""Give each cell as many cores as it asks for threads.

No core is given to two cells while another one is free.

Threads that a solver starts beside those it was allowed then take their time from its own clock.
"""

import contextlib
import os
import random
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def reserved_cores(number: int) -> Iterator[list[int] | None]:
    """Yield numbers of cores that no other cell of this machine is given inside the block.

    Where fewer cores are free, the rest are cores of other cells. None where cores cannot be chosen (macOS).
    """
    if not hasattr(os, "sched_getaffinity"):
        yield None
        return
    allowed = list(os.sched_getaffinity(0))
    random.shuffle(allowed)
    with contextlib.ExitStack() as held:
        free: list[int] = []
        for core in allowed:
            if len(free) == number:
                break
            # A name in Linux's abstract namespace of sockets belongs to one process of the machine. It needs no file,
            # and is free again when its process has ended in whatever way.
            mark = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            with contextlib.suppress(OSError):  # another cell has it
                mark.bind(f"\0convexnn-bench/core/{core}")
                free.append(core)
        others = [core for core in allowed if core not in free]
        yield sorted(free + others[: number - len(free)])
