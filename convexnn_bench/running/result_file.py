"""A point and its certificate as trees of plain values and arrays."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from convexnn_bench.certificates import Certificate
from convexnn_bench.checks import as_numpy, check_array
from convexnn_bench.formulations import Point
from convexnn_bench.problem import Problem

# Fields that a file holds as they are.
PLAIN = ("solver", "parameters", "status", "reason", "seed", "device", "setup_seconds", "solve_seconds")


def point_tree(point: Point | None) -> dict[str, Any] | None:
    """Return the arrays of a point by name, on the CPU, its multiplier among them."""
    return None if point is None else {name: _plain(value) for name, value in vars(point).items()}


def point_from(tree: Mapping[str, Any] | None, problem: Problem) -> Point | None:
    """Return the point of `point_tree`.

    Raise InputError for arrays that are not finite or do not fit the problem.
    """
    if tree is None:
        return None
    point = Point(**tree).copy()
    for array in point.arrays():
        check_array("an array of the point", array)
    point.check_size(problem)
    return point


def certificate_tree(certificate: Certificate | None) -> dict[str, Any] | None:
    """Return the fields of a certificate, its multiplier included."""
    if certificate is None:
        return None
    return {field.name: getattr(certificate, field.name) for field in dataclasses.fields(certificate)}


def certificate_from(tree: Mapping[str, Any] | None) -> Certificate | None:
    """Return the certificate of `certificate_tree`."""
    return None if tree is None else Certificate(**tree)


def _plain(value: Any) -> Any:
    if value is None:
        return None
    return tuple(map(_plain, value)) if isinstance(value, tuple | list) else as_numpy(value, "an array of the point")
