"""Make a training problem from a registered data set."""

from typing import Any

from convexnn_bench.datasets._parameters import split_parameters
from convexnn_bench.datasets.base import BaseDataset, Data
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
        Parameters of the data set, and of `Problem`: architecture, activation, loss, beta or beta_fraction, patterns,
        output_bias, and sample_weight with a number for each sample of the problem, in the order of the data set.
        `test` is the share of the samples, between 0 and 1, that is held out of the problem for test scores. `seed`
        sets all that is drawn at random: the data, where the data set has a `seed`, the held-out samples, and the
        sampled patterns. `test_seed` sets the held-out samples alone, and `pattern_seed` the patterns. Every other
        parameter has the data set's default.

    Returns
    -------
    Problem

    Raises
    ------
    UnknownNameError
        The name is not registered.
    InputError
        A parameter is unknown, or its value is not allowed.

    Notes
    -----
    With `test` the problem is that of the training samples alone: `standardize` takes means and deviations from them,
    and `beta_max` and the patterns follow from them. Where the targets are classes, every class keeps its share in both
    parts, and each one occurs in the training part.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> cnn.make_problem("spiral[n=30]", patterns=5).Y.shape
    (30, 3)
    >>> problem = cnn.make_problem("spiral[n=30]", patterns=5, test=0.2)
    >>> problem.Y.shape, problem.held_out.Y.shape
    ((24, 3), (6, 3))
    """
    if not isinstance(name, str):
        raise InputError(f"name must be the name of a data set, such as 'spiral[n=150]', got {name!r}")
    # 1. Join the parameters in the brackets with the keyword arguments.
    name, inside = parse_spec(name)
    twice = sorted(set(inside) & set(parameters))
    if twice:
        raise InputError(f"{twice[0]!r} is given twice: in the brackets of {name!r} and as an argument")
    # 2. Load the data with the parameters of the data set, and with `test` hold out a part of them.
    weights = {key: parameters.pop(key) for key in ("sample_weight",) if key in parameters}
    own, given = split_parameters(name, {**inside, **parameters})
    test, test_seed = given.pop("test", None), given.pop("test_seed", 0)
    data, held_out = _loaded(DATASETS.get(name)(**own), given.get("loss"), test, test_seed)
    # 3. The caller's choices replace the defaults. One form of the weight decay removes the other's default.
    chosen = {**data.defaults, **given, **weights}
    if given.get("beta") is not None:
        chosen.pop("beta_fraction", None)
    elif given.get("beta_fraction") is not None:
        chosen.pop("beta", None)
    # 4. The seed of the problem is that of its sampled patterns.
    chosen["seed"] = chosen.pop("pattern_seed", 0)
    try:
        problem = Problem(data.X, Targets(data.Y, data.classes, data.notes), **chosen)
        if held_out is None:
            return problem
        return problem.with_held_out(held_out.X, Targets(held_out.Y, data.classes))
    except InputError as error:
        raise type(error)(f"data set {name!r}: {error}{_targets_hint(name, chosen)}") from error


def _loaded(dataset: BaseDataset, loss: Any, test: float | None, test_seed: int) -> tuple[Data, Data | None]:
    """Return the training data and the held-out data.

    loss: the caller's, None for the default.
    """
    if test is None:
        return dataset.data(), None
    try:
        return dataset.split(test, test_seed, loss)
    except InputError as error:
        raise type(error)(f"data set {dataset.name!r}: {error}") from error


def _targets_hint(name: str, chosen: dict[str, Any]) -> str:
    """Return a hint for errors about targets: how a data set of classes makes targets in {-1, 1}."""
    has_targets = "targets" in DATASETS.get(name).parameters
    wants_signs = chosen.get("loss") in ("logistic", "squared_hinge")
    return (
        "; this data set makes such labels with targets=signs or targets=binary" if has_targets and wants_signs else ""
    )
