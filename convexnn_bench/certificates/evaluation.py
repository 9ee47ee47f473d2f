"""A point reduced to what its certificate needs: which formulation it is of, and what that makes of it in float64."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convexnn_bench.checks import as_numpy
from convexnn_bench.errors import InputError
from convexnn_bench.formulations import burer_monteiro, convex, network
from convexnn_bench.formulations.point import Point

if TYPE_CHECKING:
    from convexnn_bench.problem import Problem


@dataclass
class Evaluated:
    """A point reduced to what certificates need."""

    predictions: torch.Tensor
    regulariser: float
    infeasibility: float = 0.0
    factors: tuple[torch.Tensor, torch.Tensor] | None = None


def as_point(problem: "Problem", point: Any) -> Point:
    """A Point from a result, blocks, (U, V) factors, (W1, W2) weights or a torch module.

    Two arrays of three axes are factors, of two axes network weights. Raises InputError otherwise.
    """
    if isinstance(point, Point):
        return point
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
        "a point is a Result, blocks (P x p x q), factors (U, V), network weights (W1, W2) or a torch module, "
        f"got {type(point).__name__}"
    )


def _arrays_point(problem: "Problem", arrays: list[np.ndarray], is_list: bool) -> Point:
    """Two arrays of three axes are factors; matrices are P blocks, or the weights of a network."""
    shapes = sorted({array.shape for array in arrays})
    axes = {len(shape) for shape in shapes}
    if len(arrays) == 2 and axes == {3}:
        return Point(factors=(arrays[0], arrays[1]))
    blocks = len(arrays) == problem.P and shapes == [(problem.p, problem.q)]
    weights = len(arrays) == 2 and axes == {2} and not is_list  # a list of matrices is a list of blocks
    if blocks and weights and problem.p == problem.q:
        raise InputError(
            "this pair of p x q matrices may be two blocks or the weights of a network: give the blocks as one "
            "2 x p x q array, or the weights as Point(network=(W1, W2))"
        )
    if weights and not blocks:
        return Point(network=(arrays[0], arrays[1]))
    if len(shapes) != 1:
        raise InputError(f"a list of blocks must hold equal p x q matrices, got shapes {shapes}")
    return Point(blocks=np.stack(arrays))


def _module_point(problem: "Problem", module: torch.nn.Module) -> Point:
    """Weights of a module that is a network of this problem: its architecture and activation, without biases."""
    from convexnn_bench.modules.reading import read_module

    reading = read_module(module, problem.X)
    if reading.first_bias or reading.output_bias is not None:
        raise InputError(
            "the module's layers have biases, which are no part of the problem: use bias=False, or certify_module, "
            "which sets the problem up with them"
        )
    shapes = reading.W1.shape[0], reading.W2.shape[0]
    if reading.activation == problem.activation.name and shapes == (problem.p, problem.q):
        found = network.predict(problem, torch.as_tensor(reading.W1), torch.as_tensor(reading.W2)).numpy()
        if np.allclose(found, reading.predict(problem.X), rtol=1e-9, atol=1e-12 * float(np.abs(found).max())):
            return Point(network=(reading.W1, reading.W2))
    raise InputError(
        f"the module is a {reading.words}, which is no network of this {problem.activation.name} "
        f"{problem.architecture.name} problem with p={problem.p}, q={problem.q}"
    )


def device_of(problem: "Problem", point: Point) -> str:
    """Where the point is, and is certified, in float64; cones and networks are looked at on the CPU."""
    arrays = [] if problem.has_cone else [point.blocks, *(point.factors or ())]
    devices = {str(array.device) for array in arrays if isinstance(array, torch.Tensor)}
    return devices.pop() if len(devices) == 1 else "cpu"


def evaluate(problem: "Problem", point: Point, scope: str, device: str) -> Evaluated:
    """Predictions, regulariser and infeasibility in the point's own formulation, float64 on its device."""
    operator = problem.operator(device)
    if point.blocks is not None:
        Z = problem._blocks(point.blocks).to(operator.device)
        if not problem.has_cone:
            return Evaluated(operator.apply(Z), convex.regulariser(problem, Z))
        if problem.vector_cone:
            pair = point.cone_factors
            U, V = convex.cone_factors(problem, Z) if pair is None else burer_monteiro.check_factors(problem, *pair)
            return _evaluate_factors(problem, U, V, device)
        split = convex.split_cone(problem, Z) if point.split is None else _split(problem, point.split)
        Z = (split[:, :, :1] - split[:, :, 1:]).contiguous()
        R = convex.regulariser(problem, Z, split)
        return Evaluated(operator.apply(Z), R, _violation(problem, split))
    if point.factors is not None:
        return _evaluate_factors(problem, *burer_monteiro.check_factors(problem, *point.factors), device)
    assert point.network is not None
    W1, W2 = network.check_weights(problem, *point.network)
    if problem.has_cone and scope == "sampled":
        network.to_factors(problem, W1, W2)  # raises where a neuron's pattern is not among the blocks
    return Evaluated(network.predict(problem, W1, W2), network.regulariser(W1, W2))


def _evaluate_factors(problem: "Problem", U: torch.Tensor, V: torch.Tensor, device: str) -> Evaluated:
    U, V = U.to(device), V.to(device)
    R = 0.5 * float(U.square().sum() + V.square().sum())
    # balanced, so that a short u with a long v counts for what it contributes
    violation = _violation(problem, burer_monteiro.balance(U, V)[0])
    return Evaluated(problem.operator(device).apply_factors(U, V), R, violation, (U, V))


def _split(problem: "Problem", split: Any) -> torch.Tensor:
    array = torch.as_tensor(np.asarray(as_numpy(split, "split"), dtype=np.float64))
    if tuple(array.shape) != (problem.P, problem.p, 2) or not bool(torch.isfinite(array).all()):
        raise InputError(f"split must be a finite P x p x 2 array, got shape {tuple(array.shape)}")
    return array


def _violation(problem: "Problem", U: torch.Tensor) -> float:
    return 0.0 if problem.cones is None else float(problem.cones.violation(U.numpy()))
