"""Checkpoints in usual forms: which network is read, which layer comes first, and what is refused."""

import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import convexnn_bench as cnn
from convexnn_bench.modules import load_state, module_from_state

ONES = torch.ones(2, 1)  # a score that is no layer


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()


def saved(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def predictions(state, **options):
    """Return the outputs on some data of the network that was read from a state."""
    module = module_from_state(state, width=2, **options)
    return module(torch.as_tensor(np.random.default_rng(3).standard_normal((4, 2)))).detach()


def optimiser_state():
    """Return the state_dict() of Adam for a weight and its bias."""
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.ones(3, 2), "exp_avg_sq": torch.ones(3, 2)}
    return {"state": {0: moments, 1: moments}, "param_groups": [{"lr": 0.1, "weight_decay": 0.1, "params": [0, 1]}]}


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


def lightning(state):
    return {
        "epoch": 3,
        "global_step": 40,
        "state_dict": prefixed(state, "net."),
        "optimizer_states": [optimiser_state()],
        "lr_schedulers": [{"last_epoch": 3}],
        "hyper_parameters": {"width": 3},
    }


LAYOUTS = {
    "alone": lambda state: state,
    "model_state_dict": lambda state: {
        "model_state_dict": state,
        "epoch": 5,
        "optimizer_state_dict": optimiser_state(),
    },
    "state_dict": lambda state: {"state_dict": state, "loss": 0.3, "best": torch.tensor(0.5)},
    "model": lambda state: {"model": state, "args": {"width": 3, "sizes": [2, 3, 1]}, "scores": ONES},
    "net, twice as deep": lambda state: {"net": {"module": state}, "rng": torch.get_rng_state()},
    "in a list": lambda state: {"models": [state]},
    "a number of numpy": lambda state: {"model": state, "accuracy": np.float64(0.93), "epoch": np.int64(4)},
    "lightning": lightning,
    "DataParallel": lambda state: prefixed(state, "module."),
    "torch.compile": lambda state: prefixed(state, "_orig_mod."),
    "both": lambda state: prefixed(state, "module._orig_mod.net."),
    "averaged": lambda state: {"n_averaged": torch.tensor(4), **prefixed(state, "module.")},
    "loss without weights": lambda state: {"criterion.weight": torch.ones(3), **state},
    "reversed keys": lambda state: OrderedDict(reversed(state.items())),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_network_of_a_checkpoint_is_read(name, tmp_path):
    module = network()
    module_state = {key: value.clone() for key, value in module.state_dict().items()}
    state = load_state(saved(tmp_path, LAYOUTS[name](module_state)))
    assert torch.equal(predictions(state), predictions(module_state))


def test_what_torch_itself_saves_of_an_average(tmp_path):
    averaged = AveragedModel(network())
    averaged.update_parameters(network(1))
    assert torch.equal(
        predictions(load_state(saved(tmp_path, averaged.state_dict()))), predictions(averaged.module.state_dict())
    )


def test_several_networks_are_named_and_one_is_chosen(tmp_path):
    model, ema = network().state_dict(), network(1).state_dict()
    path = saved(tmp_path, {"model": {"state_dict": model}, "ema": prefixed(ema, "module."), "epoch": 1})
    with pytest.raises(cnn.InputError, match=r"several networks: ema, model.state_dict; name one of them with --key"):
        load_state(path)
    for key, state in (("model", model), ("model.state_dict", model), ("ema", ema), ("ema.module", ema)):
        assert torch.equal(predictions(load_state(path, key)), predictions(state))
    with pytest.raises(cnn.InputError, match=r"--key teacher names no network .*it holds ema, model\.state_dict"):
        load_state(path, "teacher")
    # one dict of two networks, as wrappers for averages save it
    flat = saved(tmp_path, {**prefixed(model, "online_model."), **prefixed(ema, "ema_model."), "step": torch.tensor(3)})
    with pytest.raises(cnn.InputError, match=r"several networks: ema_model, online_model"):
        load_state(flat)
    assert torch.equal(predictions(load_state(flat, "ema_model")), predictions(ema))
    single = saved(tmp_path, model)
    with pytest.raises(cnn.InputError, match="it holds one state dict, without a key"):
        load_state(single, "model")


# -- which layer comes first ------------------------------------------------------------------------------------------


def square(first, last, order):
    torch.manual_seed(0)
    layers = {f"{first}.weight": torch.randn(2, 2), f"{last}.weight": torch.randn(2, 2)}
    return {name: layers[name] for name in sorted(layers, reverse=order)}


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("fc1", "fc2"),
        ("0", "2"),
        ("layers.9", "layers.10"),
        ("module.block1.fc", "module.block2.fc"),
        ("encoder", "decoder"),
        ("hidden", "out"),
        ("net.fc_in", "net.fc_out"),
        ("body.0", "head"),
    ],
)
def test_names_tell_the_layers_and_never_the_order_of_keys(first, last, order):
    state = square(first, last, order)
    x = torch.as_tensor(np.random.default_rng(3).standard_normal((4, 2)))
    expected = (x @ state[f"{first}.weight"].double().T).relu() @ state[f"{last}.weight"].double().T
    assert torch.equal(predictions(state), expected)


@pytest.mark.parametrize("names", [("a", "b"), ("fc", "proj"), ("out", "top"), ("w1.fc", "x2.fc")])
def test_layers_that_nothing_tells_apart_have_to_be_named(names):
    state = square(*names, False)
    with pytest.raises(cnn.InputError, match=r"neither the names nor the sizes .*--first-layer"):
        predictions(state)
    one, other = (predictions(state, first_layer=name) for name in names)
    assert not torch.equal(one, other)
    assert torch.equal(predictions(state, first_layer=f"{names[0]}.weight"), one)
    with pytest.raises(cnn.InputError, match=f"first_layer must be one of the layers {names[0]} and {names[1]}"):
        predictions(state, first_layer="middle")


def test_sizes_tell_where_names_do_not():
    torch.manual_seed(0)
    first, last = torch.randn(5, 2), torch.randn(2, 5)
    state = {"b.weight": last, "a.weight": first}
    x = torch.as_tensor(np.random.default_rng(3).standard_normal((4, 2)))
    assert torch.equal(predictions(state), (x @ first.double().T).relu() @ last.double().T)
    with pytest.raises(
        cnn.InputError, match=r"by their names the layer fc1 comes before .*by their sizes it comes last"
    ):
        predictions({"fc1.weight": torch.randn(1, 5), "fc2.weight": first})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"1.running_mean": torch.ones(3), "1.running_var": torch.ones(3)}, "BatchNorm"),
        ({"0.parametrizations.weight.original0": torch.ones(3, 1)}, "weight norm"),
        ({"scale": torch.ones(1)}, "none of two layers' weights and biases: scale"),
        ({"4.weight": torch.ones(1, 1)}, "must be those of Linear, Linear"),
        ({"attention.in_proj_weight": torch.ones(6, 2)}, "softmax attention"),
        ({"rnn.weight_ih_l0": torch.ones(6, 2)}, "a recurrent layer"),
        ({"criterion.weight": torch.tensor([1.0, 2.0])}, "criterion.weight are weights of the loss.*own state dict"),
        ({"loss_fn.pos_weight": torch.tensor([3.0])}, "loss_fn.pos_weight are weights of the loss"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_parameters_of_other_networks_are_refused_by_name(change, words, tmp_path):
    path = saved(tmp_path, {**network().state_dict(), **change})
    with pytest.raises(cnn.InputError, match=words):
        predictions(load_state(path))


# -- what a file may claim --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {"model": state}], ids=["alone", "in a checkpoint"]
)
@pytest.mark.parametrize("shape", [(2**31, 2), (2, 2**31)])
def test_a_small_file_cannot_claim_a_large_tensor(shape, wrap, tmp_path):
    huge = torch.zeros(1).as_strided(shape, (0, 0))
    path = saved(tmp_path, wrap({"0.weight": huge, "2.weight": torch.ones(1, 3)}))
    assert path.stat().st_size < 4096
    with pytest.raises(cnn.InputError, match=r"0.weight claims 4294967296 entries .*the file stores 1"):
        load_state(path)


@pytest.mark.parametrize("name", ["criterion.weight", "n_averaged", "scale"])
def test_no_other_tensor_of_the_network_can_either(name, tmp_path):
    huge = torch.ones(1).as_strided((2**34,), (0,))
    with pytest.raises(cnn.InputError, match=f"{name} claims 17179869184 entries"):
        load_state(saved(tmp_path, {**network().state_dict(), name: huge}))


def test_tied_layers_of_a_file_are_refused(tmp_path):
    weight = torch.randn(3, 3)
    for other in (weight, weight.T, weight.view(-1).view(3, 3)):
        with pytest.raises(cnn.InputError, match=r"0.weight and 2.weight are one piece of memory"):
            load_state(saved(tmp_path, {"0.weight": weight, "2.weight": other}))


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, [1, 2], {"model": {"a": torch.ones(3)}}, {"W1": torch.ones(2, 2)}]
)
def test_a_file_without_layers_says_what_it_holds(content, tmp_path):
    with pytest.raises(cnn.InputError, match="must hold a state dict with the weights of layers"):
        load_state(saved(tmp_path, content))


def test_a_checkpoint_that_contains_itself_ends(tmp_path):
    inside = {"state_dict": {}}
    inside["state_dict"]["again"] = inside
    with pytest.raises(cnn.InputError):
        load_state(saved(tmp_path, inside))


def test_the_parts_of_an_archive_that_are_read_are_all_there(tmp_path):
    """The command recognises a file of torch by the name of the pickle in it."""
    with zipfile.ZipFile(saved(tmp_path, network().state_dict())) as archive:
        assert "model/data.pkl" in archive.namelist()


def test_an_attention_block_is_read_with_and_without_its_output_bias():
    X = torch.as_tensor(np.random.default_rng(0).standard_normal((3, 4, 2)))
    for bias in (False, True):
        block = cnn.AttentionBlock(2, 3, 5, "relu", "mean", bias).double()
        if bias:
            nn.init.normal_(block.bias)
        read = module_from_state(prefixed(block.state_dict(), "net."), "relu", pool="global")
        assert torch.equal(read(X), block(X))
