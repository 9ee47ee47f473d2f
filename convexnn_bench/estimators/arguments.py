"""The arguments of the estimators: how they are stored, and which patterns are allowed."""

from typing import Any

from sklearn.base import BaseEstimator

from convexnn_bench.errors import InputError
from convexnn_bench.plugins import is_whole


def store_arguments(estimator: BaseEstimator, arguments: dict[str, Any]) -> None:
    """Set the arguments of `__init__`, which are its `locals()`, as attributes.

    `sklearn.clone` compares arguments by identity. They are therefore stored unchanged, and checked by `fit`.
    """
    for name, value in arguments.items():
        if name != "self":
            setattr(estimator, name, value)


def check_gates(patterns: Any) -> None:
    """Raise InputError unless patterns are "all" or a number of gates to sample."""
    every = isinstance(patterns, str) and patterns == "all"
    if not every and not (is_whole(patterns) and int(patterns) >= 1):
        raise InputError(
            'patterns must be "all" or a whole number of gates to sample, at least 1, since masks alone do not say '
            f"which neurons are active on other data; got {patterns!r:.100}"
        )
