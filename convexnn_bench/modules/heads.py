"""The last layers of a deeper network as a network of their own.

Its data are the features that the layers before it compute.

The features are those of evaluation mode, without the randomness of dropout and with the running statistics of batch
normalisation. A bound for the head holds given these features: it says nothing about other ones, which training all
layers could reach.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.modules.wrappers import unwrapped

AUTO = "auto"
BATCH = 256  # samples in one pass through the network
TRAINING_SAMPLES = 64  # samples with which the layers of a head are compared in training mode
# differences allowed between the outputs of the model and of its head, relative to the largest output
REPRODUCED = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class Head:
    """A head and its inputs.

    module: the head, with the parameters of the model. features: its inputs, n x ..., float64. condition: what a bound
    for it holds for, in words. names: the names of its parameters in the model, by their names in `module`.
    """

    module: torch.nn.Module
    features: np.ndarray
    condition: str
    names: dict[str, str]


def head_of(model: Any, X: np.ndarray, name: str) -> Head:
    """Return the head of a model, by the name of a submodule, or the last two Linear layers for "auto".

    Raise InputError if there is no such submodule, and UnsupportedError if the outputs of the model on X are not those
    of the head.
    """
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"module must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(name, str):
        raise InputError(f"head must be the name of a submodule or {AUTO!r}, got {name!r}")
    model = unwrapped(model)
    if name == AUTO:
        first, last = _last_layers(model, X)
        found = _sequential(model, X, first, last)
        words = f"the last two Linear layers, {first!r} and {last!r}, which were found by themselves"
        entry = first
    else:
        found, words, entry = _submodule(model, name), f"the submodule {name!r}", name
    features = _checked(model, X, entry, found)
    condition = (
        f"This is about the head alone, {words}, given the frozen features that the layers before it compute in "
        f"evaluation mode ({' x '.join(map(str, features.shape))}). With other features the objective may be lower: "
        "nothing is said about the optimum of the whole network."
    )
    return Head(found, features, condition, _names(model, found))


def _submodule(model: torch.nn.Module, name: str) -> torch.nn.Module:
    children = [child for child, _ in model.named_modules() if child]
    if name not in children:
        shown = ", ".join(map(repr, [child for child, _ in model.named_children()]))
        raise InputError(f"head must be {AUTO!r} or the name of a submodule, such as {shown or 'none'}; got {name!r}")
    return model.get_submodule(name)


def _names(model: torch.nn.Module, head: torch.nn.Module) -> dict[str, str]:
    """Return the names in the model of the head's parameters.

    Raise UnsupportedError if other layers share one.
    """
    everywhere: dict[int, list[str]] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        everywhere.setdefault(id(parameter), []).append(path)
    for name, parameter in head.named_parameters():
        paths = everywhere[id(parameter)]
        if len(paths) > 1:
            raise UnsupportedError(
                f"the head has the parameter {name}, which the model uses as {' and '.join(paths)}: training the head "
                "would change the features"
            )
    return {name: everywhere[id(parameter)][0] for name, parameter in head.named_parameters()}


# -- running the model ------------------------------------------------------------------------------------------------


@contextmanager
def _listening(layers: Mapping[str, torch.nn.Module], hear: Callable[[str, torch.Tensor, Any], None]) -> Iterator[None]:
    """Call `hear` with the name, the first input and the output of each of these layers when it is called."""

    def listener(name: str) -> Callable[..., None]:
        def listen(layer: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if len(inputs) != 1 or not isinstance(inputs[0], torch.Tensor):
                raise UnsupportedError(f"head: {name!r} does not take one tensor, which alone is read")
            hear(name, inputs[0], output)

        return listen

    handles = [layer.register_forward_hook(listener(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _twin(model: torch.nn.Module, X: np.ndarray) -> tuple[torch.nn.Module, torch.dtype]:
    """Return a copy of the model in evaluation mode on the CPU, in the first precision in which it runs."""
    first: Exception | None = None
    for dtype in (torch.float64, torch.float32):
        twin = copy.deepcopy(model).cpu().to(dtype).eval()
        try:
            with torch.no_grad():
                twin(torch.as_tensor(X[:1], dtype=dtype))
            return twin, dtype
        except RuntimeError as error:
            first = first or error
    why = (str(first).splitlines() or [""])[0]
    raise InputError(f"the module cannot be applied to X of shape {X.shape}: {why}") from first


def _last_layers(model: torch.nn.Module, X: np.ndarray) -> tuple[str, str]:
    """Return the names of the last two Linear layers that the model calls."""
    twin, dtype = _twin(model, X)
    called: list[str] = []
    linear = {name: layer for name, layer in twin.named_modules() if isinstance(layer, torch.nn.Linear)}
    with torch.no_grad(), _listening(linear, lambda name, _, __: called.append(name)):
        twin(torch.as_tensor(X[:1], dtype=dtype))
    if len(called) < 2 or len(set(called[-2:])) < 2 or any(called.count(name) > 1 for name in called[-2:]):
        raise UnsupportedError(
            f"head={AUTO!r} needs a model that ends in two Linear layers, and this one calls "
            f"{', '.join(map(repr, called)) or 'none'}: give the name of a submodule"
        )
    return called[-2], called[-1]


def _sequential(model: torch.nn.Module, X: np.ndarray, first: str, last: str) -> torch.nn.Module:
    """Return Linear, [ReLU,] Linear with two layers of the model.

    They follow each other in training mode.
    """
    # Dropout between the layers shows in training mode only.
    twin, dtype = _twin(model, X)
    inputs: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}

    def hear(name: str, given: torch.Tensor, output: torch.Tensor) -> None:
        inputs[name], outputs[name] = given.detach().clone(), output.detach().clone()

    layers = {name: twin.get_submodule(name) for name in (first, last)}
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _listening(layers, hear):
        try:
            twin.train()(torch.as_tensor(X[:TRAINING_SAMPLES], dtype=dtype))
        except (RuntimeError, ValueError) as error:
            raise UnsupportedError(f"head={AUTO!r}: the model does not run in training mode: {error}") from error
    own = [model.get_submodule(first), model.get_submodule(last)]
    for activation in ([torch.nn.ReLU()], []):
        expected = activation[0](outputs[first]) if activation else outputs[first]
        if expected.shape == inputs[last].shape and torch.equal(expected, inputs[last]):
            return torch.nn.Sequential(own[0], *activation, own[1])
    raise UnsupportedError(
        f"head={AUTO!r}: between the last Linear layers, {first!r} and {last!r}, is something else than a ReLU, as "
        "dropout with p > 0, a normalisation or another activation, with which the head is no network of this kind"
    )


def _checked(model: torch.nn.Module, X: np.ndarray, entry: str, head: torch.nn.Module) -> np.ndarray:
    """Return the inputs of the layer `entry` on X.

    Raise UnsupportedError unless the model returns what `head` does.
    """
    twin, dtype = _twin(model, X)
    heard: list[torch.Tensor] = []
    outputs, calls = [], 0
    with torch.no_grad(), _listening({entry: twin.get_submodule(entry)}, lambda _, given, __: heard.append(given)):
        for start in range(0, len(X), BATCH):
            output = twin(torch.as_tensor(X[start : start + BATCH], dtype=dtype))
            if not isinstance(output, torch.Tensor):
                raise UnsupportedError(f"the model returns a {type(output).__name__}, where one tensor is read")
            outputs.append(output)
            calls += 1
    if len(heard) != calls:
        raise UnsupportedError(f"head: the model calls {entry!r} {len(heard) / calls:g} times, where once is read")
    features, expected = torch.cat(heard), torch.cat(outputs)
    with torch.no_grad():
        found = copy.deepcopy(head).cpu().to(dtype).eval()(features)
    scale = float(expected.abs().max()) or 1.0
    if found.numel() != expected.numel() or not torch.allclose(
        found.ravel(), expected.ravel(), rtol=0.0, atol=REPRODUCED[dtype] * scale
    ):
        raise UnsupportedError(
            f"the outputs of the model are not those of its head at {entry!r}: something follows it, or goes past it"
        )
    return features.double().numpy()
