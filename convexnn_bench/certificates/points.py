"""Convert a point in any form that a user may have into a `Point`."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from convexnn_bench.checks import Array, as_numpy
from convexnn_bench.errors import InputError
from convexnn_bench.formulations import Point, network
from convexnn_bench.modules import read_module
from convexnn_bench.problem import Problem


class HasPoint(Protocol):
    """Anything with a point, such as a `Result`."""

    point: Point | None
    status: str
    reason: str


PointLike = Point | HasPoint | torch.nn.Module | Array | Sequence[Array]


def as_point(problem: Problem, point: Any) -> Point:
    """Return a Point for a result, blocks, factors, weights or a torch module.

    Two arrays of three axes are factors, two arrays of two axes network weights. Raise InputError otherwise.
    """
    if isinstance(point, Point):
        return point
    # `Result` belongs to a later layer and cannot be imported here, so that its attribute decides.
    if hasattr(point, "point"):  # a Result
        if point.point is None:
            raise InputError(f"the result has no point to certify: {point.status}, {point.reason}")
        return point.point
    if isinstance(point, torch.nn.Module):
        return _module_point(problem, point)
    if isinstance(point, tuple | list):
        return _arrays_point(problem, [as_numpy(array, "the point") for array in point], isinstance(point, list))
    if isinstance(point, np.ndarray | torch.Tensor):
        return Point(blocks=point)
    raise InputError(
        "point must be a Result, blocks (P x p x q), factors (U, V), network weights (W1, W2) or a torch module, "
        f"got {type(point).__name__}"
    )


def _arrays_point(problem: Problem, arrays: list[np.ndarray], is_list: bool) -> Point:
    """Return the point that arrays are.

    Two arrays of three axes are factors, and matrices are blocks or network weights.
    """
    shapes = sorted({array.shape for array in arrays})
    axes = {len(shape) for shape in shapes}
    if len(arrays) == 2 and axes == {3}:
        return Point(factors=(arrays[0], arrays[1]))
    # A list of matrices is always read as blocks. A pair in a tuple may be blocks or weights where P = 2 and p = q.
    blocks = len(arrays) == problem.P and shapes == [(problem.p, problem.q)]
    weights = len(arrays) == 2 and axes == {2} and not is_list  # a list of matrices is a list of blocks
    if blocks and weights and problem.p == problem.q:
        raise InputError(
            "this pair of p x q matrices may be two blocks or the weights of a network: give the blocks as one "
            "2 x p x q array, or the weights as Point(network=(W1, W2))"
        )
    if weights and not blocks:
        point = Point(network=(arrays[0], arrays[1]))
        _check_orientation(problem, *point.to_network(problem))
        return point
    if len(shapes) != 1:
        raise InputError(f"a list of blocks must hold equal p x q matrices, got shapes {shapes}")
    return Point(blocks=np.stack(arrays))


def _check_orientation(problem: Problem, W1: torch.Tensor, W2: torch.Tensor) -> None:
    """Raise InputError if another orientation of square weights has a lower loss.

    torch's Linear has M x p weights, and the second matrix of scikit-learn's coefs_ is M x q. If M equals p or q the
    sizes do not show the orientation. Squared norms are equal in all orientations, so that the loss decides.
    """
    loss, Y = problem.loss, torch.as_tensor(problem.Y)
    ways = [(first, last) for first in _orientations(W1) for last in _orientations(W2)]
    if len(ways) == 1:
        return
    as_passed, *transposed = (float(loss.value(network.predict(problem, *way), Y)) for way in ways)
    # An untrained network may fit better by chance when it is transposed. It is refused too, because weights that are
    # misread in silence are worse than a question.
    if min(transposed) < as_passed:
        raise InputError(
            "(W1, W2) must be p x M and q x M, and these square matrices fit the data better when they are transposed "
            "(torch's first Linear.weight is M x p, scikit-learn's coefs_[1] is M x q): transpose them, or give "
            "Point(network=(W1, W2)) if they are p x M and q x M already"
        )


def _orientations(W: torch.Tensor) -> list[torch.Tensor]:
    return [W, W.T.contiguous()] if W.shape[0] == W.shape[1] and not torch.equal(W, W.T) else [W]


def _module_point(problem: Problem, module: torch.nn.Module) -> Point:
    """Return the weights of a module without biases that is a network of this problem."""
    if problem.is_sparse:
        raise InputError(
            "a torch module is read by its outputs on dense data, and this X is sparse: give its weights (W1, W2), "
            "p x M and q x M"
        )
    X = np.asarray(problem.X, dtype=np.float64)
    reading = read_module(module, X)
    if reading.head is not None:
        raise InputError(
            f"the module ends in a {reading.head}, which is not part of the problem: give the module without it"
        )
    if reading.first_bias or reading.output_bias is not None:
        raise InputError(
            "the module's layers have biases, which a point of the problem does not hold: give the weights without the "
            "biases (with output_bias= a problem has its best output bias), or use certify_module, which sets the "
            "problem up with them"
        )
    # Equal shapes do not suffice: another stride or pooling may have them too. Equal predictions on the data decide.
    shapes = reading.W1.shape[0], reading.W2.shape[0]
    if reading.activation == problem.activation.name and shapes == (problem.p, problem.q):
        found = network.predict(problem, torch.as_tensor(reading.W1), torch.as_tensor(reading.W2)).numpy()
        if np.allclose(found, reading.predict(X), rtol=1e-9, atol=1e-12 * float(np.abs(found).max())):
            return Point(network=(reading.W1, reading.W2))
    raise InputError(
        f"the module is a {reading.words}, which is no network of this {problem.activation.name} "
        f"{problem.architecture.name} problem with p={problem.p}, q={problem.q}"
    )
