"""What happens inside a cell's process. Answers go through the pipe as pairs (kind, content).

"start_memory_mb" MiB; "stage" words; "problem" its sizes; "setup_seconds" s; "point" (seconds, fields
of its certificate); "skip" (place, reason); "result" or "error" at the end, fields of the record.
"""

import contextlib
import math
import os
import traceback
from typing import TYPE_CHECKING, Any

from convexnn_bench.errors import ConvexNNError, UnsupportedError
from convexnn_bench.harness.process import Link
from convexnn_bench.harness.tree import resident_mb
from convexnn_bench.plugins.registry import SOLVERS
from convexnn_bench.records.records import one_line, plain

# in messages of exceptions that are no MemoryError: of torch on a CPU, of CUDA, and of cuBLAS and cuSOLVER
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")

if TYPE_CHECKING:
    from convexnn_bench.certificates import Certificate
    from convexnn_bench.harness.cell import Cell
    from convexnn_bench.problem import Problem
    from convexnn_bench.running.runner import Result


def _enter_cell(link: Link, threads: int, solvers_dir: str | None) -> None:
    """Pin the threads of libraries that are loaded already, and find the user's solvers."""
    import torch

    from convexnn_bench.harness.preload import BLAS

    BLAS.limit(limits=threads)
    torch.set_num_threads(threads)
    if solvers_dir is not None:
        SOLVERS.add_folder(solvers_dir)
    link.send(("start_memory_mb", resident_mb(os.getpid())[1]))


def describe_problem(problem: "Problem") -> dict[str, Any]:
    """Sizes and choices of a problem, for its record."""
    return {
        "n": problem.X.shape[0],
        "d": int(math.prod(problem.X.shape[1:])),
        "c": problem.c,
        "N": problem.N,
        "p": problem.p,
        "q": problem.q,
        "P": problem.P,
        "architecture": problem.architecture.name,
        "activation": problem.activation.name,
        "loss": problem.loss.name,
        "beta": problem.beta,
        "beta_max": problem.beta_max,
        "scope": problem.scope,
    }


def describe_certificate(certificate: "Certificate") -> dict[str, Any]:
    """What was proven of a point, as fields of a record."""
    return {
        "objective": certificate.primal,
        "lower_bound": certificate.dual,
        "gap": certificate.gap,
        "scope": certificate.scope,
        "infeasibility": certificate.infeasibility,
        "stationarity_bound": certificate.stationarity_bound,
        "stationarity_error": certificate.stationarity_error,
        "max_dual_norm": certificate.max_dual_norm,
        "dual_norm_lower": certificate.dual_norm_lower,
        "dual_norm_method": certificate.dual_norm_method,
    }


def describe_ranks(result: "Result") -> dict[str, int]:
    """How many blocks of the final point are not zero, their largest rank and the sum of their ranks.

    Nothing where there is no finite point in the convex program (a ReLU network that uses other patterns is none).
    """
    import torch

    from convexnn_bench.formulations.convex import ranks

    blocks = result.blocks if result.certificate is not None else None
    if blocks is None:
        return {}
    found = ranks(torch.as_tensor(blocks))
    return {
        "active_blocks": int((found > 0).sum()),
        "largest_rank": int(found.max()),
        "total_rank": int(found.sum()),
    }


def describe_result(result: "Result") -> dict[str, Any]:
    """The numbers of a result that go into its record; no arrays."""
    proven = {} if result.certificate is None else describe_certificate(result.certificate)
    return {
        **proven,
        **describe_ranks(result),
        "status": result.status,
        "reason": result.reason,
        "setup_seconds": result.setup_seconds,
        "solve_seconds": result.solve_seconds,
        "curve": [list(point) for point in result.curve],
    }


def cell_target(link: Link, threads: int, cell: "Cell") -> None:
    """Build the problem, solve it, send the numbers. Every exception is sent as an answer."""
    try:
        _enter_cell(link, threads, cell.solvers_dir)
        link.send(("stage", "building the problem"))
        problem = cell.make_problem()
        link.send(("problem", describe_problem(problem)))
        link.send(("stage", "set-up"))
        from convexnn_bench.running.runner import solve

        def set_up(seconds: float) -> None:
            link.send(("setup_seconds", seconds))
            link.send(("stage", "solving"))

        result = solve(
            problem,
            cell.solver,
            time_limit=cell.limits.time_limit,
            gap=cell.limits.gap,
            seed=cell.seed,
            device=cell.device,
            on_setup=set_up,
            on_score=lambda seconds, scored: link.send(("point", (seconds, plain(describe_certificate(scored))))),
            **cell.solver_parameters,
        )
        link.send(("result", plain(describe_result(result))))
    except BaseException as error:
        link.send(("error", _answer(error)))


def probe_target(link: Link, threads: int, cells: "list[Cell]") -> None:
    """Build the problem that all cells share and ask each solver whether it skips it."""
    try:
        _enter_cell(link, threads, cells[0].solvers_dir)
        from convexnn_bench.solver import reason_to_skip

        problem = cells[0].make_problem()
        link.send(("problem", describe_problem(problem)))
        for number, cell in enumerate(cells):
            try:
                reason = reason_to_skip(SOLVERS.make(cell.solver, **cell.solver_parameters), problem)
            except Exception as error:  # the cell itself will say so; the others are still asked
                traceback.print_exception(error)
                continue
            if reason is not None:
                link.send(("skip", (number, reason)))
    except BaseException as error:
        link.send(("error", _answer(error)))


def _answer(error: BaseException) -> dict[str, Any]:
    """Status and one line for an exception; the traceback goes to what the process printed."""
    with contextlib.suppress(BaseException):  # standard error may be closed, and a message may fail to be made
        traceback.print_exception(error)
    try:
        text = one_line(str(error))
    except Exception:
        text = "(its message cannot be shown)"
    reason = text if isinstance(error, ConvexNNError) else f"{type(error).__name__}: {text}".rstrip(": ")
    if isinstance(error, UnsupportedError):
        status = "skipped"
    elif isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        status = "memory_limit"
    else:
        status = "failed"
    return {"status": status, "reason": reason, "expected": isinstance(error, ConvexNNError)}
