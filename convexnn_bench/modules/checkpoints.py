"""The network with the parameters of a state dict.

The layers are recognised by the names and the sizes of their weights. The order in the file does not matter.
"""

import re
from collections.abc import Iterable

import torch

from convexnn_bench.errors import InputError
from convexnn_bench.modules.attention_block import AttentionBlock
from convexnn_bench.modules.state_files import State
from convexnn_bench.plugins import Choice

# Names of layers that show which of two comes first, without a number.
FIRST = ("first", "input", "in", "hidden", "encoder", "enc", "features", "backbone", "body", "embed", "lower", "bottom")
LAST = ("last", "second", "output", "out", "decoder", "dec", "classifier", "head", "readout", "final", "upper", "top")
# Patterns for the last part of names of parameters that no supported network has, and the layers that have them.
FOREIGN = (
    (r"running_mean|running_var|num_batches_tracked", "a batch normalisation (BatchNorm)"),
    (r"parametrizations\..*|weight_g|weight_v|weight_orig|weight_u", "a weight norm, spectral norm or pruning"),
    (
        r"in_proj_weight|in_proj_bias|out_proj\.(weight|bias)",
        "softmax attention, which has no convex program of this kind",
    ),
    (r"(weight|bias)_[ih]h_l\d+(_reverse)?", "a recurrent layer"),
    (r"pos_weight|class_weights?", "a weighted loss"),
)


def module_from_state(
    state: State,
    activation: str = "relu",
    stride: int = 1,
    padding: int = 0,
    pool: str = "none",
    *,
    width: int | None = None,
    first_layer: str | None = None,
) -> torch.nn.Module:
    """Return the network with these parameters.

    They are weights of 2 and 2 axes, of 4 and 2 axes, or U and V of 3 axes.

    activation: "relu" or "linear". stride, padding and pool ("none", "global", or the side of the AvgPool2d window) are
    those of a CNN, which do not follow from its parameters. width: the number of features of a sample, where it is
    known. first_layer: the name of the first layer, such as "fc_a", if neither names nor sizes show it. Raise
    InputError if the parameters do not belong to such a network.
    """
    # 1. Recognise the kind of network by the axes of its weights.
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    listed = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    Choice(("relu", "linear")).check("activation", activation)
    last_names = {name.rsplit(".", 1)[-1]: len(shape) for name, shape in shapes.items()}
    if last_names in ({"U": 3, "V": 3}, {"U": 3, "V": 3, "bias": 1}):
        return _attention({name.rsplit(".", 1)[-1]: value for name, value in state.items()}, activation, pool, listed)
    if stride < 1 or padding < 0:
        raise InputError(f"stride must be at least 1 and padding at least 0, got {stride} and {padding}")
    weights = _layer_weights(shapes, listed)
    # 2. Find the first layer and the last.
    head, tail = _in_order(weights, shapes, width, first_layer)
    # 3. Build the layers with the sizes of the parameters.
    first, last = shapes[head], shapes[tail]
    has_bias = [_bias_of(name) in shapes for name in (head, tail)]
    body: list[torch.nn.Module] = [torch.nn.ReLU()] if activation == "relu" else []
    if len(first) == 2:
        start: torch.nn.Module = torch.nn.Linear(first[1], first[0], bias=has_bias[0])
        layers = [torch.nn.Flatten(), start, *body]
    else:
        kernel = (first[2], first[3])
        start = torch.nn.Conv2d(first[1], first[0], kernel, stride=stride, padding=padding, bias=has_bias[0])
        layers = [start, *body, *_pooling(pool), torch.nn.Flatten()]
    end = torch.nn.Linear(last[1], last[0], bias=has_bias[1])
    # 4. Copy the parameters into the layers, and refuse sizes that do not fit.
    with torch.no_grad():
        for layer, name in ((start, head), (end, tail)):
            for target, source in ((layer.weight, name), (layer.bias, _bias_of(name))):
                if target is None:
                    continue
                if target.shape != shapes[source]:
                    raise InputError(f"the parameters do not fit together: {listed}")
                target.data = state[source].detach().clone().double()
    return torch.nn.Sequential(*layers, end).double()


def foreign_parameters(names: Iterable[str]) -> str | None:
    """Return the kind of unsupported layer that the names of parameters show, with the names, or None."""
    for pattern, what in FOREIGN:
        found = [name for name in names if re.search(rf"(^|\.)({pattern})$", name)]
        if found:
            return f"{what}: {', '.join(found)}"
    return None


def _bias_of(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"


def _layer_weights(shapes: dict[str, tuple[int, ...]], listed: str) -> list[str]:
    """Return the names of two weights.

    Raise InputError unless all other parameters are their biases.
    """
    weights = [name for name, shape in shapes.items() if len(shape) >= 2]
    foreign = foreign_parameters(shapes)
    if foreign:
        raise InputError(f"the state dict holds parameters of {foreign}")
    named = all(name.rsplit(".", 1)[-1] == "weight" for name in weights)
    if sorted(len(shapes[name]) for name in weights) not in ([2, 2], [2, 4]) or not named:
        raise InputError(
            "the parameters must be those of Linear, Linear, of Conv2d, Linear, or U and V of an AttentionBlock, by "
            f"torch's names NAME.weight and NAME.bias; got {listed}"
        )
    extra = sorted(set(shapes) - {*weights, *map(_bias_of, weights)})
    if extra:
        raise InputError(
            f"the state dict holds parameters that are none of two layers' weights and biases: {', '.join(extra)}"
        )
    return weights


def _in_order(
    weights: list[str], shapes: dict[str, tuple[int, ...]], width: int | None, first_layer: str | None
) -> tuple[str, str]:
    """Return the names of the first and the last weight."""
    pairs = [(one, other) for one, other in (weights, weights[::-1])]
    if first_layer is not None:
        chosen = [pair for pair in pairs if first_layer in (pair[0], pair[0].removesuffix(".weight"))]
        if not chosen:
            have = " and ".join(name.removesuffix(".weight") for name in sorted(weights))
            raise InputError(f"first_layer must be one of the layers {have}, got {first_layer!r}")
        return chosen[0]
    # 1. A convolution comes first.
    if len({len(shapes[name]) for name in weights}) > 1:
        return max(pairs, key=lambda pair: len(shapes[pair[0]]))
    # 2. Names that show an order decide, and the sizes must agree with them.
    ordered = [pair for pair in pairs if _precedes(*pair)]
    fits = [(one, other) for one, other in pairs if shapes[other][1] == shapes[one][0]]
    layers = " and ".join(name.removesuffix(".weight") for name in sorted(weights))
    if ordered:
        if fits and ordered[0] not in fits:
            raise InputError(
                f"by their names the layer {ordered[0][0].removesuffix('.weight')} comes before the other of {layers}, "
                "by their sizes it comes last: name the first layer with --first-layer"
            )
        return ordered[0]
    # 3. Otherwise the sizes decide: the first layer takes the data, and the last takes the outputs of the first.
    if len(fits) > 1 and width is not None:
        fits = [pair for pair in fits if shapes[pair[0]][1] == width]
    if len(fits) != 1:
        raise InputError(
            f"neither the names nor the sizes of the layers {layers} tell which comes first: name it with --first-layer"
        )
    return fits[0]


def _precedes(one: str, other: str) -> bool:
    """Return True if the names of two weights show that the first comes before the second."""
    # fc1 and fc2, 0 and 2, layers.9 and layers.10: equal words, and numbers that grow
    first, second = (re.split(r"(\d+)", name) for name in (one, other))
    if first[::2] == second[::2] and len(first) == len(second):
        return [int(number) for number in first[1::2]] < [int(number) for number in second[1::2]]
    # encoder and decoder, hidden and out: the first word in which they differ
    parts = zip(re.split(r"[._]|(?<=\D)(?=\d)", one), re.split(r"[._]|(?<=\D)(?=\d)", other), strict=False)
    words = next(((a, b) for a, b in parts if a != b), ("", ""))
    return words[0].lower() in FIRST and words[1].lower() in LAST


def _attention(state: State, activation: str, pool: str, listed: str) -> torch.nn.Module:
    heads, d, _ = state["U"].shape
    output, bias = "mean" if pool == "global" else "tokens", "bias" in state
    block = AttentionBlock(d, state["V"].shape[2], heads, activation, output, bias).double()  # or loading would round
    try:
        block.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"the parameters do not fit together: {listed}") from error
    return block


def _pooling(pool: str) -> list[torch.nn.Module]:
    if pool == "none":
        return []
    if pool == "global":
        return [torch.nn.AdaptiveAvgPool2d(1)]
    if not pool.isdecimal() or int(pool) < 1:
        raise InputError(f"pool must be 'none', 'global' or the side of the AvgPool2d window, got {pool!r}")
    return [torch.nn.AvgPool2d(int(pool))]
