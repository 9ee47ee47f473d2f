"""From a campaign to its cells: every name, parameter and value is checked, then the grid is expanded."""

import re
from collections.abc import Iterator
from typing import Any

from convexnn_bench.datasets import PROBLEM_PARAMETERS, split_parameters
from convexnn_bench.errors import InputError
from convexnn_bench.harness.campaign import Campaign, Source, is_number, is_whole, nearest
from convexnn_bench.harness.cell import Cell
from convexnn_bench.plugins.registry import ACTIVATIONS, ARCHITECTURES, DATASETS, LOSSES, SOLVERS
from convexnn_bench.plugins.specs import expand_grid, format_spec, parse_spec
from convexnn_bench.records.records import storable

MOST_CELLS = 100_000  # more are a slip


def plan(campaign: Campaign, source: Source | None = None) -> list[Cell]:
    """Every cell of a campaign, in order: part by part, problem by problem, solver by solver, seed by seed.

    Raises InputError for the first name, parameter or value that cannot be.
    """
    place = source or Source()
    check_limits(campaign, place)
    if campaign.solvers_dir is not None:
        try:
            SOLVERS.add_folder(campaign.solvers_dir)
        except InputError as error:
            raise place(str(error), "solvers_dir") from error
    cells: dict[str, Cell] = {}
    for grid, where in _grids(campaign, place):
        for cell in _cells(grid, where):
            cells.setdefault(cell.key, cell)  # the same thing asked for twice is run once
            if len(cells) > MOST_CELLS:
                raise where(f"the campaign has more than {MOST_CELLS} cells: ask for fewer seeds or values", "seeds")
    return list(cells.values())


def _grids(campaign: Campaign, place: Source) -> Iterator[tuple[Campaign, Source]]:
    """The campaign's grids, each with the lines of the file it stands in."""
    for number, grid in enumerate(campaign.grids(place.replaced)):
        yield grid, place.within(number) if campaign.part else place


def _cells(grid: Campaign, place: Source) -> Iterator[Cell]:
    """The cells of a campaign without parts."""
    seeds = list(range(grid.seeds)) if isinstance(grid.seeds, int) else grid.seeds
    solvers = list(_solvers(grid, place))
    common = (grid.device, grid.limits, grid.solvers_dir, grid.name)
    for spec in grid.datasets:
        # a seed of the data goes with the same seed of the solver
        for data_seed in seeds if grid.fresh_data else [None]:
            for label, dataset, own, rest in _problems(grid, place, spec, data_seed):
                for solver, parameters in solvers:
                    for seed in seeds if data_seed is None else [data_seed]:
                        yield Cell(dataset, own, rest, solver, parameters, seed, *common, label, spec)


def check_limits(campaign: Campaign, place: Source) -> None:
    """Everything but the data sets and solvers themselves. Raises InputError for the first bad value."""
    for grid, where in _grids(campaign, place):
        _check_limits(grid, where)


def _check_limits(campaign: Campaign, place: Source) -> None:
    for key in ("datasets", "solvers"):
        if not getattr(campaign, key):
            raise place(f"{key} is empty: name at least one", key)
    for key in ("time_limit", "gap", "deadline", "memory_gb"):
        value = getattr(campaign, key)
        if value is not None and not (value > 0 and value < float("inf")):
            raise place(f"{key} must be positive and finite, got {value}", key)
    if campaign.threads < 1:
        raise place(f"threads must be at least 1, got {campaign.threads}", "threads")
    seeds = [campaign.seeds - 1] if isinstance(campaign.seeds, int) else campaign.seeds
    if not seeds or min(seeds) < 0:
        raise place(f"seeds must be at least 1, or a list of whole numbers >= 0, got {campaign.seeds}", "seeds")
    if isinstance(campaign.seeds, int) and campaign.seeds > MOST_CELLS:
        raise place(f"seeds must be at most {MOST_CELLS}, got {campaign.seeds}", "seeds")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", campaign.device):
        raise place(f"device must be 'cpu', 'cuda' or 'cuda:0', got {campaign.device!r}", "device")
    if campaign.deadline is not None and campaign.deadline < campaign.time_limit:
        raise place(
            f"deadline is {campaign.deadline:g} s, but solving alone may take time_limit = {campaign.time_limit:g} s: "
            "a deadline covers set-up, solving and scoring",
            "deadline",
        )
    _check_table(campaign.problem, place)
    if not re.fullmatch(r"[\w-][\w.-]*", campaign.name):
        words = (
            "name (that of the file, where it is not given) must hold letters, digits, '-', '_' and '.' only, and not"
        )
        raise place(f"{words} begin with '.', got {campaign.name!r}: set name = \"...\" in it", "name")


def _check_table(given: dict[str, Any], place: Source) -> None:
    """The keys of [problem] and what they may be, each by itself. Raises InputError with the line of the key."""
    for key, value in given.items():
        if key not in PROBLEM_PARAMETERS:
            raise place(f"[problem] has no key {key!r}: {nearest(key, list(PROBLEM_PARAMETERS))}", key)
        try:
            for one in expand_grid({key: value}):
                _check_problem(one)
        except InputError as error:
            raise place(f"[problem]: {error}", key) from error
    if {"beta", "beta_fraction"} <= set(given):
        raise place("[problem] has both beta and beta_fraction: give one of them", "beta_fraction")


def _problems(
    campaign: Campaign, place: Source, spec: str, seed: int | None
) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """(label, data set, its parameters with defaults, problem parameters) for every point of a data set's grid."""
    try:
        name, inside = parse_spec(spec)
        beta_inside = {"beta", "beta_fraction"} & set(inside)
        shared = {
            key: value
            for key, value in campaign.problem.items()
            if not (beta_inside and key in ("beta", "beta_fraction"))
        }
        drawn = {} if seed is None else {"seed": seed}
        for parameters in expand_grid({**drawn, **shared, **inside}):
            own, rest = split_parameters(name, parameters)
            _check_problem(rest)
            yield format_spec(name, parameters), name, {**DATASETS.get(name).parameters, **own}, rest
    except InputError as error:
        raise _placed(place, error, "datasets", spec) from error


def _check_problem(given: dict[str, Any]) -> None:
    """Names and ranges of problem parameters; the data may still rule a combination out."""
    for key, registry in (("loss", LOSSES), ("activation", ACTIVATIONS), ("architecture", ARCHITECTURES)):
        if key in given:
            registry.make(given[key])
    for key in ("beta", "beta_fraction"):
        value = given.get(key)
        if value is not None and not (is_number(value) and 0 < value < float("inf")):
            raise InputError(f"{key} must be a positive finite number, got {value!r}")
    patterns = given.get("patterns", "all")
    if patterns != "all" and not (is_whole(patterns) and patterns >= 1):
        raise InputError(f'patterns must be "all" or a positive whole number, got {patterns!r}')


def _solvers(campaign: Campaign, place: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """(solver, its parameters with defaults) for every point of the grid."""
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
                _make(name, parameters)
                yield name, parameters
        except InputError as error:
            raise _placed(place, error, "solvers", spec) from error


def _check_storable(name: str, parameters: dict[str, Any]) -> None:
    """Raises InputError for a value that would not be the same when read from a record."""
    for key, value in parameters.items():
        if not storable(value):
            raise InputError(
                f"solver {name!r}: {key} is {value!r:.100}, which no record can hold: parameters are numbers that are "
                "finite, text, true, false, None, and lists of these"
            )


def _make(name: str, parameters: dict[str, Any]) -> None:
    """Raises InputError for parameter values that the solver refuses."""
    try:
        SOLVERS.get(name)(**parameters)
    except InputError:
        raise
    except Exception as error:  # a solver of the user's may raise anything
        raise InputError(f"solver {name!r} refuses its parameters: {type(error).__name__}: {error}") from error


def _placed(place: Source, error: InputError, key: str, spec: str) -> InputError:
    """The error with its line in the file in front, or with the text on the command line that it belongs to."""
    message = str(error)
    if not place.knows(key) and spec not in message:
        message = f"{spec}: {message}"
    return place(message, key, spec, spec.partition("[")[0])
