"""Shapes in signatures are checked in the tests: at a first call, and where arguments or result are of a new kind."""

from collections.abc import Callable, Iterator

import jaxtyping
import numpy as np
import pytest
import shape_checks
import shapes
import torch
from jaxtyping import Float

from convexnn_bench.formulations import burer_monteiro


def decorated():
    """A function that is right for some arguments and wrong for others, and how often it has run."""
    runs = []

    @shape_checks.jaxtyped(typechecker=shapes.holds)
    def product(A: Float[np.ndarray, "n m"], x: Float[np.ndarray, "m"], turned: bool = False) -> Float[np.ndarray, "n"]:
        runs.append(1)
        return x if turned else A @ x

    return product, runs


def test_wrong_arguments_are_refused_before_and_after_right_ones():
    product, runs = decorated()
    A = np.ones((2, 3))
    for _ in range(2):
        with pytest.raises(jaxtyping.TypeCheckError):
            product(A, np.ones(2))
        with pytest.raises(jaxtyping.TypeCheckError):
            product(A.astype(int), np.ones(3))
        assert product(A, np.ones(3)).tolist() == [3.0, 3.0]
    assert len(runs) == 2


def test_a_wrong_result_is_refused_after_a_right_one_of_the_same_arguments():
    product, runs = decorated()
    A, x = np.ones((2, 3)), np.ones(3)
    product(A, x, False)
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        product(A, x, True)
    assert len(runs) == 2  # it ran once for each call


def test_the_package_is_checked():
    U, V = torch.ones(4, 3, 2), torch.ones(4, 5, 2)
    assert burer_monteiro.to_blocks(U, V).shape == (4, 3, 5)
    with pytest.raises(jaxtyping.TypeCheckError):
        burer_monteiro.to_blocks(U, V[:, :, :1])


@shape_checks.jaxtyped(typechecker=shapes.holds)
def stacked(
    *rows: Float[np.ndarray, "m"], scale: Float[np.ndarray, "m"] | float = 1.0, **named: "Float[np.ndarray, 'm']"
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n"] | None]:
    table = np.stack([*rows, *named.values()]) * scale
    return table, table.sum(axis=1) if len(rows) > 1 else table.sum(axis=0)


def test_every_kind_of_argument_and_what_is_inside_a_result_are_checked():
    row = np.ones(3)
    assert stacked(row, row, last=row)[0].shape == (3, 3)
    assert stacked(row, row, scale=row)[1].shape == (2,)
    for rows, named in (
        ((row, row, np.ones((1, 3))), {}),
        ((row, row), {"scale": np.ones(4)}),
        ((row, row), {"last": np.ones(4)}),
    ):
        with pytest.raises(jaxtyping.TypeCheckError, match=r"argument '(rows|scale|named)' of"):
            stacked(*rows, **named)
    with pytest.raises(jaxtyping.TypeCheckError, match="return value of"):
        stacked(row)


def test_annotations_that_cannot_be_looked_up_hide_no_others():
    def function(x: "Unknown", y: "Float[np.ndarray, 'n']", z: Float[np.ndarray, "n"]) -> None:
        pass

    assert set(shapes.Signature(function, shapes.holds).hints) == {"y", "z"}


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (Float[np.ndarray, "n"] | None, [None, np.ones(2)], [1.0, np.ones((2, 2))]),
        (list[Float[np.ndarray, "n"]], [[], [np.ones(2), np.ones(2)]], [[np.ones(2), np.ones(3)], (np.ones(2),)]),
        (tuple[Float[np.ndarray, "n"], ...], [(np.ones(2),) * 3], [(np.ones(2), None)]),
        (tuple["Unknown", Float[np.ndarray, "n"]], [(1, np.ones(2))], [(1, 2), (np.ones(2),)]),
        (dict[int, Float[np.ndarray, "n"] | None], [{1: None, 2: np.ones(2)}], [{"a": np.ones(2)}, {1: 2}]),
        (Callable[[Float[np.ndarray, "n"]], float], [len], [3]),
        (Iterator[Float[np.ndarray, "n"]], [iter([])], [[np.ones(2)]]),
    ],
    ids=["optional", "list", "tuple", "name", "dict", "callable", "iterator"],
)
def test_annotations_with_shapes_inside(hint, right, wrong):
    for values, expected in ((right, True), (wrong, False)):
        for value in values:
            with shapes.jaxtyped("context"):
                assert shapes.holds(value, hint) is expected
