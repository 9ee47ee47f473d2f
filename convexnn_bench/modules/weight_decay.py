"""Read the weight decay of each layer.

It is given by a number, a dictionary, or the parameter groups of an optimiser.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from convexnn_bench.checks import plain_number
from convexnn_bench.errors import InputError
from convexnn_bench.modules.wrappers import unwrapped
from convexnn_bench.plugins import Number, is_number

LAYERS = ("first", "second")
DECOUPLED = ("AdamW", "Adafactor", "Muon")  # their weight decay is no term of an objective
NOT_ZERO = (
    "without weight decay on it the training problem has no convex program of this kind: that layer can grow and the "
    "other one shrink at no cost, so that the infimum is that of the loss alone"
)


@dataclass(frozen=True)
class Decay:
    """The weight decay lam of every parameter of a two-layer network.

    It adds lam/2 times the squared parameter to the loss.

    Attributes
    ----------
    first, second : float
        Weight decay of the weights of both layers, positive.
    first_bias, second_bias : float or None
        Weight decay of their biases, which may be zero. None for a layer without biases.
    source : str
        A sentence that says where the numbers are from, or an empty text.
    """

    first: float
    second: float
    first_bias: float | None
    second_bias: float | None
    source: str = ""

    def mapped(self, function: Callable[[float], float]) -> "Decay":
        """Return the weight decay after a function of each number."""
        first, second = (None if lam is None else function(lam) for lam in (self.first_bias, self.second_bias))
        return Decay(function(self.first), function(self.second), first, second, self.source)


def read_weight_decay(
    weight_decay: Any,
    optimizer: Any,
    module: torch.nn.Module,
    parameters: Mapping[str, str],
    bias_decay: bool,
    output_bias: str,
) -> Decay:
    """Return the weight decay of each parameter of a network.

    weight_decay: a number, {"first": number, "second": number}, or a number for the name of every parameter.
    optimizer: an optimiser of torch in its place, or None. parameters: the name in the module of each of the parameters
    "first.weight", "first.bias", "second.weight" and "second.bias" that the network has. bias_decay, output_bias:
    whether biases have the weight decay of their layer, where numbers are for layers. Raise InputError if a number is
    missing, is none, or contradicts `bias_decay` or `output_bias`.
    """
    if optimizer is not None:
        if weight_decay is not None:
            raise InputError(
                "give weight_decay or optimizer, not both, since the parameter groups state it; got weight_decay="
                f"{weight_decay!r}"
            )
        _check_named(parameters, "optimizer")
        by_name, source = _of_optimizer(optimizer, module, set(parameters.values()))
        return _checked(
            _by_parameter(by_name, parameters, "optimizer", f"{source} has"), parameters, bias_decay, output_bias
        )
    if not isinstance(weight_decay, Mapping):
        lam = _positive(weight_decay)
        return _of_layers(lam, lam, parameters, bias_decay, output_bias)
    if set(weight_decay) & set(LAYERS):
        if set(weight_decay) != set(LAYERS):
            raise InputError(
                "weight_decay by layers must have the keys 'first' and 'second' and no others, got "
                f"{', '.join(map(repr, weight_decay))}"
            )
        first, second = (_number(f"weight_decay[{layer!r}]", weight_decay[layer]) for layer in LAYERS)
        _check_weights(first, second, {"first.weight": "first", "second.weight": "second"}, "weight_decay")
        return _of_layers(first, second, parameters, bias_decay, output_bias)
    _check_named(parameters, "weight_decay by names of parameters")
    names = set(parameters.values())
    unknown, missing = sorted(set(map(str, weight_decay)) - names), sorted(names - set(weight_decay))
    if unknown or missing:
        wrong = f"the module has no parameter {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
        raise InputError(
            f"weight_decay must be a number for each layer, 'first' and 'second', or for each parameter, "
            f"{', '.join(map(repr, parameters.values()))}: {wrong}"
        )
    numbers = {name: _number(f"weight_decay[{name!r}]", value) for name, value in weight_decay.items()}
    return _checked(
        _by_parameter(numbers, parameters, "weight_decay", "By parameters:"), parameters, bias_decay, output_bias
    )


def _check_named(parameters: Mapping[str, str], what: str) -> None:
    if not parameters:
        raise InputError(
            f"{what}: layers of this module are recognised by their sizes, not by the names of their parameters, as "
            "for TorchScript; give weight_decay={'first': ..., 'second': ...}"
        )


def _positive(weight_decay: Any) -> float:
    lam = plain_number(weight_decay)
    if not is_number(lam) or not 0 < float(lam) < float("inf"):
        raise InputError(
            "weight_decay must be a positive number, the one the network was trained with, or a dictionary of numbers "
            f"for layers or parameters, got {weight_decay!r}: without weight decay the training problem has no convex "
            "program of this kind"
        )
    return float(lam)


def _number(name: str, value: Any) -> float:
    return float(Number(closed=True).check(name, plain_number(value)))


def _of_layers(first: float, second: float, parameters: Mapping[str, str], bias_decay: bool, output_bias: str) -> Decay:
    """Return the weight decay where that of a bias is its layer's or zero."""
    biases = first if bias_decay else 0.0, second if output_bias == "penalised" else 0.0
    # The names of the parameters of a scripted module are unknown, and it may have biases.
    has = ["first.bias" in parameters or not parameters, "second.bias" in parameters or not parameters]
    return Decay(first, second, biases[0] if has[0] else None, biases[1] if has[1] else None)


def _by_parameter(by_name: Mapping[str, float], parameters: Mapping[str, str], argument: str, source: str) -> Decay:
    """Return the weight decay of each parameter by its name, with the sentence that lists them."""
    lam = {role: by_name[name] for role, name in parameters.items()}
    _check_weights(lam["first.weight"], lam["second.weight"], parameters, argument)
    stated = ", ".join(f"{by_name[name]:.6g} on {name}" for name in parameters.values())
    return Decay(
        lam["first.weight"], lam["second.weight"], lam.get("first.bias"), lam.get("second.bias"),
        f"{source} {stated}",
    )  # fmt: skip


def _check_weights(first: float, second: float, names: Mapping[str, str], argument: str) -> None:
    for lam, role in ((first, "first.weight"), (second, "second.weight")):
        if lam == 0:
            raise InputError(f"{argument}: the weight decay of {names[role]!r} is 0; {NOT_ZERO}")


def _checked(decay: Decay, parameters: Mapping[str, str], bias_decay: bool, output_bias: str) -> Decay:
    """Return the weight decay. Raise InputError if it contradicts `bias_decay` or `output_bias`."""
    if not bias_decay and decay.first_bias:
        raise InputError(
            f"bias_decay=False contradicts the weight decay of {parameters['first.bias']!r}, {decay.first_bias:.6g}: "
            "leave bias_decay out"
        )
    if output_bias == "free" and decay.second_bias:
        raise InputError(
            f"output_bias='free' contradicts the weight decay of {parameters['second.bias']!r}, "
            f"{decay.second_bias:.6g}: leave output_bias out"
        )
    return decay


# -- optimisers -------------------------------------------------------------------------------------------------------


def _of_optimizer(optimizer: Any, module: torch.nn.Module, names: set[str]) -> tuple[dict[str, float], str]:
    """Return the weight decay of the module's parameters with these names.

    Return also how a message refers to the optimiser.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    name = type(optimizer).__name__
    by_tensor = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    named = [(path, parameter) for path, parameter in _named_parameters(module) if path in names]
    missing = [path for path, parameter in named if id(parameter) not in by_tensor]
    if missing:
        raise InputError(
            f"optimizer: this {name} does not train the module's parameters {', '.join(missing)}: give the optimiser "
            "that has trained this module (not that of a copy), or weight_decay"
        )
    groups = [by_tensor[id(parameter)] for _, parameter in named]
    if any(group.get("maximize") for group in groups):
        raise InputError(f"optimizer: this {name} maximises its objective (maximize=True)")
    words = f"The optimiser {name}"
    if name in DECOUPLED or any(group.get("decoupled_weight_decay") for group in groups):
        words = (
            f"{name} decouples weight decay from the gradient, where it is a term of no objective; the network is "
            "judged by the objective with lam/2 times the squares. The optimiser"
        )
    pairs = zip(named, groups, strict=True)
    return {
        path: _number("optimizer: weight_decay", group.get("weight_decay", 0.0)) for (path, _), group in pairs
    }, words


def _named_parameters(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield the module's own parameters with their names in the network inside its wrappers."""
    # Removing a wrapper inside the module copies it, and keeps the order of the parameters.
    return zip((name for name, _ in unwrapped(module).named_parameters()), module.parameters(), strict=True)
