"""The command in a process of its own, for tests that kill it, fill its disk, or look for what it left behind."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

COMMAND = [sys.executable, "-m", "convexnn_bench"]
MARK = "CONVEXNN_BENCH_TEST"


class Command:
    """A command under way. Every process it starts carries a mark of its own in its environment."""

    def __init__(self, *arguments, stderr=subprocess.PIPE, environment=None, preexec_fn=None, **options):
        def heeding_interrupts():
            """As in a terminal: what a shell starts in the background ignores SIGINT, and so does all it starts."""
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if preexec_fn is not None:
                preexec_fn()

        self.mark = f"{MARK}={uuid.uuid4()}"
        name, value = self.mark.split("=")
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=stderr, text=True,
            env={**os.environ, "PYTHONPATH": paths, name: value, **(environment or {})},
            preexec_fn=heeding_interrupts, **options,
        )  # fmt: skip

    def finish(self, timeout=600.0):
        """(exit code, what it printed, what it said on stderr)."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def left(self):
        """Processes of this command that are there still: pid and command line."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    marked = self.mark.encode() in (folder / "environ").read_bytes().split(b"\0")
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:  # it has ended, or is another user's
                    continue
                if marked:
                    found[int(folder.name)] = line
        return found

    def gone(self, seconds=300.0):
        """Whether all its processes end within some seconds."""
        until = time.monotonic() + seconds
        while self.left():
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True


def run(*arguments, **options):
    """(exit code, stdout, stderr) of a command that is waited for."""
    return Command(*arguments, **options).finish()


def wait_until(true, seconds=300.0, every=0.01):
    """Raises AssertionError when it does not become true in time."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come in time"
        time.sleep(every)
