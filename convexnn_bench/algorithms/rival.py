"""Other people's solvers on the same program, each with an environment and a process of its own.

The process starts and imports in `load_packages`, which no clock counts. It converts the data in `set_problem`, and in
`run` it solves and answers with the blocks; rivals/serve.py describes the messages. The pipe costs about a millisecond
a point, and the solver's message quotes the rival's own clock. The process ends with the solver object. A solver object
that solves again goes on with its process, so that what numba compiled in it is compiled once.
"""

import json
import os
import subprocess
import tempfile
import time
import weakref
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.errors import ConvexNNError
from convexnn_bench.formulations import Point
from convexnn_bench.losses import BaseLoss, OutputBias, weighted_part
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback, Choice, Number

PACKAGE = Path(__file__).parents[1]
START_SECONDS = 120.0  # limit for the rival's imports
OUTPUT_TAIL = 400  # characters of a dead process's output that an error quotes
LOOSEST = 1e-2  # the tolerance that `path` starts with
# no rival reads the other variables that the harness sets
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Blocks = Float[np.ndarray, "P p q"]


class NoAnswer(Exception):
    """The process gave no answer in time and was killed."""


def environments() -> Path:
    """Return the folder of the rivals' environments: $CONVEXNN_RIVALS, else the checkout's .rivals, else the user's."""
    chosen = os.environ.get("CONVEXNN_RIVALS")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if (PACKAGE.parent / "pyproject.toml").is_file():
        return PACKAGE.parent / ".rivals"
    return Path(os.path.expanduser("~")) / ".local" / "share" / "convexnn-bench" / "rivals"


class RivalProcess:
    """A rival in its own process: `set_up`, `solve` for one tolerance after another, `set_up` again, and `close`.

    Its methods raise ConvexNNError if the process ends, sends an invalid answer or reports an exception.
    """

    def __init__(self, name: str, python: Path, script: Path, threads: int, seconds: float = START_SECONDS):
        self.name, self.command = name, (python, script, threads)
        self._waiting = False  # for an answer
        folder = tempfile.TemporaryDirectory(prefix="convexnn-rival-")
        self._folder = Path(folder.name)
        self._link, far = Pipe()
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        environment.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
        with far, (self._folder / "output").open("wb") as output:
            process = subprocess.Popen(
                [str(python), str(script), str(far.fileno())],
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=environment,
            )
        self._process = process
        self.close = weakref.finalize(self, _end, process, self._link, folder)  # also when this object is deleted
        self.version = str(self._answer("ready", seconds, "importing")["ready"])

    def runs(self, command: tuple[Path, Path, int]) -> bool:
        """Return whether the process was started by `command`, is alive, and owes no answer."""
        return self.command == command and self.close.alive and self._process.poll() is None and not self._waiting

    def set_up(self, problem: Problem, parameters: dict[str, Any]) -> float:
        """Send the problem; return the seconds that the rival took to convert it."""
        path = self._folder / "problem.npz"
        np.savez(path, Phi=problem.Phi, Y=problem.Y, masks=problem.masks, beta=problem.beta)
        self._send(problem=str(path), parameters=parameters)
        seconds = float(self._answer("set_up", None, "setting up")["set_up"])
        self._waiting = False
        return seconds

    def solve(self, tolerance: float, shape: tuple[int, int, int], seconds: float | None) -> tuple[Blocks, dict]:
        """Return the blocks, and the rival's own words and numbers about them. Raise NoAnswer after `seconds`."""
        self._send(tolerance=tolerance)
        answer = self._answer("shape", seconds, "solving")
        raw = self._receive(seconds, "solving")
        if tuple(answer["shape"]) != shape or len(raw) != 8 * int(np.prod(shape)):
            self.close()
            raise ConvexNNError(
                f"{self.name} answered with blocks of shape {answer['shape']} in {len(raw)} bytes; expected P x p x q "
                f"= {' x '.join(map(str, shape))} in float64"
            )
        self._waiting = False
        return np.frombuffer(raw, dtype=np.float64).reshape(shape), answer

    def _send(self, **message: Any) -> None:
        self._waiting = True  # an exception that interrupts this call leaves an answer in the pipe
        try:
            self._link.send_bytes(json.dumps(message).encode())
        except OSError:  # the process has ended: reading its last answer raises the reason
            self._answer("", 0.0, "waiting")

    def _answer(self, key: str, seconds: float | None, doing: str) -> dict[str, Any]:
        """Return the next message, which must contain `key`."""
        raw = self._receive(seconds, doing)
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and key in answer:
            return answer
        error = answer.get("error") if isinstance(answer, dict) else None
        self.close()
        raise ConvexNNError(f"{self.name} failed while {doing}: {error or f'it answered {raw[:80]!r}'}")

    def _receive(self, seconds: float | None, doing: str) -> bytes:
        try:
            if self._link.poll(seconds):
                return self._link.recv_bytes()
        except (EOFError, OSError):
            code = self._process.wait()
            printed = (self._folder / "output").read_bytes().decode(errors="replace")
            self.close()
            tail = " ".join(printed.split())[-OUTPUT_TAIL:]
            output = f"it printed: {tail}" if tail else "it printed nothing"
            raise ConvexNNError(f"{self.name} ended with exit code {code} while {doing}; {output}") from None
        self.close()
        raise NoAnswer(f"{self.name} gave no answer within {seconds:g} s while {doing}")


def _end(process: subprocess.Popen, link: Any, folder: tempfile.TemporaryDirectory) -> None:
    process.kill()
    process.wait()
    link.close()
    folder.cleanup()


class RivalSolver(BaseSolver):
    """The base class of the rivals. They run on the CPU whatever `device` says, with as many threads as torch.

    A subclass defines `rival` (the folder of its environment), `package` (which must be installed there), `losses`, and
    `relu` (why it skips problems with cones). With `has_output_bias`, it fits a free output bias. tolerance: the one of
    the rival, in its own units. path: solve for 1e-2, 1e-3, ... down to `tolerance`, each from the last point, and
    score all points; otherwise solve once, from zero.
    """

    formulation = "convex"
    parameters = {"tolerance": [1e-6], "path": [False]}
    allowed = {"tolerance": Number(), "path": Choice((True, False))}
    tolerance: float
    path: bool
    rival: str
    package: str
    losses: tuple[str, ...]
    has_output_bias: bool = False
    start_seconds: float = START_SECONDS  # limit for imports, and for what is compiled with them
    relu: str
    _process: RivalProcess

    def __init__(self, **parameters: Any):
        super().__init__(**parameters)
        self.one_shot = not self.path

    @classmethod
    def python(cls) -> Path:
        """Return the interpreter of the rival's environment."""
        return environments() / cls.rival / "bin" / "python"

    @classmethod
    def script(cls) -> Path:
        """Return the script that the interpreter runs."""
        return PACKAGE / "rivals" / f"run_{cls.rival}.py"

    @classmethod
    def unavailable(cls) -> str | None:
        folder = cls.python().parents[1]
        if cls.python().is_file() and any(folder.glob(f"lib/python*/site-packages/{cls.package}")):
            return super().unavailable()
        return (
            f"no environment with {cls.package} in {folder}: run `make rivals` in a checkout, or set CONVEXNN_RIVALS "
            "to the folder that it made"
        )

    def skip(self, problem: Problem) -> str | None:
        architecture = problem.architecture.name
        if architecture != "mlp":
            return f"{self.rival} supports the architecture mlp only, and this is {architecture}"
        if problem.is_sparse:
            return f"{self.rival} is handed X as a dense array, and this X is sparse: give X.toarray()"
        if self._loss(problem).name not in self.losses:
            return f"{self.rival} has the loss {' and '.join(self.losses)} only, and this is {problem.loss.name}"
        if problem.q > 1:
            return (
                f"with q = {problem.q} outputs the block norm is the nuclear norm; {self.rival} has group lasso "
                "penalties, which make another program: give it one output"
            )
        return self.relu if problem.has_cone else super().skip(problem)

    def _loss(self, problem: Problem) -> BaseLoss:
        """Return the loss without the free output bias, which the rival fits."""
        loss = problem.loss
        free = self.has_output_bias and isinstance(loss, OutputBias) and loss.beta is None
        return weighted_part(loss) if free else loss

    def options(self, problem: Problem) -> dict[str, Any]:
        """Return further parameters for the rival's script, beside `threads` and `loss`."""
        return {}

    def gap_tolerance(self) -> float:
        # Rivals stop when squares of steps or of subgradients, or a duality gap, are small.
        return float(np.sqrt(self.tolerance))

    def load_packages(self) -> None:
        super().load_packages()
        command = (self.python(), self.script(), torch.get_num_threads())
        if hasattr(self, "_process") and self._process.runs(command):
            return
        try:
            self._process = RivalProcess(self.rival, *command, self.start_seconds)
        except NoAnswer as error:
            raise ConvexNNError(str(error)) from None

    def set_problem(self, problem: Problem) -> None:
        """Send Phi, Y, the masks and beta. Before the first answer the blocks are zero, where all rivals start."""
        self.problem, self._shape = problem, (problem.P, problem.p, problem.q)
        self._blocks: Blocks = np.zeros(self._shape)
        threads = torch.get_num_threads()
        parameters = {"threads": threads, "loss": self._loss(problem).name, **self.options(problem)}
        self._setup_seconds = self._process.set_up(problem, parameters)

    def run(self, callback: Callback) -> None:
        """Solve for each tolerance. If the time runs out, kill the rival and keep its last point."""
        tolerances, spent = [self.tolerance], 0.0
        while self.path and tolerances[0] < LOOSEST / 1.001:
            tolerances.insert(0, min(10 * tolerances[0], LOOSEST))
        own = 0.0
        for tolerance in tolerances:
            left = None if self.time_limit is None else max(self.time_limit - spent, 0.0)
            started = time.perf_counter()
            try:
                self._blocks, answer = self._process.solve(tolerance, self._shape, left)
            except NoAnswer as error:
                self.message = str(error)
                callback()
                return
            spent, own = spent + time.perf_counter() - started, own + answer["seconds"]
            self.message = self._words(own, answer)
            if not callback():
                return

    def _words(self, own: float, answer: dict[str, Any]) -> str:
        peak = answer["peak_mb"]
        return (
            f"{self.rival} {self._process.version}: set-up {self._setup_seconds:.4g} s and solve {own:.4g} s by its "
            f"own clock, {answer['words']}" + (f", peak memory {peak:.0f} MiB" if peak is not None else "")
        )

    def get_result(self) -> Point:
        return Point(blocks=self._blocks.copy())
