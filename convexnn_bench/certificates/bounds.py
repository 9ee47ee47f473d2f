"""Certificates of any point, by one function, from raw parameters in float64.

Weak duality: if ||A_k^* Lambda||_k^dual <= beta for every block, then p* >= -F*(Lambda). With
Lambda = s grad F(A(Z)) that holds for s <= beta / max_k ||G_k||^dual, and the best admissible s is taken.
It needs no stationarity. (Sahiner et al., ICLR 2024, section 3 and its appendix.)
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convexnn_bench.certificates.certificate import Certificate, relative_gap
from convexnn_bench.checks import as_numpy
from convexnn_bench.dual_norms import EPS, MaxDualNorm, complete_dual_norm, max_dual_norm, spectral_norms
from convexnn_bench.errors import InputError
from convexnn_bench.formulations import burer_monteiro, convex, network
from convexnn_bench.formulations.point import Point

if TYPE_CHECKING:
    from convexnn_bench.losses.base import BaseLoss
    from convexnn_bench.problem import Problem

FEASIBILITY_TOLERANCE = 1e-8  # relative violation of the ReLU cones above which a gap is refused
ROUNDING_TOLERANCE = 1e-10  # of the bound, by which rounding may leave the objective below it
RANK_TOLERANCE = 1e-6  # singular values below this fraction of the largest one of all blocks count as zero


@dataclass
class _Evaluated:
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


def _device(problem: "Problem", point: Point) -> str:
    """Where the point is, and is certified, in float64; cones and networks are looked at on the CPU."""
    arrays = [] if problem.has_cone else [point.blocks, *(point.factors or ())]
    devices = {str(array.device) for array in arrays if isinstance(array, torch.Tensor)}
    return devices.pop() if len(devices) == 1 else "cpu"


def _evaluate(problem: "Problem", point: Point, scope: str, device: str) -> _Evaluated:
    """Predictions, regulariser and infeasibility in the point's own formulation, float64 on its device."""
    operator = problem.operator(device)
    if point.blocks is not None:
        Z = problem._blocks(point.blocks).to(operator.device)
        if not problem.has_cone:
            return _Evaluated(operator.apply(Z), convex.regulariser(problem, Z))
        if problem.vector_cone:
            pair = point.cone_factors
            U, V = convex.cone_factors(problem, Z) if pair is None else burer_monteiro.check_factors(problem, *pair)
            return _evaluate_factors(problem, U, V, device)
        split = convex.split_cone(problem, Z) if point.split is None else _split(problem, point.split)
        Z = (split[:, :, :1] - split[:, :, 1:]).contiguous()
        R = convex.regulariser(problem, Z, split)
        return _Evaluated(operator.apply(Z), R, _violation(problem, split))
    if point.factors is not None:
        return _evaluate_factors(problem, *burer_monteiro.check_factors(problem, *point.factors), device)
    assert point.network is not None
    W1, W2 = network.check_weights(problem, *point.network)
    if problem.has_cone and scope == "sampled":
        network.to_factors(problem, W1, W2)  # raises where a neuron's pattern is not among the blocks
    return _Evaluated(network.predict(problem, W1, W2), network.regulariser(W1, W2))


def _evaluate_factors(problem: "Problem", U: torch.Tensor, V: torch.Tensor, device: str) -> _Evaluated:
    U, V = U.to(device), V.to(device)
    R = 0.5 * float(U.square().sum() + V.square().sum())
    # balanced, so that a short u with a long v counts for what it contributes
    violation = _violation(problem, burer_monteiro.balance(U, V)[0])
    return _Evaluated(problem.operator(device).apply_factors(U, V), R, violation, (U, V))


def _split(problem: "Problem", split: Any) -> torch.Tensor:
    array = torch.as_tensor(np.asarray(as_numpy(split, "split"), dtype=np.float64))
    if tuple(array.shape) != (problem.P, problem.p, 2) or not bool(torch.isfinite(array).all()):
        raise InputError(f"split must be a finite P x p x 2 array, got shape {tuple(array.shape)}")
    return array


def _violation(problem: "Problem", U: torch.Tensor) -> float:
    return 0.0 if problem.cones is None else float(problem.cones.violation(U.numpy()))


def lower_bound(
    problem: "Problem",
    Lambda: torch.Tensor,
    scope: str | None = None,
    *,
    device: str = "cpu",
    G: torch.Tensor | None = None,
) -> tuple[float, MaxDualNorm, torch.Tensor]:
    """(-F*(s Lambda) at the best admissible s, max_k ||A_k^* Lambda||^dual, s Lambda): a lower bound on p*.

    Lambda: n_out x c in dom F*, float64 on `device`. scope "complete": the maximum over every activation pattern of a
    ReLU network, where the problem's blocks are a sample of them. The dual norms and the value are on the safe side of
    their rounding. G: A_k^* Lambda of every block (P x p x q), where the caller has just computed it with
    `problem.operator(device).adjoint`.
    """
    operator = problem.operator(device)
    loss, Y = problem.loss, operator.Y
    if scope in (None, problem.scope):
        norm = max_dual_norm(problem, operator.adjoint(Lambda) if G is None else G)
    else:
        norm = complete_dual_norm(problem, Lambda.cpu())
    value, scaled = best_dual(loss, Y, Lambda, problem.beta, norm.value + operator.adjoint_rounding(Lambda))
    return value, norm, scaled


def best_dual(
    loss: "BaseLoss", Y: torch.Tensor, Lambda: torch.Tensor, beta: float, norm: float
) -> tuple[float, torch.Tensor]:
    """(-F*(s Lambda), s Lambda) at the best s with s norm <= beta, the value on the safe side of its rounding.

    norm: at least max_k ||A_k^* Lambda||^dual. Lambda: n_out x c in dom F*, float64.
    """
    lo, hi = loss.scale_range(Lambda, Y)
    # of a norm that is no number nothing follows: s = 0
    limit = beta / norm * (1 - 4 * EPS) if norm > 0 else math.inf if norm == 0 else 0.0
    s = loss.best_scale(Lambda, Y, max(lo, -limit), min(hi, limit))
    scaled = s * Lambda
    value = -float(loss.conjugate(scaled, Y))
    # the terms of F* are sums of products of entries of s Lambda and Y, or entropies of numbers in [0, 1]
    magnitude = float((scaled.abs() * (scaled.abs() + Y.abs())).sum()) + abs(value)
    return value - (8 + Y.shape[1]) * EPS * magnitude + 0.0, scaled  # + 0.0: no minus zero


def certify(problem: "Problem", point: Any, scope: Any = None) -> Certificate:
    """Certificate of a Result, blocks, (U, V) factors, (W1, W2) weights, or a torch module.

    scope: the program the bound is about. "sampled" is the one with the problem's blocks, "complete" that of the
    original ReLU network, with every activation pattern. By default a ReLU network gets "complete", and any other
    point that of the problem; a point of a sampled ReLU program may be given "complete" too, for its neurons are a
    network.

    Raises InputError for a point or a scope that does not fit the problem, UnsupportedError for vector-output ReLU
    blocks whose norm could not be evaluated, and, with scope="sampled", for a ReLU network whose patterns are not among
    the problem's blocks.
    """
    if not hasattr(problem, "vector_cone"):
        raise InputError(f"problem must be a Problem, got {type(problem).__name__}")
    point = as_point(problem, point)
    scope = _scope(problem, point, scope)
    device = _device(problem, point)
    at = _evaluate(problem, point, scope, device)
    loss, Y = problem.loss, problem.operator(device).Y
    gradient = loss.gradient(at.predictions, Y)
    if not bool(torch.isfinite(at.predictions).all()) or not math.isfinite(at.regulariser):
        raise InputError("the point's predictions or norms overflow float64")
    primal = float(loss.value(at.predictions, Y)) + problem.beta * at.regulariser
    dual, norm, multiplier = lower_bound(problem, loss.project_dual(gradient, Y), scope, device=device)
    if point.dual is not None:
        candidate = torch.as_tensor(np.asarray(as_numpy(point.dual, "dual"), dtype=np.float64))
        if candidate.numel() != Y.numel():
            raise InputError(f"dual must have the shape of Y, {tuple(Y.shape)}, got {tuple(candidate.shape)}")
        candidate = candidate.reshape(Y.shape).to(Y.device)
        if bool(torch.isfinite(candidate).all()):
            other, _, scaled = lower_bound(problem, loss.project_dual(candidate, Y), scope, device=device)
            dual, multiplier = (other, scaled) if other > dual else (dual, multiplier)
    refused = None
    if at.infeasibility > FEASIBILITY_TOLERANCE:
        refused = (
            f"the point violates the ReLU cones by {at.infeasibility:.1e} of its largest pre-activation "
            f"(allowed {FEASIBILITY_TOLERANCE:.0e})"
        )
    error = float((gradient * at.predictions).sum()) + problem.beta * at.regulariser
    return concluded(
        primal, dual, problem.beta, norm, error, multiplier, scope=scope, infeasibility=at.infeasibility,
        refused=refused, **_rank_tests(problem, at, gradient, device),
    )  # fmt: skip


def concluded(
    primal: float,
    dual: float,
    beta: float,
    norm: MaxDualNorm,
    stationarity_error: float,
    multiplier: torch.Tensor | None,
    *,
    refused: str | None = None,
    **fields: Any,
) -> Certificate:
    """The certificate of an objective and a lower bound. norm: of grad F. fields: what else it holds."""
    if refused is None and primal < dual - ROUNDING_TOLERANCE * abs(dual):
        refused = f"the objective {primal:.12g} came out below the proven bound {dual:.12g}: rounding decides here"
    return Certificate(
        primal=primal,
        dual=dual,
        gap=math.nan if refused else relative_gap(primal, dual),
        stationarity_bound=max(norm.value / beta - 1.0, 0.0),
        stationarity_error=stationarity_error,
        max_dual_norm=norm.value,
        worst_block=norm.block,
        dual_norm_lower=norm.lower,
        dual_norm_method=norm.method,
        refused=refused,
        multiplier=None if multiplier is None else multiplier.cpu().numpy(),
        **fields,
    )


def _scope(problem: "Problem", point: Point, asked: Any) -> str:
    if asked is None:
        return "complete" if problem.has_cone and point.network is not None else problem.scope
    if asked not in ("sampled", "complete"):
        raise InputError(f"scope must be 'sampled', 'complete' or None, got {asked!r}")
    if asked == problem.scope or (asked == "complete" and problem.has_cone):
        return str(asked)
    reason = (
        "its blocks are all activation patterns" if problem.scope == "complete" else "its gates are part of the model"
    )
    raise InputError(f"scope={asked!r} does not fit this {problem.activation.name} problem: {reason}")


def _rank_tests(problem: "Problem", at: _Evaluated, gradient: torch.Tensor, device: str) -> dict[str, Any]:
    """Theorems 3.3 and 3.5 at a Burer-Monteiro point without cones."""
    if at.factors is None or problem.has_cone:
        return {}
    U, V = at.factors
    operator = problem.operator(device)
    _, left, right = burer_monteiro.value_and_gradient(problem, operator, U, V)
    size = problem.beta * math.sqrt(float(U.square().sum() + V.square().sum()))
    slope = math.sqrt(float(left.square().sum() + right.square().sum()))
    values = torch.minimum(*(_padded_singular_values(factor) for factor in (U, V)))
    floor = RANK_TOLERANCE * float(torch.stack([U.abs().amax(), V.abs().amax()]).max())
    ranks = (values > floor).sum(dim=1)
    norms = spectral_norms(operator.adjoint(gradient))
    full = (ranks == min(problem.p, problem.q)) | ((ranks == 0) & (norms <= problem.beta * (1 + 1e-9)))
    return {
        "gradient_norm": slope / size if size > 0 else slope / problem.beta,
        "full_rank": bool(full.all()),
        "rank_deficient": bool((ranks < U.shape[2]).all()),
        "ranks": tuple(int(rank) for rank in ranks),
    }


def _padded_singular_values(factor: torch.Tensor) -> torch.Tensor:
    """Singular values of every block, zeros appended up to m of them."""
    values = torch.linalg.svdvals(factor)
    return torch.nn.functional.pad(values, (0, factor.shape[2] - values.shape[1]))
