"""Weight decay by layers, by parameters and by optimiser, as one number for each parameter."""

import pytest
import torch
from torch import nn

import convexnn_bench as cnn
from convexnn_bench.modules import Decay, read_weight_decay

NAMES = {
    "first.weight": "0.weight", "first.bias": "0.bias", "second.weight": "2.weight", "second.bias": "2.bias",
}  # fmt: skip


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def numbers(decay: Decay):
    return decay.first, decay.first_bias, decay.second, decay.second_bias


def read(weight_decay=None, optimizer=None, module=None, bias_decay=True, output_bias="penalised", parameters=NAMES):
    return read_weight_decay(weight_decay, optimizer, module or network(), parameters, bias_decay, output_bias)


@pytest.mark.parametrize(
    ("weight_decay", "bias_decay", "output_bias", "expected"),
    [
        (0.5, True, "penalised", (0.5, 0.5, 0.5, 0.5)),
        (0.5, False, "free", (0.5, 0.0, 0.5, 0.0)),
        ({"first": 1.0, "second": 0.25}, True, "penalised", (1.0, 1.0, 0.25, 0.25)),
        ({"first": 1.0, "second": 0.25}, False, "free", (1.0, 0.0, 0.25, 0.0)),
        ({"2.bias": 4, "0.weight": 1, "0.bias": 2, "2.weight": 3}, True, "penalised", (1.0, 2.0, 3.0, 4.0)),
        ({"2.bias": 0, "0.weight": 1, "0.bias": 0, "2.weight": 3}, False, "free", (1.0, 0.0, 3.0, 0.0)),
    ],
)
def test_numbers_for_layers_and_parameters(weight_decay, bias_decay, output_bias, expected):
    assert numbers(read(weight_decay, bias_decay=bias_decay, output_bias=output_bias)) == expected


def test_a_layer_without_bias_has_no_number_for_it():
    decay = read({"first": 1.0, "second": 2.0}, parameters={"first.weight": "a.weight", "second.weight": "b.weight"})
    assert numbers(decay) == (1.0, None, 2.0, None)


def test_parameter_groups_of_an_optimiser():
    module = network()
    groups = [
        {"params": [module[0].weight], "weight_decay": 0.1}, {"params": [module[2].weight], "weight_decay": 0.2},
        {"params": [module[0].bias, module[2].bias]},
    ]  # fmt: skip
    decay = read(optimizer=torch.optim.SGD(groups, lr=0.1), module=module)
    assert numbers(decay) == (0.1, 0.0, 0.2, 0.0)
    assert "The optimiser SGD has 0.1 on 0.weight, 0 on 0.bias, 0.2 on 2.weight, 0 on 2.bias" in decay.source
    wrapped = nn.DataParallel(module)
    assert numbers(read(optimizer=torch.optim.Adam(groups, lr=0.1), module=wrapped)) == (0.1, 0.0, 0.2, 0.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.AdamW(parameters, weight_decay=0.1),
        lambda parameters: torch.optim.NAdam(parameters, weight_decay=0.1, decoupled_weight_decay=True),
    ],
)
def test_decoupled_weight_decay_is_named(make):
    module = network()
    source = read(optimizer=make(module.parameters()), module=module).source
    assert "decouples weight decay from the gradient, where it is a term of no objective" in source


def own_groups(weights, biases, **options):
    module = network()
    parts = [module[0].weight, module[2].weight], [module[0].bias, module[2].bias]
    pairs = zip(parts, (weights, biases), strict=True)
    groups = [{"params": part, "weight_decay": lam} for part, lam in pairs if lam is not None]
    return {"module": module, "optimizer": torch.optim.SGD(groups, lr=0.1, **options)}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weight_decay": 0}, "weight_decay must be a positive number"),
        ({"weight_decay": None}, "weight_decay must be a positive number"),
        ({"weight_decay": {"first": 1.0}}, "keys 'first' and 'second' and no others, got 'first'"),
        ({"weight_decay": {"first": 1.0, "second": 1.0, "third": 1.0}}, "keys 'first' and 'second' and no others"),
        ({"weight_decay": {"first": 1.0, "second": 0.0}}, "weight decay of 'second' is 0; without weight decay on it"),
        ({"weight_decay": {"first": -1.0, "second": 1.0}}, r"weight_decay\['first'\] must be"),
        ({"weight_decay": {"0.weight": 1.0, "2.weight": 1.0, "2.bias": 1.0}}, "'0.bias' is missing"),
        ({"weight_decay": {**dict.fromkeys(NAMES.values(), 1.0), "4.bias": 1.0}}, "no parameter '4.bias'"),
        ({"weight_decay": {**dict.fromkeys(NAMES.values(), 1.0), "0.weight": 0}}, "weight decay of '0.weight' is 0"),
        ({"weight_decay": dict.fromkeys(NAMES.values(), 1.0), "bias_decay": False}, "bias_decay=False contradicts"),
        ({"weight_decay": dict.fromkeys(NAMES.values(), 1.0), "output_bias": "free"}, "output_bias='free' contradicts"),
        ({"weight_decay": {"0.weight": 1.0}, "parameters": {}}, "for TorchScript; give"),
        ({"optimizer": "sgd"}, "optimizer must be a torch.optim.Optimizer, got str"),
        ({"weight_decay": 0.1, **own_groups(0.1, 0.1)}, "not both"),
        (own_groups(0.1, None), "does not train the module's parameters 0.bias, 2.bias"),
        (own_groups(0.0, 0.1), "weight decay of '0.weight' is 0"),
        (own_groups(0.1, 0.1, maximize=True), "maximize=True"),
        ({"optimizer": own_groups(0.1, 0.1)["optimizer"]}, "does not train the module's parameters 0.weight"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_with_the_reason(given, words):
    with pytest.raises(cnn.InputError, match=words):
        read(**given)
