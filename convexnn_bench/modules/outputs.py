"""Run a torch module on the data, and compare its outputs with those of its reading."""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from convexnn_bench.errors import ConvexNNError, InputError, NotFiniteError, UnsupportedError
from convexnn_bench.modules.reading import Reading
from convexnn_bench.modules.refusals import refuse
from convexnn_bench.modules.wrappers import has_own_forward

REPRODUCED = 1e-6  # largest difference between the module's outputs and those of its reading, relative to the largest
# Functions at the end of a module that are part of some losses of torch, and their names in `Reading.head`.
HEADS = {
    **dict.fromkeys((torch.sigmoid, torch.special.expit, torch.nn.functional.sigmoid), "sigmoid"),
    torch.Tensor.sigmoid: "sigmoid",
    **dict.fromkeys((torch.log_softmax, torch.special.log_softmax, torch.nn.functional.log_softmax), "log_softmax"),
    torch.Tensor.log_softmax: "log_softmax",
}


class _WithoutHeads(torch.overrides.TorchFunctionMode):
    """A mode in which sigmoid and log-softmax return their argument, to compare the values before a head."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in HEADS:
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)


@dataclass(frozen=True)
class ModuleRun:
    """The outputs of a module on the data, their precision, and the parameters that are not trained."""

    outputs: np.ndarray
    dtype: torch.dtype
    untrained: tuple[str, ...]


def run_on(module: torch.nn.Module, X: np.ndarray) -> ModuleRun | None:
    """Run the module on X in training mode. Return None if it cannot be called with X alone.

    Raise InputError if X does not fit.
    """
    # In float64, any difference between outputs shows that the reading is wrong. A module that casts to float32 must be
    # run in float32.
    first = None
    for dtype in (torch.float64, torch.float32):
        try:
            return _applied(module, X, dtype)
        except RuntimeError as error:
            first = first or error
        except ConvexNNError:
            raise
        except Exception:  # the forward may raise any exception; `read_module` says later why it is not supported
            return None
    why = [line for line in str(first).splitlines() if line.strip()][-1:]  # TorchScript puts the reason last
    words = _misfit(module, X) or " ".join(why)
    raise InputError(f"the module cannot be applied to X of shape {X.shape}: {words}") from first


def _misfit(module: torch.nn.Module, X: np.ndarray) -> str | None:
    """Return in words which layer gets inputs of a wrong size, or None if the module fails otherwise."""
    if isinstance(module, torch.jit.ScriptModule):
        return None
    entered: list[tuple[str, torch.nn.Module, torch.Size]] = []

    def entering(name: str) -> Callable[..., None]:
        return lambda layer, inputs: entered.append((name, layer, inputs[0].shape))

    twin = copy.deepcopy(module).cpu().double()
    for name, layer in twin.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            layer.register_forward_pre_hook(entering(name))
    with torch.no_grad(), suppress(RuntimeError):
        twin(torch.as_tensor(X))
    if not entered:
        return None
    # The layer that was entered last has failed.
    name, layer, shape = entered[-1]
    if isinstance(layer, torch.nn.Linear) and shape[-1] != layer.in_features:
        columns = f"X has {X.shape[1]} columns" if X.ndim == 2 else f"X is {' x '.join(map(str, X.shape))}"
        return f"its layer {name!r} has in_features={layer.in_features} and gets {shape[-1]} ({columns})"
    if isinstance(layer, torch.nn.Conv2d) and len(shape) == 4 and shape[1] != layer.in_channels:
        return f"its layer {name!r} has in_channels={layer.in_channels} and gets {shape[1]} (X is n x channels x h x w)"
    return None


def _applied(
    module: torch.nn.Module, X: np.ndarray, dtype: torch.dtype, *, training: bool = True, without_head: bool = False
) -> ModuleRun:
    """Run a copy of the module in this precision."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    portable = device.type not in ("cpu", "cuda")  # other devices may lack float64
    if portable:
        device = torch.device("cpu")
    scripted = isinstance(module, torch.jit.ScriptModule)  # its graph of autograd is compiled
    with torch.no_grad():
        twin = copy.deepcopy(module)
        twin = (twin.cpu() if portable else twin).to(dtype=dtype).train(training)
    if not scripted:
        twin.requires_grad_(True)
    with _WithoutHeads() if without_head else nullcontext(), torch.set_grad_enabled(not scripted):
        output = twin(torch.as_tensor(X, dtype=dtype, device=device))
    if not isinstance(output, torch.Tensor):
        raise refuse(f"returns a {type(output).__name__}, where one tensor of outputs is read")
    untrained: list[str] = []
    if not scripted:
        reached = set(_reached(output))
        untrained = [name for name, parameter in twin.named_parameters() if id(parameter) not in reached]
    return ModuleRun(output.detach().cpu().double().numpy(), dtype, tuple(untrained))


def _reached(output: torch.Tensor) -> Iterator[int]:
    """Yield the ids of the tensors that gradients of the output reach, from the graph of autograd."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        function = waiting.pop()
        if function is not None and function not in seen:
            seen.add(function)
            waiting += [following for following, _ in function.next_functions]
            if hasattr(function, "variable"):
                yield id(function.variable)


def check_outputs(module: torch.nn.Module, reading: Reading, X: np.ndarray, run: ModuleRun) -> None:
    """Raise UnsupportedError where the reading does not reproduce the module's outputs on X."""
    try:
        computed = reading.predict(X)
    except RuntimeError as error:  # such as Linear layers on the last axis of sequences
        raise UnsupportedError(
            f"the module was read as {reading.words}, which does not take X of shape {X.shape}: is a Flatten missing?"
        ) from error
    # inf - inf cannot be compared.
    if not (np.isfinite(computed).all() and np.isfinite(run.outputs).all()):
        raise NotFiniteError("the module's outputs on X are not finite numbers; rescale X or the weights")
    same = _agrees(reading, X, computed, run)
    if reading.head is not None:
        # A head may map different large values to the same number, so that the values before it are compared as well.
        before = _agrees(reading, X, computed, _applied(module, X, run.dtype, without_head=True))
        values = torch.as_tensor(computed)
        after = torch.sigmoid(values) if reading.head == "sigmoid" else torch.log_softmax(values, dim=1)
        whole = computed.size == run.outputs.size
        allowed = REPRODUCED if run.dtype == torch.float64 else 1e-3
        same = before and whole and np.allclose(after.numpy().ravel(), run.outputs.ravel(), rtol=allowed, atol=allowed)
    if not same:
        raise UnsupportedError(f"the module was read as {reading.words}, but that does not reproduce its outputs on X")


def _agrees(reading: Reading, X: np.ndarray, computed: np.ndarray, run: ModuleRun) -> bool:
    """Return True if a run's outputs equal those of the reading up to rounding.

    computed: the outputs of the reading.
    """
    # A squeeze or a flatten of the outputs keeps their order.
    if computed.size != run.outputs.size:
        return False
    expected = run.outputs.reshape(computed.shape)
    allowed = REPRODUCED * np.full(computed.shape, np.abs(expected).max(initial=1e-300))
    if run.dtype != torch.float64:
        # the usual bound on rounding errors of the products (Higham, section 3.5), with all entries made positive
        sizes = replace(
            reading,
            W1=np.abs(reading.W1),
            W2=np.abs(reading.W2),
            output_bias=None if reading.output_bias is None else np.abs(reading.output_bias),
        )
        terms = 10 + len(reading.W1) + reading.W2.size
        allowed = terms * float(torch.finfo(run.dtype).eps) * sizes.predict(np.abs(X))
    return bool((np.abs(computed - expected) <= allowed).all())


def evaluation_note(module: torch.nn.Module, X: np.ndarray, run: ModuleRun) -> tuple[str, ...]:
    """Return a note if the module has other outputs in evaluation mode than in training mode."""
    if not any(has_own_forward(part) for part in module.modules()):
        return ()
    other = _applied(module, X, run.dtype, training=False).outputs
    scale = np.abs(run.outputs).max(initial=1e-300)
    if other.size == run.outputs.size and np.allclose(other.ravel(), run.outputs.ravel(), rtol=0, atol=1e-4 * scale):
        return ()
    return ("In evaluation mode the module has other outputs; it is judged by those in training mode.",)
