"""Make a training problem from a registered data set."""

from typing import Any

from convexnn_bench.datasets._parameters import split_parameters
from convexnn_bench.errors import InputError
from convexnn_bench.labels import Targets
from convexnn_bench.plugins import DATASETS, parse_spec
from convexnn_bench.problem import Problem


def make_problem(name: str, **parameters: Any) -> Problem:
    """Make the training problem of a registered data set.

    Parameters
    ----------
    name : str
        A registered name, with parameters in brackets if wanted: "spiral[n=150]".
    **parameters
        Parameters of the data set, and of `Problem`: architecture, activation, loss, beta or beta_fraction, patterns.
        `seed` sets all that is drawn at random: the data, where the data set has a `seed`, and the sampled patterns.
        `pattern_seed` sets the patterns alone. Every other parameter has the data set's default.

    Returns
    -------
    Problem

    Raises
    ------
    UnknownNameError
        The name is not registered.
    InputError
        A parameter is unknown, or its value is not allowed.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> cnn.make_problem("spiral[n=30]", patterns=5).Y.shape
    (30, 3)
    """
    if not isinstance(name, str):
        raise InputError(f"name must be the name of a data set, such as 'spiral[n=150]', got {name!r}")
    # 1. Join the parameters in the brackets with the keyword arguments.
    name, inside = parse_spec(name)
    twice = sorted(set(inside) & set(parameters))
    if twice:
        raise InputError(f"{twice[0]!r} is given twice: in the brackets of {name!r} and as an argument")
    # 2. Load the data, with the parameters that are the data set's own.
    own, given = split_parameters(name, {**inside, **parameters})
    data = DATASETS.get(name)(**own).data()
    # 3. The caller's choices replace the defaults. One form of the weight decay removes the other's default.
    chosen = {**data.defaults, **given}
    if given.get("beta") is not None:
        chosen.pop("beta_fraction", None)
    elif given.get("beta_fraction") is not None:
        chosen.pop("beta", None)
    # 4. The seed of the problem is that of its sampled patterns.
    chosen["seed"] = chosen.pop("pattern_seed", 0)
    try:
        return Problem(data.X, Targets(data.Y, data.classes, data.notes), **chosen)
    except InputError as error:
        raise type(error)(f"data set {name!r}: {error}{_targets_hint(name, chosen)}") from error


def _targets_hint(name: str, chosen: dict[str, Any]) -> str:
    """Return a hint for errors about targets: how a data set of classes makes targets in {-1, 1}."""
    has_targets = "targets" in DATASETS.get(name).parameters
    wants_signs = chosen.get("loss") in ("logistic", "squared_hinge")
    return (
        "; this data set makes such labels with targets=signs or targets=binary" if has_targets and wants_signs else ""
    )
