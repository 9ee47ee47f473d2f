"""Points of the three formulations: each evaluates itself, and becomes the others.

A point of the convex program is blocks Z, a Burer-Monteiro point is factors (U, V) with Z_k = U_k V_k^T, a point of the
network is its weights (W1, W2). Each class evaluates the two terms of its own objective,

    F(predictions) + beta * regulariser,

in float64, and measures by how much the point violates the ReLU cones.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from convexnn_bench.checks import aligned_copy
from convexnn_bench.formulations import burer_monteiro, convex, network
from convexnn_bench.formulations.evaluation import Evaluation, Pair, evaluate_factors, half_squares, violation
from convexnn_bench.instance import Instance

# The names stand in the order of the constructor's arguments. The multiplier is last, where `arrays` leaves it out.
FIELDS = ("blocks", "split", "cone_factors", "factors", "network", "dual")
PAIRS = ("factors", "network", "cone_factors")


class Point:
    """The raw parameters of one formulation, as numpy arrays or torch tensors.

    `Point(...)` makes a `ConvexPoint`, a `FactoredPoint` or a `NetworkPoint` from the argument `blocks`, `factors` or
    `network`. Every field that the point does not have is None.

    Parameters
    ----------
    blocks : array P x p x q, optional
        A point of the convex program.
    split : array P x p x 2, optional
        With `blocks`, for scalar-output ReLU: Z_k = split[k, :, 0] - split[k, :, 1], both in cone k.
    cone_factors : pair of arrays P x p x m and P x q x m, optional
        With `blocks`, for vector-output ReLU: Z_k = U_k V_k^T with the columns of U_k in cone k. The norm of a block
        is the least 1/2 (||U_k||^2 + ||V_k||^2) over such pairs, so that a pair proves an upper bound on it.
    factors : pair of arrays P x p x m and P x q x m, optional
        A Burer-Monteiro point (U, V).
    network : pair of arrays p x M and q x M, optional
        Weights (W1, W2); with gated ReLU neuron j uses gate j mod P.
    dual : array n_out x c, optional
        A candidate multiplier Lambda near grad F. It is made feasible before it is used.

    Raises
    ------
    ValueError
        Not exactly one of `blocks`, `factors` and `network` is an argument, or one that must be a pair is none.

    Examples
    --------
    >>> import numpy as np
    >>> point = Point(factors=(np.ones((4, 3, 2)), np.ones((4, 1, 2))))
    >>> point.formulation, point.blocks
    ('burer_monteiro', None)
    """

    formulation: str
    blocks: Any = None
    split: Any = None
    cone_factors: tuple[Any, Any] | None = None
    factors: tuple[Any, Any] | None = None
    network: tuple[Any, Any] | None = None
    dual: Any = None

    def __new__(
        cls,
        blocks: Any = None,
        split: Any = None,
        cone_factors: Any = None,
        factors: Any = None,
        network: Any = None,
        dual: Any = None,
    ) -> "Point":
        if cls is not Point:  # unpickling and copying call this without arguments
            return super().__new__(cls)
        # The parameters decide the formulation, and the formulation the class.
        fields = {
            "blocks": (blocks, ConvexPoint),
            "factors": (factors, FactoredPoint),
            "network": (network, NetworkPoint),
        }
        given = {name: kind for name, (value, kind) in fields.items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"a point needs exactly one of blocks, factors and network, got {list(given) or 'none'}")
        return super().__new__(next(iter(given.values())))

    def __init__(
        self,
        blocks: Any = None,
        split: Any = None,
        cone_factors: Any = None,
        factors: Any = None,
        network: Any = None,
        dual: Any = None,
    ):
        for name, value in zip(FIELDS, (blocks, split, cone_factors, factors, network, dual), strict=True):
            if name in PAIRS and value is not None and not (isinstance(value, tuple | list) and len(value) == 2):
                size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
                raise ValueError(f"{name} must be a pair of arrays, got {type(value).__name__}{size}")
            setattr(self, name, value)

    def arrays(self) -> Iterator[Any]:
        """Every array of the point but the multiplier, in a fixed order."""
        for name in FIELDS[:-1]:
            value = getattr(self, name)
            if value is not None:
                yield from value if name in PAIRS else (value,)

    def copy(self) -> "Point":
        """Return a point of its formulation with copies of all arrays, on the same device.

        A subclass becomes a plain Point, so that only the code of this module evaluates it.
        """
        return Point(**{name: _copied(vars(self).get(name)) for name in FIELDS})

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A certificate of an unpickled point has to have the same bits, and sums may depend on how memory is aligned.
        self.__dict__.update({name: _copied(value) for name, value in state.items()})

    def default_scope(self, problem: Instance) -> str:
        """Return the default scope of a certificate: that of the problem's blocks."""
        return problem.scope

    def device(self, problem: Instance) -> str:
        """Return the device of the evaluation: the CPU if there are cones."""
        devices = {str(array.device) for array in self.arrays() if isinstance(array, torch.Tensor)}
        return devices.pop() if len(devices) == 1 and not problem.has_cone else "cpu"

    def check_size(self, problem: Instance) -> None:
        """Raise InputError for arrays of the wrong shape, before any array is copied."""

    def check_patterns(self, problem: Instance) -> None:
        """Raise UnsupportedError if the point uses patterns outside the problem's blocks."""

    def evaluate(self, problem: Instance, device: str) -> Evaluation:
        """Return the terms of the point's own objective.

        Raise InputError if its arrays do not fit the problem.
        """
        raise TypeError(f"{type(self).__name__} must define evaluate")

    def to_blocks(self, problem: Instance) -> torch.Tensor:
        """Return the blocks Z (P x p x q) with the point's predictions.

        Raise UnsupportedError if there are none.
        """
        return burer_monteiro.to_blocks(*self.to_factors(problem))

    def to_factors(self, problem: Instance) -> Pair:
        """Return factors (U, V) with the point's predictions.

        Raise UnsupportedError if none were found.
        """
        raise TypeError(f"{type(self).__name__} must define to_factors")

    def to_network(self, problem: Instance) -> Pair:
        """Return weights (W1, W2) with the point's predictions.

        Raise UnsupportedError if none were found.
        """
        return burer_monteiro.to_network(problem, *self.to_factors(problem))


class ConvexPoint(Point):
    """Blocks Z of the convex program, for ReLU also with their vectors of the cones."""

    formulation = "convex"

    def check_size(self, problem: Instance) -> None:
        convex.check_shape(problem, "Z", self.blocks, problem.q)
        if self.split is not None:
            convex.check_shape(problem, "split", self.split, 2)

    def evaluate(self, problem: Instance, device: str) -> Evaluation:
        operator = problem.operator(device)
        Z = convex.check_blocks(problem, self.blocks).to(operator.device)
        if not problem.has_cone:
            R, columns = convex.regulariser(problem, Z), int((Z != 0).flatten(1).any(dim=1).sum())
            return Evaluation(operator.apply(Z), R, convex.norm_rounding(Z), Z.abs().sum(dim=0), columns)
        # The norm of a vector-output block is NP-hard. Factors prove an upper bound on it, which takes its place.
        if problem.vector_cone:
            return evaluate_factors(problem, *self.to_factors(problem), device)
        split = self._split(problem, Z)
        Z = (split[:, :, :1] - split[:, :, 1:]).contiguous()  # the certificate is about the pair
        R, columns = convex.regulariser(problem, Z, split), int((split != 0).any(dim=1).sum())
        sizes = split.abs().sum(dim=(0, 2))[:, None]
        return Evaluation(operator.apply(Z), R, convex.norm_rounding(split), sizes, columns, violation(problem, split))

    def _split(self, problem: Instance, Z: torch.Tensor) -> torch.Tensor:
        return convex.split_cone(problem, Z) if self.split is None else convex.check_split(problem, self.split)

    def to_blocks(self, problem: Instance) -> torch.Tensor:
        return convex.check_blocks(problem, self.blocks)

    def to_factors(self, problem: Instance) -> Pair:
        if self.cone_factors is not None:
            return burer_monteiro.check_factors(problem, *self.cone_factors)
        Z = self.to_blocks(problem)
        split = self._split(problem, Z) if problem.has_cone and not problem.vector_cone else None
        return convex.to_factors(problem, Z, split=split)


class FactoredPoint(Point):
    """Burer-Monteiro factors (U, V), for ReLU with the columns of U_k in cone k."""

    formulation = "burer_monteiro"
    factors: tuple[Any, Any]

    def evaluate(self, problem: Instance, device: str) -> Evaluation:
        return evaluate_factors(problem, *self.to_factors(problem), device)

    def to_factors(self, problem: Instance) -> Pair:
        return burer_monteiro.check_factors(problem, *self.factors)


class NetworkPoint(Point):
    """Weights (W1, W2) of the original network."""

    formulation = "network"
    network: tuple[Any, Any]

    def default_scope(self, problem: Instance) -> str:
        """Return "complete" for ReLU, since a ReLU network chooses its own patterns."""
        return "complete" if problem.has_cone else problem.scope

    def device(self, problem: Instance) -> str:
        return "cpu"

    def check_patterns(self, problem: Instance) -> None:
        # The map to factors looks up the block of every neuron, and raises where one has none.
        if problem.has_cone:
            self.to_factors(problem)

    def evaluate(self, problem: Instance, device: str) -> Evaluation:
        # Every pair of weights is a network, so that there are no cones to violate.
        W1, W2 = self.to_network(problem)
        R, rounding = half_squares(W1, W2)
        columns = int(((W1 != 0).any(dim=0) & (W2 != 0).any(dim=0)).sum())
        return Evaluation(network.predict(problem, W1, W2), R, rounding, W1.abs() @ W2.abs().T, columns)

    def to_factors(self, problem: Instance) -> Pair:
        return network.to_factors(problem, *self.to_network(problem))

    def to_network(self, problem: Instance) -> Pair:
        return network.check_weights(problem, *self.network)


def _copied(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_copied, value))
    if isinstance(value, torch.Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    if type(value) is np.ndarray and value.dtype in (np.float64, np.float32):
        return aligned_copy(value)
    if isinstance(value, np.ndarray):  # a masked array keeps its mask, for which it is refused later
        return value.copy()
    return value
