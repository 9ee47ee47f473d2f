"""Run one solver on one problem in this process."""

import time
from collections.abc import Callable
from typing import Any

import torch

from convexnn_bench import parallel
from convexnn_bench.certificates import Certificate, PointLike
from convexnn_bench.errors import UnsupportedError
from convexnn_bench.plugins import SOLVERS
from convexnn_bench.problem import Problem
from convexnn_bench.proofs import check_verifiable
from convexnn_bench.running.arguments import check_arguments, check_callbacks
from convexnn_bench.running.monitor import OnScore
from convexnn_bench.running.result import Result
from convexnn_bench.running.settings import settings_kept
from convexnn_bench.running.sharing import shared_where_possible
from convexnn_bench.running.start import read_start
from convexnn_bench.running.timed_run import TimedRun
from convexnn_bench.running.untouched import Untouched
from convexnn_bench.running.wait import Wait
from convexnn_bench.solver import BaseSolver, reason_to_skip
from convexnn_bench.terminal import progress


def solve(
    problem: Problem,
    solver: str | BaseSolver | type[BaseSolver] = "auto",
    time_limit: float | None = 60.0,
    gap: float | None = 1e-6,
    seed: int = 0,
    device: str | torch.device = "cpu",
    *,
    start: PointLike | None = None,
    iterations: int | None = None,
    verified: bool = False,
    on_score: OnScore | None = None,
    on_setup: Callable[[float], None] | None = None,
    show_progress: bool = True,
    **parameters: Any,
) -> Result:
    """Solve a problem and certify the point that the solver returns.

    Parameters
    ----------
    problem : Problem
        The training problem.
    solver : str or BaseSolver
        A registered name, with parameters in brackets if wanted ("bm_lbfgs[m=2]"), or an instance. "auto" runs the
        solver that is predicted to be the quickest for this problem, and lets another one go on at its point where the
        gap stops falling. It takes no parameters. `result.solver` names the solver of the final point, and
        `result.reason` says what was chosen and why.
    time_limit : float, optional
        Seconds to wait. The solver is stopped after so many seconds of solving, and earlier if set-up and scoring take
        long: `solve` returns within 1.2 `time_limit` + 1 s, the last certificate included. A single call into compiled
        code is not interrupted, and packages that are imported for the first time count for half of the limit at most.
        None for no limit.
    gap : float, optional
        Certified relative gap at which the solver is stopped. None lets it run to its own end.
    seed : int
        Seed of the start point, or of the random columns and neurons that a solver adds to `start`.
    device : str or torch.device
        "cpu", "cuda" or "cuda:0".
    start : Result, Point, array, pair of arrays or torch.nn.Module, optional
        Where an iterative solver begins: a result on the same data and masks (of another solver, another formulation,
        another beta or another loss), blocks (P x p x q), factors (U, V), network weights (W1, W2), or a torch module
        without biases. It is converted to the solver's formulation and certified before the set-up: a start that is
        within the gap is returned at once, with status "gap_reached". Its bound holds for all later points.
    iterations : int, optional
        Steps after which an iterative solver is stopped, with status "stalled". The same number gives the same point
        on a slow machine and on a fast one.
    verified : bool
        Verify the rounding of the bounds, as `certify` does: of a point that reaches the gap, and of the last one. For
        ReLU this makes a proof, which may take long beyond the time limit. If it cannot be done, `result.reason` says
        why and `certificate.verified` stays False.
    on_score : callable, optional
        Called with (seconds, certificate) whenever a point was scored.
    on_setup : callable, optional
        Called with the seconds of set-up.
    show_progress : bool
        Show a bar on stderr, on a terminal or in a notebook only.
    **parameters
        Parameters of the solver.

    Returns
    -------
    Result
        The point, its certificate, its times and its curve. A solver that is missing or does not fit the problem gives
        status "skipped" with the reason.

    Raises
    ------
    InputError
        An argument is not usable. Under torchrun: there are fewer samples than processes, or the processes were not
        all given the same arguments. For `start`: the solver runs once and cannot begin anywhere; shapes do not fit the
        problem, or entries are not finite; a result is of a problem with another X, other masks, another architecture
        or activation, or other targets for a loss that reads them alike (they are compared entry by entry); the point
        has no counterpart in the solver's formulation, such as a ReLU network with patterns outside the blocks; or it
        has more columns or neurons than the solver's `m` or `width`.
    UnsupportedError
        Verified bounds do not know the problem's loss, or its samples are shared under torchrun.

    Notes
    -----
    Under torchrun all processes must make the same call. They share the samples of a Burer-Monteiro solver (`bm_*`)
    and each gets the same result. Every other solver, and every solver of a ReLU problem, runs in each process on its
    own. Errors inside a solver are raised.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)
    >>> result = cnn.solve(problem)
    >>> result.status, round(result.objective, 3)
    ('gap_reached', 0.155)

    The optimum of a larger weight decay is a good start for a smaller one:

    >>> smaller = cnn.solve(problem.with_beta(0.05), start=result)
    >>> smaller.status, round(smaller.objective, 3)
    ('gap_reached', 0.079)
    """
    device = check_arguments(problem, time_limit, gap, seed, device, iterations)
    check_callbacks(on_score, on_setup)
    # 1. Make the solver and hand it the settings of this run.
    algorithm = SOLVERS.make(solver, **parameters)
    limit = None if time_limit is None else float(time_limit)
    algorithm.seed, algorithm.device = int(seed), device
    algorithm.time_limit, algorithm.gap = limit, None if gap is None else float(gap)
    algorithm.iterations = None if iterations is None else int(iterations)
    begin = None if start is None else read_start(problem, algorithm, start)
    if verified:
        check_verifiable(problem)
    chosen = {key: getattr(algorithm, key) for key in algorithm.parameters}
    result = Result(problem, algorithm.name, chosen, "skipped", "", int(seed), device)
    # 2. Take checksums of the problem, which under torchrun may be one with shared products.
    untouched = Untouched(shared_where_possible(problem, algorithm, chosen, begin))
    if verified and untouched.problem.is_shared:
        raise UnsupportedError("verified=True needs all samples in one process: run without torchrun")
    # 3. Load packages, and ask the solver to skip. A solver that cannot run gives a result, so that a campaign
    # continues. Imports do not count as set-up, since the solver has not seen the problem yet. The time in `skip` does.
    reason = algorithm.unavailable()
    loading = time.perf_counter()
    if reason is None:
        algorithm.load_packages()
    started = time.perf_counter()
    wait = Wait(limit, imports=started - loading)
    reason = reason or reason_to_skip(algorithm, untouched.problem)
    if reason is not None:
        result.reason = reason
        return result

    # 4. Run, and restore whatever settings the solver changed.
    show = show_progress and parallel.is_first()
    with settings_kept(), progress(algorithm.name, total=limit, show=show) as update:
        TimedRun(
            result, algorithm, untouched, wait, started, verified,
            start=begin, on_score=_shown(algorithm, update, on_score), on_setup=on_setup or (lambda seconds: None),
        ).run()  # fmt: skip
    untouched.check(f"solver {algorithm.name!r}")  # the caller goes on with the problem
    # 5. Name the solver of the point, if the solver ran others.
    author, remark = algorithm.author, algorithm.remark()
    result.solver, result.parameters = author.name, {key: getattr(author, key) for key in author.parameters}
    result.reason = result.reason if remark is None else f"{result.reason}; {remark}"
    return result


def _shown(algorithm: BaseSolver, update: Callable[..., None], on_score: OnScore | None) -> OnScore:
    """Return a function that shows a score, and hands it to the caller's `on_score`."""

    def scored(seconds: float, certificate: Certificate) -> None:
        by = "" if algorithm.author is algorithm else f"{algorithm.author.name}: "
        update(seconds, f"{by}objective {certificate.primal:.7g}, certified gap {certificate.gap:.1e}")
        if on_score is not None:
            on_score(seconds, certificate)

    return scored
