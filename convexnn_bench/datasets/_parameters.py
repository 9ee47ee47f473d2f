"""Separate the parameters of a data set from those of the problem that is made from it."""

from typing import Any

from convexnn_bench.datasets._split import SHARE
from convexnn_bench.errors import InputError
from convexnn_bench.plugins import DATASETS, SEED

PROBLEM_PARAMETERS = (
    "architecture",
    "activation",
    "loss",
    "beta",
    "beta_fraction",
    "patterns",
    "pattern_seed",
    "test",
    "test_seed",
    "output_bias",
)
SEEDS = ("pattern_seed", "test_seed", "seed")


def split_parameters(name: str, parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of the data set, and those of the problem.

    `seed` belongs to both: it draws random data, sampled patterns and the held-out samples. `pattern_seed` draws the
    patterns alone, and `test_seed` the held-out samples alone. Raise UnknownNameError for an unknown data set, and
    InputError for a parameter of neither.
    """
    # 1. A name that the data set declares is its own, also where the problem has the same one.
    dataset = DATASETS.get(name)
    own = {key: value for key, value in parameters.items() if key in dataset.parameters}
    rest = {key: value for key, value in parameters.items() if key not in own and key != "seed"}
    unknown = sorted(set(rest) - set(PROBLEM_PARAMETERS))
    if unknown:
        listed = ", ".join(dataset.parameters) or "none"
        raise InputError(
            f"data set {name!r} has no parameter {unknown[0]!r}; it has: {listed}; "
            f"parameters of the problem: {', '.join(PROBLEM_PARAMETERS)}"
        )
    # 2. Refuse contradictions before any data are loaded.
    if rest.get("beta") is not None and rest.get("beta_fraction") is not None:
        raise InputError(
            f"give beta or beta_fraction, not both (got beta={rest['beta']!r}, beta_fraction={rest['beta_fraction']!r})"
        )
    for key in SEEDS:
        if key in parameters:
            SEED.check(key, parameters[key])
    if rest.get("test") is not None:
        SHARE.check("test", rest["test"])
    elif "test_seed" in rest:
        raise InputError(f"test_seed={rest['test_seed']!r} needs test, the share of the samples that is held out")
    # 3. Use `seed` for the patterns and the held-out samples too, unless they have seeds of their own.
    if "seed" in parameters:
        rest.setdefault("pattern_seed", parameters["seed"])
        if rest.get("test") is not None:
            rest.setdefault("test_seed", parameters["seed"])
    return own, rest
