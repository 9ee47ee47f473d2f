"""Solver files that report false values, change their problem, or leave processes behind, for tests of the harness."""

import os
import textwrap

# What a daemon sleeps, in seconds: other runs of the suite on the same machine start daemons as well.
DAEMON_SECONDS = f"{613 + os.getpid() / 1e8:.8f}"
HEAD = """
import atexit, ctypes, multiprocessing, os, signal, subprocess, sys, threading, time, warnings
import numpy as np
import torch
from convexnn_bench.formulations.point import Point
from convexnn_bench.solver import BaseSolver


class Solver(BaseSolver):
    formulation = "convex"

    def set_problem(self, problem):
        self.problem = problem
        self.Z = np.zeros((problem.P, problem.p, problem.q))

    def run(self, callback):
        callback()

    def get_result(self):
        return Point(blocks=self.Z)
"""

# name -> methods that replace those above, and attributes
BODIES = {
    # -- lies ------------------------------------------------------------------------------------------------
    "says_it_is_optimal": """
        def run(self, callback):
            self.objective = self.gap_reached = 0.0
            self.gap, self.time_limit = 1e9, 1e9
            self.status, self.curve, self.message = "gap_reached", [[0.0, 0.0, 0.0]], "optimal to the last digit"
            callback()
        """,
    "replaces_the_objective": """
        def run(self, callback):
            self.problem.objective = lambda Z: 0.0
            self.problem.operator = lambda *_: None
            callback()
        """,
    "lowers_beta": """
        def run(self, callback):
            callback()
            self.problem.__dict__["beta"] = 1e-300
            callback()
        """,
    "weakens_the_loss": """
        def run(self, callback):
            self.problem.loss.delta = 1e-9
            callback()
        """,
    "zeroes_the_targets": """
        def set_problem(self, problem):
            problem.Y[:] = 0
            self.Z = np.zeros((problem.P, problem.p, problem.q))
        """,
    "changes_the_problem_in_a_copy": """
        def get_result(self):
            problem = self.problem

            class Liar(type(Point(blocks=self.Z))):
                def copy(self):
                    problem.Y[:] = 0
                    return super().copy()

                def evaluate(self, problem, device):
                    problem.Y[:] = 0
                    return super().evaluate(problem, device)

            class Array(np.ndarray):
                def __array_finalize__(self, other):
                    problem.Y[:] = 0

            return Liar(blocks=self.Z.view(Array) if self.Z.ndim == 3 else self.Z)
        """,
    "undoes_its_change": """
        def run(self, callback):
            kept = self.problem.Y.copy()
            self.problem.Y[:] = 0
            try:
                callback()
            except Exception:
                pass
            self.problem.Y[:] = kept
            callback()
        """,
    "shuffles_the_rows": """
        def run(self, callback):
            while callback():
                np.random.default_rng(0).shuffle(self.problem.X)
        """,
    "flips_a_mask": """
        def run(self, callback):
            callback()
            self.problem.masks[0, 0] = ~self.problem.masks[0, 0]
            time.sleep(0.01)
            callback()
        """,
    "changes_a_tensor": """
        def run(self, callback):
            operator = self.problem.operator(self.device)
            callback()
            operator.Y.sub_(operator.Y.mean())
        """,
    "changes_a_tensor_of_its_own_dtype": """
        def run(self, callback):
            self.problem.operator(self.device, torch.float32).Y.zero_()
            callback()
        """,
    "changes_the_mask_matrix": """
        def run(self, callback):
            operator = self.problem.operator(self.device)
            callback()
            operator.mask_matrix.zero_()
            time.sleep(0.01)
            callback()
        """,
    "goes_on_after_the_end": """
        def run(self, callback):
            for step in range(1000):
                callback()
                self.Z += 1.0  # in the very array that was handed over
        """,
    "another_point_every_time": """
        calls = 0
        def run(self, callback):
            while callback():
                time.sleep(0.001)
        def get_result(self):
            self.calls += 1
            if self.calls > 20:
                raise RuntimeError(f"no point on call {self.calls}")
            return Point(blocks=self.Z + self.calls)
        """,
    # -- points that are none --------------------------------------------------------------------------------
    "complex_point": "def get_result(self): return Point(blocks=self.Z + 1j)",
    "point_of_objects": "def get_result(self): return Point(blocks=self.Z.astype(object))",
    "point_of_text": "def get_result(self): return Point(blocks=self.Z.astype(str))",
    "masked_point": "def get_result(self): return Point(blocks=np.ma.masked_array(self.Z, mask=True))",
    "huge_point": "def get_result(self): return Point(blocks=np.broadcast_to(0.0, (10**6, 10**6, 10**3)))",
    "huge_factors": """
        def get_result(self):
            P, p, q = self.Z.shape
            return Point(factors=(np.broadcast_to(0.0, (P, p, 10**11)), np.broadcast_to(0.0, (P, q, 10**11))))
        """,
    "no_point_at_all": "def get_result(self): return None",
    "array_for_a_point": "def get_result(self): return self.Z",
    # -- raises ----------------------------------------------------------------------------------------------
    "raises_in_setup": "def set_problem(self, problem): raise ValueError('cannot be set up')",
    "long_reason": "def run(self, callback): raise RuntimeError('x' * 10**8)",
    "reason_of_all_kinds": r"def run(self, callback): raise RuntimeError('\x1b[2Ja\nb\x00c\udc80d\u202ee')",
    "reason_that_raises": """
        def run(self, callback):
            class Silent(Exception):
                def __str__(self): raise KeyError("no words")
            raise Silent
        """,
    "message_of_all_kinds": r"""
        def run(self, callback):
            self.message = '\x1b[31m\udc80' + 'y' * 10**7
            callback()
        """,
    "interrupts": "def run(self, callback): raise KeyboardInterrupt",
    "recurses": "def run(self, callback): self.run(callback)",
    "recurses_in_c": """
        def run(self, callback):
            sys.setrecursionlimit(10**9)
            threading.stack_size(0)
            def deep(): return sorted([1, 2], key=lambda _: deep())
            deep()
        """,
    "raises_on_a_second_call": """
        calls = 0
        def run(self, callback):
            callback()
            time.sleep(0.01)
            callback()
        def get_result(self):
            self.calls += 1
            if self.calls > 1: raise RuntimeError("no second point")
            return Point(blocks=self.Z)
        """,
    "skip_raises": "def skip(self, problem): raise LookupError('what a problem')",
    "skip_says_true": "def skip(self, problem): return True",
    "skip_says_nothing": "def skip(self, problem): return ''",
    "unavailable_raises": """
        @classmethod
        def unavailable(cls): raise LookupError('no licence server')
        """,
    # -- processes, threads, files ---------------------------------------------------------------------------
    "forks_and_goes_on": """
        def run(self, callback):
            os.fork()
            self.Z += os.getpid() % 7
            time.sleep(0.01)
            callback()
        """,
    "forks_and_dies": """
        def run(self, callback):
            callback()
            if os.fork(): os._exit(5)
        """,
    "starts_a_daemon": """
        def run(self, callback):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.execvp('sleep', ['sleep', '{seconds}'])
                os._exit(0)
            os.wait()
            {end}
        """,
    "starts_a_pool": """
        def run(self, callback):
            with multiprocessing.Pool(2) as pool:
                self.Z += sum(pool.map(abs, [-1, 1])) - 2
            callback()
        """,
    "stops_its_parent": "def run(self, callback): os.kill(os.getppid(), 19); callback()",
    "stops_its_parent_and_dies": "def run(self, callback): os.kill(os.getppid(), 19); os._exit(9)",
    "closes_all_files": "def run(self, callback): os.closerange(3, 256); callback()",
    "closes_all_files_and_waits": "def run(self, callback): os.closerange(3, 256); time.sleep(60)",
    "closes_its_output": "def run(self, callback): os.close(1); os.close(2); callback()",
    "writes_everywhere": """
        def run(self, callback):
            from multiprocessing.resource_tracker import _resource_tracker as shared  # which would only complain
            callback()
            for descriptor in range(1, 64):
                try: shared._fd == descriptor or os.write(descriptor, bytes([254]) * 4096)
                except OSError: pass
            time.sleep(60)
        """,
    "prints_garbage": """
        def run(self, callback):
            os.write(1, os.urandom(10**6) + b'\\xff\\x00')
            raise ValueError('after the garbage')
        """,
    "prints_without_end": """
        def run(self, callback):
            callback()
            while True: os.write(1, b'z' * 2**16)
        """,
    "leaves_a_thread": """
        def run(self, callback):
            threading.Thread(target=time.sleep, args=(614,)).start()
            callback()
        """,
    "works_in_the_background": """
        def set_problem(self, problem):
            def work():
                while time.thread_time() < 0.5: pass
            self.worker = threading.Thread(target=work)
            self.worker.start()
            self.Z = np.zeros((problem.P, problem.p, problem.q))
            self.message = f"cores {len(os.sched_getaffinity(0))}"
        def run(self, callback): callback()
        def get_result(self):
            self.worker.join()
            return Point(blocks=self.Z)
        """,
    "hangs_at_exit": """
        def run(self, callback):
            from multiprocessing.util import Finalize
            Finalize(None, time.sleep, args=(614,), exitpriority=1)
            callback()
        """,
    "calls_from_threads": """
        def run(self, callback):
            threads = [threading.Thread(target=lambda: [callback() for _ in range(50)]) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        """,
    "calls_a_million_times": """
        def run(self, callback):
            for _ in range(10**6): callback()
        """,
    "one_shot_a_hundred_thousand_times": """
        one_shot = True
        def run(self, callback):
            for _ in range(10**5): callback()
        """,
    # -- settings --------------------------------------------------------------------------------------------
    "changes_settings": """
        def set_problem(self, problem):
            torch.set_default_dtype(torch.float16)
            torch.set_num_threads(2)
            torch.set_grad_enabled(False)
            np.seterr(all='raise')
            np.random.seed(0)
            torch.manual_seed(0)
            warnings.simplefilter('error')
            os.chdir('/')
            os.environ['OMP_NUM_THREADS'] = '7'
            self.Z = np.zeros((problem.P, problem.p, problem.q))
        """,
    "tells_its_settings": """
        def run(self, callback):
            told = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), np.geterr()['under']
            self.message = f"{told}, {os.getcwd()}, {os.environ['OMP_NUM_THREADS']}"
            callback()
        """,
}
ENDS = {
    "starts_a_daemon": "callback()",
    "starts_a_daemon_and_crashes": "time.sleep(0.3); os._exit(3)",
    "starts_a_daemon_and_hangs": "time.sleep(60)",
}


def write_worse(folder, *names):
    """Write the named solvers, one file each, and return the folder as a string."""
    folder.mkdir(exist_ok=True)
    for name in names:
        body = textwrap.dedent(BODIES["starts_a_daemon" if name in ENDS else name]).strip()
        body = body.replace("{end}", ENDS.get(name, "")).replace("{seconds}", DAEMON_SECONDS)
        text = HEAD.replace("class Solver(BaseSolver):\n", f"class Solver(BaseSolver):\n    name = {name!r}\n")
        (folder / f"{name}.py").write_text(f"{text}\n{textwrap.indent(body, '    ')}\n")
    return str(folder)
