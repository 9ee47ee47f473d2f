"""The description of a cell: a problem, a solver, a seed, and limits."""

import hashlib
import inspect
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from convexnn_bench.plugins import DATASETS, SOLVERS, format_spec, plugin_folders
from convexnn_bench.records import code_version, make_key


@dataclass(frozen=True)
class Limits:
    """What a cell may use.

    time_limit: seconds of solving, on the solver's clock. gap: relative gap at which the solver is stopped. deadline:
    seconds on the wall clock, set-up and scoring included, after which the process is killed; None for
    2 time_limit + 10. memory_gb: memory in GiB of the cell and what it starts, None for no limit. threads: of BLAS and
    of torch, and number of cores that the cell runs on. iterations: steps after which an iterative solver is stopped,
    None for no limit. verified: whether bounds are verified, as by `certify(..., verified=True)`.
    """

    time_limit: float = 60.0
    gap: float = 1e-6
    deadline: float | None = None
    memory_gb: float | None = None
    threads: int = 1
    iterations: int | None = None
    verified: bool = False

    @property
    def wall_seconds(self) -> float:
        """The deadline, also where it follows from the time limit."""
        # Set-up and scoring may take as long as solving does, and 10 s more where the time limit is short.
        return 2 * self.time_limit + 10 if self.deadline is None else self.deadline


SCORING = "scoring the held-out samples"  # the last stage of a cell, after its result
PLACES = ("campaign", "solvers_dir", "plugins_dir", "label", "origin")  # fields that change no result


def hash_of_plugins(plugins_dir: str | None) -> str:
    """Return a hash of the Python files in a folder of plug-ins, or an empty text for None.

    Files of solvers are left out, since each has its own hash.
    """
    folders = [folder for kind, folder in plugin_folders(plugins_dir).items() if kind != "solvers"]
    code = hashlib.sha256()
    for file in (file for folder in folders for file in sorted(folder.glob("*.py"))):
        code.update(f"{file.parent.name}/{file.name}\0".encode() + file.read_bytes() + b"\0")
    return "" if plugins_dir is None else code.hexdigest()


@dataclass(frozen=True)
class Cell:
    """A picklable description of one run. Parameters of the data set and of the solver include the defaults.

    plugins_code: hash of the user's losses, architectures, activations and data sets, see `hash_of_plugins`. label: the
    problem as the campaign asks for it, one point of a grid. origin: the text in the campaign that it comes from, for
    messages.
    """

    dataset: str
    dataset_parameters: dict[str, Any]
    problem_parameters: dict[str, Any]
    solver: str
    solver_parameters: dict[str, Any]
    seed: int = 0
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)
    solvers_dir: str | None = None
    plugins_dir: str | None = None
    plugins_code: str = ""
    campaign: str = ""
    label: str = ""
    origin: str = ""

    @property
    def problem_name(self) -> str:
        """The label, or else the problem as one would write it on the command line, without defaults."""
        if self.label:
            return self.label
        defaults = DATASETS.get(self.dataset).parameters
        changed = {k: v for k, v in self.dataset_parameters.items() if v != defaults.get(k)}
        return format_spec(self.dataset, {**changed, **self.problem_parameters})

    @property
    def solver_name(self) -> str:
        """The solver as one would write it on the command line, without defaults."""
        defaults = SOLVERS.get(self.solver).parameters
        # A solver lists the values of each parameter, and the first one is its default.
        changed = {k: v for k, v in self.solver_parameters.items() if v != defaults[k][0]}
        return format_spec(self.solver, changed)

    @cached_property
    def key(self) -> str:
        """Hash of everything that a result depends on, the code and the data included."""
        # The version covers the files of the package alone. The file of a user's solver is known by its own hash.
        source = Path(inspect.getfile(SOLVERS.get(self.solver))).read_bytes()
        return make_key(
            {
                # Names and places stay out: a cell keeps its record under another campaign's name or in another folder.
                **{k: v for k, v in asdict(self).items() if k not in PLACES},
                "version": code_version(),
                "solver_source": hashlib.sha256(source).hexdigest(),
                "data": DATASETS.get(self.dataset)(**self.dataset_parameters).fingerprint(),
            }
        )

    @property
    def problem_arguments(self) -> dict[str, Any]:
        """The keyword arguments of `make_problem` for this cell."""
        return {**self.dataset_parameters, **self.problem_parameters}

    def unavailable(self) -> str | None:
        """Return which package the data set or the solver lacks on this machine, or None.

        A solver that raises an error here fails in its own cell, where the record shows the error.
        """
        missing = DATASETS.get(self.dataset).unavailable()
        if missing is not None:
            return f"data set {self.dataset}: {missing}"
        try:
            return SOLVERS.get(self.solver).unavailable()
        except Exception:  # a user's class may raise anything
            return None
