"""The base class of all solvers. The names of its methods are those of benchopt."""

import importlib
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from convexnn_bench.formulations import Point
from convexnn_bench.plugins import Choice, Number, Whole, check_names, importable
from convexnn_bench.problem import Problem

__all__ = ["BaseSolver", "Callback", "Choice", "Number", "Scorer", "Whole", "reason_to_skip"]

Callback = Callable[[], bool]
FORMULATIONS = ("convex", "burer_monteiro", "network")


@runtime_checkable
class Scorer(Protocol):
    """The callback of `solve`, as a solver that runs others uses it.

    Attributes
    ----------
    curve : list of (seconds, objective, gap)
        The scores so far.
    status : str or None
        Why the run is over, None while it is not.
    """

    curve: list[tuple[float, float, float]]
    status: str | None

    def __call__(self) -> bool:
        """Score the point if that is due, and return False where the solver must stop."""
        ...

    def score(self) -> None:
        """Score the point now."""
        ...

    def elapsed(self) -> float:
        """Return the seconds of solving so far, on the clock of the curve."""
        ...


class BaseSolver:
    """An algorithm for one formulation.

    A subclass defines `set_problem`, `run` and `get_result`.

    The runner sets `seed`, `device`, `time_limit` (seconds or None), `gap` (target or None) and `iterations` (how often
    the callback may return True, or None) before it calls `set_problem`; for a solver with a `start_formulation` also
    `start`, a Point of that formulation in the units of the problem, float64 on the CPU, or None. `message` may say in
    words how the algorithm ended; it never decides the status.

    Parameters
    ----------
    **parameters
        Values for names in the class attribute `parameters`; every other name keeps its default.

    Attributes
    ----------
    name : str
        Registered name.
    formulation : {"convex", "burer_monteiro", "network"}
        Which program the solver's points belong to.
    parameters : dict
        Name -> list of values. The first is the default; a campaign sweeps all of them.
    allowed : dict
        Name -> Whole(...), Number(...) or Choice(...), checked before any other work.
    requires : tuple of str
        Packages that must be importable.
    one_shot : bool
        The solver calls its callback once, at the end.
    ends_at_gap : bool
        The solver ends at `gap` by a bound of its own. Scores before its end are then for the curve alone, and are rare
        where the caller sets `curve_wanted` to False, as `path` does.
    start_formulation : {"convex", "burer_monteiro", "network"} or None
        For a solver that begins at the attribute `start` where that is not None: the formulation in which it takes the
        point. None: the solver has a start of its own only, and `solve` refuses `start=`.

    Raises
    ------
    InputError
        A parameter is unknown, or its value is not allowed.
    """

    name: str
    formulation: str
    parameters: dict[str, list[Any]] = {}
    allowed: dict[str, Whole | Number | Choice] = {}
    requires: tuple[str, ...] = ()
    one_shot: bool = False
    ends_at_gap: bool = False
    curve_wanted: bool = True
    start_formulation: str | None = None

    # The runner sets these before `set_problem`. The values here serve a solver that is used without it.
    seed: int = 0
    device: str = "cpu"
    time_limit: float | None = None
    gap: float | None = None
    iterations: int | None = None
    start: Point | None = None
    message: str | None = None

    def __init__(self, **parameters: Any):
        check_names(f"solver {self.name!r}", parameters, self.parameters)
        for key, values in self.parameters.items():
            # The first value of the list is the default, and each parameter becomes an attribute.
            value = parameters.get(key, values[0])
            if key in self.allowed:
                value = self.allowed[key].check(f"solver {self.name!r}: {key}", value)
            setattr(self, key, value)

    @classmethod
    def unavailable(cls) -> str | None:
        """Return what is missing on this machine, or None.

        The words are such that a user can act on them.
        """
        missing = [package for package in cls.requires if not importable(package)]
        return f"package {', '.join(missing)} is not installed: pip install {' '.join(missing)}" if missing else None

    def gap_tolerance(self) -> float:
        """Return the certified relative gap up to which a run may be `solved`.

        It counts for runs that the solver's own test ended.
        """
        return 1e-6

    @classmethod
    def declaration_error(cls) -> str | None:
        """Return what is wrong with the class itself, or None.

        It is checked when the file is loaded.
        """
        formulation = getattr(cls, "formulation", None)
        if formulation not in FORMULATIONS:
            return f"formulation must be one of {', '.join(FORMULATIONS)}, got {formulation!r}"
        if cls.start_formulation not in (None, *FORMULATIONS):
            return f"start_formulation must be None or one of {', '.join(FORMULATIONS)}, got {cls.start_formulation!r}"
        for key, values in cls.parameters.items():
            if not isinstance(values, list) or not values:
                return f"parameters[{key!r}] must be a non-empty list, the default first, got {values!r}"
        required = ("set_problem", "run", "get_result")
        # The methods of this class only raise, so that a solver which inherits one of them cannot run.
        missing = [name for name in required if getattr(cls, name) is getattr(BaseSolver, name)]
        return f"the solver must define {', '.join(missing)}" if missing else None

    @property
    def author(self) -> "BaseSolver":
        """The solver that made the point: this one, unless it runs others."""
        return self

    def remark(self) -> str | None:
        """Return what the reason of every result of this solver says in addition, or None."""
        return None

    def load_packages(self) -> None:
        """Import the required packages. The clock of the set-up starts afterwards."""
        for package in self.requires:
            importlib.import_module(package)

    def skip(self, problem: Problem) -> str | None:
        """Return why the solver cannot take this problem, or None when it can.

        The words are such that a user can act on them.
        """
        return None

    def set_problem(self, problem: Problem) -> None:
        """Build and compile. The time counts as `setup_seconds`, not as solving."""
        raise TypeError(f"{type(self).__name__} must define set_problem")

    def run(self, callback: Callback) -> None:
        """Run `while callback(): step`.

        The callback stops the clock and scores the current point when that is due.
        """
        raise TypeError(f"{type(self).__name__} must define run")

    def get_result(self) -> Point:
        """Return the raw parameters of the current point; never a score."""
        raise TypeError(f"{type(self).__name__} must define get_result")


def reason_to_skip(solver: BaseSolver, problem: Problem) -> str | None:
    """Return what `skip` returns. Raise TypeError for anything but None and words."""
    # An empty string would pass for no reason, and True for a reason that nobody can read.
    reason = solver.skip(problem)
    if reason is None or (isinstance(reason, str) and reason.strip()):
        return reason
    raise TypeError(f"skip of solver {solver.name!r} must return None or the reason in words, got {reason!r:.100}")
