"""What happens inside the process of a cell. It answers through the pipe with pairs (kind, content):

- "start_memory_mb": its memory in MiB before the data come; "stage": what it is about to do, in words;
- "problem": fields of the problem; "setup_seconds"; "skip": (index of the cell, reason);
- "point": (seconds, fields of a record), for each point that was scored;
- "result" or "error": fields of the record; after a result "scores", those of the point on held-out samples.
"""

import contextlib
import os
import traceback
from typing import Any

import torch

from convexnn_bench.datasets import make_problem
from convexnn_bench.errors import ConvexNNError, UnsupportedError
from convexnn_bench.harness.cell import SCORING, Cell
from convexnn_bench.harness.child import Link
from convexnn_bench.harness.preload import BLAS
from convexnn_bench.harness.tree import resident_mb
from convexnn_bench.plugins import SOLVERS, add_plugins
from convexnn_bench.records import one_line, plain
from convexnn_bench.running import (
    Result,
    check_device,
    describe_certificate,
    describe_problem,
    describe_result,
    describe_scores,
    solve,
)
from convexnn_bench.solver import reason_to_skip

# Texts in exceptions that are no MemoryError and mean the same: from torch on a CPU, CUDA, cuBLAS and cuSOLVER.
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")


def _enter_cell(link: Link, threads: int, cell: Cell) -> None:
    """Limit the threads of the libraries that the server has loaded, and register the user's plug-ins."""
    # Environment variables come too late for these libraries: they read them once, when they load.
    BLAS.limit(limits=threads)
    torch.set_num_threads(threads)
    add_plugins(cell.solvers_dir, cell.plugins_dir)
    # The data do not exist yet, so the peak above this number belongs to the problem and its solver.
    link.send(("start_memory_mb", resident_mb(os.getpid())[1]))


def cell_target(link: Link, threads: int, cell: Cell, cores: list[int] | None = None) -> None:
    """Build the problem, solve it and send the numbers. Every exception is sent as an answer.

    cores: the process and what it starts run on these only; None for all.
    """
    try:
        # A GPU's driver has threads of its own, which must not wait for the thread that launches its work.
        if cores and cell.device == "cpu":
            with contextlib.suppress(OSError):  # the machine has taken these cores away since
                os.sched_setaffinity(0, cores)
        _enter_cell(link, threads, cell)
        link.send(("stage", "building the problem"))
        problem = make_problem(cell.dataset, **cell.problem_arguments)
        link.send(("problem", describe_problem(problem)))
        link.send(("stage", "set-up"))

        def set_up(seconds: float) -> None:
            link.send(("setup_seconds", seconds))
            link.send(("stage", "solving"))

        # `plain` leaves only Python's own types in what is sent, which the command can unpickle without torch.
        result = solve(
            problem,
            cell.solver,
            time_limit=cell.limits.time_limit,
            gap=cell.limits.gap,
            iterations=cell.limits.iterations,
            verified=cell.limits.verified,
            seed=cell.seed,
            device=cell.device,
            on_setup=set_up,
            on_score=lambda seconds, scored: link.send(("point", (seconds, plain(describe_certificate(scored))))),
            **cell.solver_parameters,
        )
        link.send(("result", plain(describe_result(result))))
        if problem.held_out is not None:
            link.send(("stage", SCORING))
            link.send(("scores", plain(_scores(result))))
    except BaseException as error:
        link.send(("error", _answer(error)))


def _scores(result: Result) -> dict[str, Any]:
    """Return the test scores, or after an error its reason; the certificate stays valid."""
    try:
        return describe_scores(result)
    except Exception as error:
        return {"reason": f"{result.reason}; no test scores: {_answer(error)['reason']}"}


def probe_target(link: Link, threads: int, cells: list[Cell]) -> None:
    """Build the problem that all cells share, and ask each solver whether it skips it."""
    try:
        _enter_cell(link, threads, cells[0])
        problem = make_problem(cells[0].dataset, **cells[0].problem_arguments)
        link.send(("problem", describe_problem(problem)))
        for index, cell in enumerate(cells):
            try:
                # A solver decides from the problem itself, which is why the problem has to be built before anything is
                # skipped.
                reason = reason_to_skip(SOLVERS.make(cell.solver, **cell.solver_parameters), problem)
            except Exception as error:  # the cell will report it; the others are still asked
                traceback.print_exception(error)
                continue
            if reason is not None:
                link.send(("skip", (index, reason)))
    except BaseException as error:
        link.send(("error", _answer(error)))


def device_target(link: Link, threads: int, device: str) -> None:
    """Send an error where torch does not see the device."""
    try:
        check_device(device)
    except BaseException as error:
        link.send(("error", _answer(error)))


def _answer(error: BaseException) -> dict[str, Any]:
    """Return the status and a reason in one line for an exception; print its traceback.

    "expected" is True for errors of this package, which need no traceback.
    """
    with contextlib.suppress(BaseException):  # standard error may be closed, and str(error) may raise
        traceback.print_exception(error)
    try:
        text = one_line(str(error))
    except Exception:
        text = "(its message cannot be shown)"
    reason = text if isinstance(error, ConvexNNError) else f"{type(error).__name__}: {text}".rstrip(": ")
    # A solver that finds out in the middle that it does not cover the problem counts as one that skipped it.
    if isinstance(error, UnsupportedError):
        status = "skipped"
    elif isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        status = "memory_limit"
    else:
        status = "failed"
    return {"status": status, "reason": reason, "expected": isinstance(error, ConvexNNError)}
