"""Times of solvers as products of powers of the sizes of a problem.

For each solver, log10(seconds) is a linear function of the features. benchmarks/fit_auto.py fits it to records and
writes the file, which also holds the commit and the machine of the records. An entry `like = "other"` stands for the
coefficients of another solver, for a solver that needs a licence and has no records.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from convexnn_bench.algorithms.automatic.features import FEATURES
from convexnn_bench.errors import ConvexNNError

MODEL_FILE = Path(__file__).with_name("times.toml")
LEAST, MOST = 1e-3, 1e6  # seconds; a prediction outside is extrapolated too far


@dataclass(frozen=True)
class SolverModel:
    """The predicted time of one solver.

    Attributes
    ----------
    coefficients : mapping
        {feature: coefficient} of log10(seconds). Features that are not named have coefficient zero.
    cuda : bool
        Whether the solver runs on the device "cuda"; others run on the CPU whatever `device` says.
    complete : bool
        Whether the solver adds patterns that are not among the blocks, so that it may only be chosen for problems that
        have all of them.
    loading : float
        Seconds to load the solver's packages, or to start its process, where that has not been done yet.
    """

    coefficients: Mapping[str, float] = field(default_factory=dict)
    cuda: bool = True
    complete: bool = False
    loading: float = 0.0

    def seconds(self, features: Mapping[str, float]) -> float:
        """Return the predicted seconds of set-up and solving."""
        exponent = sum(coefficient * features[name] for name, coefficient in self.coefficients.items())
        return min(max(10.0**exponent, LEAST), MOST)


@cache
def load_model(path: Path = MODEL_FILE) -> dict[str, SolverModel]:
    """Return {solver: its model} from a file.

    Raise ConvexNNError for a feature that is not known.
    """
    solvers = tomllib.loads(path.read_text(encoding="utf-8"))["solvers"]
    models = {}
    for name, entry in solvers.items():
        if "like" in entry:  # no records of this solver: it counts as quick as another one
            entry = {**solvers[entry["like"]], **{key: value for key, value in entry.items() if key != "like"}}
        unknown = sorted(set(entry["coefficients"]) - set(FEATURES))
        if unknown:
            raise ConvexNNError(f"{path}: {name} has the unknown feature {unknown[0]!r}")
        models[name] = SolverModel(**entry)
    return models
