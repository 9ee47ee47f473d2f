"""Data sets, and `make_problem`, which turns one into a training problem."""

import inspect
from numbers import Integral
from typing import TYPE_CHECKING, Any

from convexnn_bench.errors import InputError
from convexnn_bench.plugins.registry import DATASETS

if TYPE_CHECKING:
    from convexnn_bench.problem import Problem

PROBLEM_PARAMETERS = (
    "architecture",
    "activation",
    "loss",
    "beta",
    "beta_fraction",
    "patterns",
    "pattern_seed",
)


def split_parameters(name: str, parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of the data set and of the problem, apart.

    ``seed`` belongs to both (data drawn at random, and sampled patterns); ``pattern_seed`` sets the second
    alone. Raises UnknownNameError for the data set and InputError for a parameter of neither.
    """
    dataset = DATASETS.get(name)
    own = {key: value for key, value in parameters.items() if key in dataset.parameters}
    rest = {key: value for key, value in parameters.items() if key not in own and key != "seed"}
    unknown = sorted(set(rest) - set(PROBLEM_PARAMETERS))
    if unknown:
        listed = ", ".join(dataset.parameters) or "none"
        raise InputError(
            f"data set {name!r} has no parameter {unknown[0]!r}; its own: {listed}; "
            f"of the problem: {', '.join(PROBLEM_PARAMETERS)}"
        )
    if rest.get("beta") is not None and rest.get("beta_fraction") is not None:
        raise InputError(
            f"give beta or beta_fraction, not both (got beta={rest['beta']!r}, beta_fraction={rest['beta_fraction']!r})"
        )
    for key in ("pattern_seed", "seed"):
        if key in parameters:
            _check_seed(key, parameters[key])
    if "seed" in parameters:
        rest.setdefault("pattern_seed", parameters["seed"])
    return own, rest


def _check_seed(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) < 2**63:
        raise InputError(f"{key} must be a whole number, at least 0 and below 2^63, got {value!r}")


def make_problem(name: Any, **parameters: Any) -> "Problem":
    """The training problem of a registered data set.

    name: a data set ("spiral"), with parameters in brackets if you like ("spiral[n=150]"). parameters:
    those of the data set, and of `Problem`: architecture, activation, loss, beta or beta_fraction,
    patterns. seed: of all that is drawn at random, the data (where the data set has a `seed`: its noise, or
    its choice of n samples) and the sampled patterns. pattern_seed: of the patterns alone, in place of `seed`;
    0 if neither is given. What is not given takes the data set's default. Raises UnknownNameError for a name
    that is not registered and InputError for a parameter or value that cannot be.
    """
    from convexnn_bench.plugins.specs import parse_spec
    from convexnn_bench.problem import Problem

    if not isinstance(name, str):
        raise InputError(f"name must be the name of a data set, such as 'spiral[n=150]', got {name!r}")
    name, inside = parse_spec(name)
    twice = sorted(set(inside) & set(parameters))
    if twice:
        raise InputError(f"{twice[0]!r} is given twice: in the brackets of {name!r} and as an argument")
    own, given = split_parameters(name, {**inside, **parameters})
    data = DATASETS.get(name)(**own).data()
    chosen = {**data.defaults, **given}
    if given.get("beta") is not None:
        chosen.pop("beta_fraction", None)
    elif given.get("beta_fraction") is not None:
        chosen.pop("beta", None)
    chosen["seed"] = chosen.pop("pattern_seed", 0)
    try:
        return Problem(data.X, data.Y, **chosen)
    except InputError as error:
        raise type(error)(f"data set {name!r}: {error}{_targets_hint(name, chosen)}") from error


def _targets_hint(name: str, chosen: dict[str, Any]) -> str:
    """How to get targets in {-1, 1} from a data set of classes, when that was the trouble."""
    has_targets = "targets" in inspect.signature(DATASETS.get(name).load).parameters
    wants_signs = chosen.get("loss") in ("logistic", "squared_hinge")
    return (
        "; this data set makes such labels with targets=signs or targets=binary" if has_targets and wants_signs else ""
    )
