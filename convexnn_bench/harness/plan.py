"""Expand a campaign into its cells, and check every name, parameter and value on the way."""

import re
from collections.abc import Iterator
from typing import Any

from convexnn_bench.datasets import PROBLEM_PARAMETERS, SHARE, split_parameters
from convexnn_bench.errors import InputError
from convexnn_bench.harness.campaign import Campaign, Source, nearest
from convexnn_bench.harness.cell import Cell, hash_of_plugins
from convexnn_bench.plugins import (
    ACTIVATIONS,
    ARCHITECTURES,
    DATASETS,
    LOSSES,
    SOLVERS,
    Number,
    add_plugins,
    expand_grid,
    format_spec,
    is_whole,
    parse_spec,
)
from convexnn_bench.records import storable

MOST_CELLS = 100_000  # a campaign with more is a mistake


def plan(campaign: Campaign, source: Source | None = None) -> list[Cell]:
    """Return every cell of a campaign: part by part, problem by problem, solver by solver, seed by seed.

    Raises InputError for the first name, parameter or value that is not allowed, with its line in `source`.
    """
    source = source or Source()
    # 1. Check the limits, because a number of seeds with many zeros must not be expanded first.
    check_limits(campaign, source)
    # 2. Expand every grid. Cells of different grids with equal keys are the same cell.
    cells: dict[str, Cell] = {}
    for grid, lines in _grids(campaign, source):
        for cell in _cells(grid, lines):
            cells.setdefault(cell.key, cell)  # a cell that is asked for twice is run once
            if len(cells) > MOST_CELLS:
                message = f"the campaign has more than {MOST_CELLS} cells: ask for fewer seeds or values"
                raise lines.error(message, "seeds")
    return list(cells.values())


def _grids(campaign: Campaign, source: Source) -> Iterator[tuple[Campaign, Source]]:
    """Yield the grids of a campaign, each with a source that searches its own lines first."""
    for index, grid in enumerate(campaign.grids(source.replaced)):
        yield grid, source.within(index) if campaign.part else source


def _cells(grid: Campaign, source: Source) -> Iterator[Cell]:
    """Yield the cells of a campaign without parts."""
    seeds = list(range(grid.seeds)) if isinstance(grid.seeds, int) else grid.seeds
    solvers = list(_solvers(grid, source))
    common = (
        grid.device,
        grid.limits,
        grid.solvers_dir,
        grid.plugins_dir,
        hash_of_plugins(grid.plugins_dir),
        grid.name,
    )
    for spec in grid.datasets:
        # with fresh data, data drawn with a seed meet the solver's start of the same seed only
        for data_seed in seeds if grid.fresh_data else [None]:
            for label, dataset, data_parameters, problem_parameters in _problems(grid, source, spec, data_seed):
                for solver, parameters in solvers:
                    for seed in seeds if data_seed is None else [data_seed]:
                        asked = (dataset, data_parameters, problem_parameters, solver, parameters, seed)
                        yield Cell(*asked, *common, label, spec)


def check_limits(campaign: Campaign, source: Source) -> None:
    """Check everything but the data sets and the solvers themselves, and register the user's plug-ins.

    Raises InputError for the first bad value.
    """
    grids = list(_grids(campaign, source))
    for grid, lines in grids:
        for key, fits, message in _requirements(grid):
            if not fits:
                raise lines.error(message, key)
    # From here on names are looked up, and the user's code runs.
    for key in ("solvers_dir", "plugins_dir"):
        try:
            add_plugins(**{key: getattr(campaign, key)})
        except InputError as error:
            raise source.error(str(error), key) from error
    for grid, lines in grids:
        _check_table(grid.problem, lines)


def _requirements(campaign: Campaign) -> Iterator[tuple[str, bool, str]]:
    """Yield (key, whether its value is allowed, the message if not).

    The keys are those of a campaign without parts.
    """
    for key in ("datasets", "solvers"):
        yield key, bool(getattr(campaign, key)), f"{key} is empty: name at least one"
    for key in ("time_limit", "gap", "deadline", "memory_gb"):
        value = getattr(campaign, key)
        yield key, value is None or 0 < value < float("inf"), f"{key} must be positive and finite, got {value}"
    yield "threads", campaign.threads >= 1, f"threads must be at least 1, got {campaign.threads}"
    fits = campaign.iterations is None or campaign.iterations >= 1
    yield "iterations", fits, f"iterations must be at least 1, got {campaign.iterations}"
    seeds, device, deadline = campaign.seeds, campaign.device, campaign.deadline
    smallest = seeds - 1 if isinstance(seeds, int) else min(seeds, default=-1)
    yield "seeds", smallest >= 0, f"seeds must be at least 1, or a list of whole numbers >= 0, got {seeds}"
    fits = not isinstance(seeds, int) or seeds <= MOST_CELLS
    yield "seeds", fits, f"seeds must be at most {MOST_CELLS}, got {seeds}"
    fits = re.fullmatch(r"cpu|cuda(:\d+)?", device) is not None
    yield "device", fits, f"device must be 'cpu', 'cuda' or 'cuda:0', got {device!r}"
    fits = deadline is None or deadline >= campaign.time_limit
    message = f"deadline is {deadline or 0:g} s, but solving alone may take time_limit = {campaign.time_limit:g} s"
    yield "deadline", fits, f"{message}: a deadline covers set-up, solving and scoring"
    fits = re.fullmatch(r"[\w-][\w.-]*", campaign.name) is not None
    message = "name (by default that of the file) must hold letters, digits, '-', '_' and '.' only"
    yield "name", fits, f"{message}, and not begin with '.', got {campaign.name!r}: set name = \"...\" in the file"


def _check_table(given: dict[str, Any], source: Source) -> None:
    """Check each key of [problem] and its values by themselves.

    Raises InputError with the line of the key.
    """
    for key, value in given.items():
        if key not in PROBLEM_PARAMETERS:
            raise source.error(f"[problem] has no key {key!r}: {nearest(key, list(PROBLEM_PARAMETERS))}", key)
        try:
            for point in expand_grid({key: value}):
                _check_problem(point)
        except InputError as error:
            raise source.error(f"[problem]: {error}", key) from error
    if {"beta", "beta_fraction"} <= set(given):
        raise source.error("[problem] has both beta and beta_fraction: give one of them", "beta_fraction")


def _problems(
    campaign: Campaign, source: Source, spec: str, seed: int | None
) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Yield (label, data set, its parameters with defaults, problem parameters).

    There is one for each point of the data set's grid.

    seed: draws the data and the patterns, None where the spec or the defaults say so.
    """
    try:
        name, inside = parse_spec(spec)
        betas = {"beta", "beta_fraction"}
        hidden = betas if betas & set(inside) else set()  # one of them replaces the other
        shared = {key: value for key, value in campaign.problem.items() if key not in hidden}
        drawn = {} if seed is None else {"seed": seed}
        # What the data set itself sets overrules [problem], and both overrule the seed of the cell.
        for parameters in expand_grid({**drawn, **shared, **inside}):
            data, rest = split_parameters(name, parameters)
            _check_problem(rest)
            yield format_spec(name, parameters), name, {**DATASETS.get(name).parameters, **data}, rest
    except InputError as error:
        raise _with_line(source, error, "datasets", spec) from error


def _check_problem(given: dict[str, Any]) -> None:
    """Check names and ranges of problem parameters.

    The data may still rule a combination out.
    """
    for key, registry in (("loss", LOSSES), ("activation", ACTIVATIONS), ("architecture", ARCHITECTURES)):
        if key in given:
            registry.make(given[key])
    for key in ("beta", "beta_fraction"):
        if given.get(key) is not None:
            Number().check(key, given[key])
    if given.get("test") is not None:
        SHARE.check("test", given["test"])
    patterns = given.get("patterns", "all")
    if patterns != "all" and not (is_whole(patterns) and patterns >= 1):
        raise InputError(f'patterns must be "all" or a positive whole number, got {patterns!r}')


def _solvers(campaign: Campaign, source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (solver, its parameters with defaults) for each point of the grid."""
    for spec in campaign.solvers:
        try:
            name, inside = parse_spec(spec)
            solver = SOLVERS.get(name)
            unknown = sorted(set(inside) - set(solver.parameters))
            if unknown:
                listed = ", ".join(solver.parameters) or "none"
                raise InputError(f"solver {name!r} has no parameter {unknown[0]!r}; it has: {listed}")
            for parameters in expand_grid({**solver.parameters, **inside}):
                _check_storable(name, parameters)
                # The solver is made once here, so that values which it refuses end the campaign before anything runs.
                _make(name, parameters)
                yield name, parameters
        except InputError as error:
            raise _with_line(source, error, "solvers", spec) from error


def _check_storable(name: str, parameters: dict[str, Any]) -> None:
    """Raise InputError for a value that a record would change."""
    for key, value in parameters.items():
        if not storable(value):
            raise InputError(
                f"solver {name!r}: {key} is {value!r:.100}, which no record can hold: parameters are numbers that are "
                "finite, text, true, false, None, and lists of these"
            )


def _make(name: str, parameters: dict[str, Any]) -> None:
    """Raise InputError for parameter values that the solver refuses."""
    try:
        SOLVERS.get(name)(**parameters)
    except InputError:
        raise
    except Exception as error:  # a solver of the user's may raise anything
        raise InputError(f"solver {name!r} refuses its parameters: {type(error).__name__}: {error}") from error


def _with_line(source: Source, error: InputError, key: str, spec: str) -> InputError:
    """Return the error with the place that it is about in front.

    This is a line of the file, or a text on the command line.
    """
    message = str(error)
    if not source.knows(key) and spec not in message:
        message = f"{spec}: {message}"
    return source.error(message, key, spec, spec.partition("[")[0])
