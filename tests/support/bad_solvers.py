"""Solver files that misbehave, written into a folder for the tests of the harness."""

HEAD = """
import ctypes, os, subprocess, sys, time
import numpy as np
import torch
from convexnn_bench.formulations.point import Point
from convexnn_bench.solver import BaseSolver


class Solver(BaseSolver):
    name = "{name}"
    formulation = "convex"

    def set_problem(self, problem):
        self.Z = np.zeros((problem.P, problem.p, problem.q))
        {setup}

    def run(self, callback):
        callback()
        {run}

    def get_result(self):
        return Point(blocks={point})
"""

BODIES = {
    "zero": {},
    "hangs": {"run": "time.sleep(600)"},
    "spins": {"run": "ctypes.CDLL(None).sleep(600)"},  # in C, deaf to Python
    "hangs_in_setup": {"setup": "time.sleep(600)"},
    "exits": {"run": "os._exit(7)"},
    "exits_quietly": {"run": "sys.exit(0)"},
    "raises": {"run": "raise RuntimeError('the step size is\\nwrong')"},
    "segfaults": {"run": "ctypes.string_at(0)"},
    "is_killed": {"run": "os.kill(os.getpid(), 9)"},
    "not_finite": {"point": "self.Z * np.nan"},
    "wrong_shape": {"point": "self.Z[:, :, :0]"},
    "no_point": {"point": "None"},
    "fills_memory": {"run": "self.hog = [np.ones(2**21) for i in range(2000) if not time.sleep(0.01)]"},
    "child_fills_memory": {
        "run": "import subprocess, sys; "
        "code = 'import time; x = bytearray(2**31); x[::4096] = bytes([1]) * 2**19; time.sleep(9)'; "
        "subprocess.run([sys.executable, '-c', code])"
    },
    "out_of_memory": {"run": "raise MemoryError"},
    "chatters": {"run": "print('x' * 10**6); print('y' * 10**6, file=sys.stderr); os.system('echo loud')"},
    "leaves_a_child": {"run": "subprocess.Popen(['sleep', '612.5'])"},
    "kills_what_watches_it": {  # the process that runs cells: the parent of the fork server
        "run": "open(__file__.rpartition('/')[0] + '/runs', 'a').write('x\\n'); "
        "watcher = int(open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()[1]); os.kill(watcher, 9); "
        "time.sleep(60)",
    },
    "skips": {"run": "pass", "skip": True},
}


def write_solvers(folder, *names):
    """Write the named solvers, one file each, and return the folder as a string."""
    folder.mkdir(exist_ok=True)
    for name in names:
        body = {"setup": "pass", "run": "pass", "point": "self.Z", **BODIES[name]}
        text = HEAD.format(name=name, **{key: body[key] for key in ("setup", "run", "point")})
        if body.get("skip"):
            text += "\n    def skip(self, problem):\n        return f'made for other problems than P = {problem.P}'\n"
        (folder / f"{name}.py").write_text(text)
    return str(folder)
