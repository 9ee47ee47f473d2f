"""Solve a problem for all weight decays of an interval."""

import time
from typing import Any

import torch

from convexnn_bench import parallel
from convexnn_bench.errors import InputError
from convexnn_bench.plugins import LIMIT, SOLVERS, YES_OR_NO, Number
from convexnn_bench.problem import Problem
from convexnn_bench.regularisation.regularisation_path import RegularisationPath
from convexnn_bench.regularisation.search import Search
from convexnn_bench.running import check_arguments
from convexnn_bench.solver import BaseSolver
from convexnn_bench.terminal import progress


def path(
    problem: Problem,
    smallest: float = 1e-3,
    tolerance: float = 1e-3,
    solver: str | BaseSolver | type[BaseSolver] = "auto",
    time_limit: float | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    warm_starts: bool = True,
    show_progress: bool = True,
    **parameters: Any,
) -> RegularisationPath:
    """Solve a problem for all weight decays of an interval, with a proven gap at each.

    Parameters
    ----------
    problem : Problem
        The training problem. Its own beta is not used, except that with a penalised output bias beta_max depends on it.
    smallest : float
        The smallest weight decay as a fraction of `beta_max`, below 1. The largest is `beta_max`.
    tolerance : float
        The relative gap between objective and lower bound that must hold at every beta of the interval.
    solver : str or BaseSolver
        A registered name, with parameters in brackets if wanted, or an instance. "auto" chooses anew for each solve.
    time_limit : float, optional
        Seconds to wait. `path` returns the path so far within 1.2 `time_limit` + 1 s. As in `solve`, single calls into
        compiled code are not interrupted. None for no limit.
    seed, device
        As in `solve`, for every solve.
    warm_starts : bool
        Begin every solve of an iterative solver at a mixture of the two nearest results, or at the nearest one.
    show_progress : bool
        Show a bar with the largest gap left on stderr, on a terminal or in a notebook only.
    **parameters
        Parameters of the solver.

    Returns
    -------
    RegularisationPath
        Its `gap` is the largest relative gap at any beta of the interval. Ctrl-C returns the path so far, with status
        "interrupted".

    Raises
    ------
    InputError
        An argument is not usable, beta_max is zero, or torchrun has started several processes.
    UnsupportedError
        The solver does not take the problem, or is not available here.

    Notes
    -----
    The optimum p*(beta) is a minimum of functions F(A(Z)) + beta R(Z) that are linear in beta, hence concave. It lies
    below the line of every point, and above the chord of two lower bounds (a sandwich algorithm: Rote, Computing 48,
    1992; compare Ndiaye, Le, Fercoq, Salmon & Takeuchi, Safe grid search with optimal complexity, ICML 2019). The
    interval with the largest gap is split where its lines cross, until no gap is above the tolerance.

    At such a beta the mixture of the two nearest points has another line, and the mixture of their multipliers is
    feasible. If the two bounds that they give are close enough to each other, no solve is needed there.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], beta=0.1)
    >>> path = cnn.path(problem, smallest=0.01, tolerance=1e-2)
    >>> path.status, path.gap <= 1e-2
    ('gap_reached', True)
    >>> low, high = path.enclosure(0.1)
    >>> bool(low <= cnn.solve(problem, "bm_newton").objective <= 1.01 * low), high <= 1.01 * low
    (True, True)
    """
    # 1. Check everything before any long work.
    smallest = Number(high=1.0).check("smallest", smallest)
    tolerance = Number().check("tolerance", tolerance)
    device = check_arguments(problem, time_limit, None, seed, device, None)
    YES_OR_NO.check("warm_starts", warm_starts)
    if parallel.processes_started() > 1:
        raise InputError("path runs in one process: run it without torchrun, or share single solves by cnn.solve")
    algorithm = SOLVERS.make(solver, **parameters)
    limit = LIMIT.check("time_limit", time_limit)
    started = time.perf_counter()
    if not problem.beta_max > 0:
        raise InputError("the problem has no path: beta_max is 0, so that the zero network is optimal at every beta")
    # 2. Search. Return the path so far, however the search ends.
    search = Search(problem, algorithm, tolerance, limit, int(seed), device, warm_starts, started)
    search.begin(smallest)
    wanted, algorithm.curve_wanted = algorithm.curve_wanted, False
    try:
        with progress(f"path of {algorithm.name}", show=show_progress) as update:
            search.run(update)
    finally:
        algorithm.curve_wanted = wanted  # the instance may be the caller's
    return search.outcome()
