"""Shapes in signatures are checked in the tests: at a first call, and where arguments or result are of a new kind."""

import jaxtyping
import numpy as np
import pytest
import shape_checks
import torch
from beartype import beartype
from jaxtyping import Float

from convexnn_bench.formulations import burer_monteiro


def decorated():
    """A function that is right for some arguments and wrong for others, and how often it has run."""
    runs = []

    @shape_checks.jaxtyped(typechecker=beartype)
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
