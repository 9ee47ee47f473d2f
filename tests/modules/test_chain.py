"""Modules that wrap, reshape or cast are read; modules that were trained by another objective are refused."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import convexnn_bench as cnn
from convexnn_bench.modules import read_module
from convexnn_bench.modules.memory import overlaps


class Net(nn.Module):
    """Two layers with a forward that is a function of the module and its data."""

    def __init__(self, forward, outputs=1, first=None):
        super().__init__()
        self.first, self.last = first or nn.Linear(4, 5), nn.Linear(5, outputs)
        self.way = forward

    def hidden(self, x):
        return functional.relu(self.first(x))

    def forward(self, x):
        return self.way(self, x)


def plain(outputs=1):
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, outputs))


def shape_is_asserted(net, x):
    assert x.ndim == 2
    assert x.shape[1] == 4, "four features"
    return net.last(net.hidden(x))


def sizes_are_printed(net, x):
    print("inputs", x.shape, len(x))
    x.mean()
    return net.last(net.hidden(x))


def branches_on_sizes(net, x):
    return net.last(net.hidden(x.flatten(1) if x.dim() > 2 else x))


class Optional(nn.Module):
    """A forward with an optional argument that is never passed."""

    def __init__(self):
        super().__init__()
        self.layers = plain()

    def forward(self, x, mask=None, *, features=False):
        hidden = self.layers[1](self.layers[0](x))
        if mask is not None:
            hidden = hidden * mask
        return hidden if features else self.layers[2](hidden)


def views_of_one_vector():
    module = plain()
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(module.parameters()).detach(), module.parameters())
    return module


# Made when a test runs, because torch.compile takes seconds to import.
HARMLESS = {
    "DataParallel": lambda: nn.DataParallel(plain()),
    "torch.compile": lambda: torch.compile(plain()),
    "AveragedModel": lambda: torch.optim.swa_utils.AveragedModel(plain()),
    "an average of a compiled module": lambda: torch.optim.swa_utils.AveragedModel(torch.compile(plain())),
    "a compiled layer": lambda: nn.Sequential(
        torch.compile(nn.Linear(4, 5)), nn.ReLU(), nn.DataParallel(nn.Linear(5, 1))
    ),
    "scripted": lambda: torch.jit.script(plain()),
    "traced": lambda: torch.jit.trace(plain(), torch.zeros(2, 4)),
    "squeeze": lambda: Net(lambda net, x: net.last(net.hidden(x)).squeeze()),
    "flatten": lambda: Net(lambda net, x: net.last(net.hidden(x)).flatten()),
    "view": lambda: Net(lambda net, x: net.last(net.hidden(x)).view(-1)),
    "reshape": lambda: Net(lambda net, x: net.last(net.hidden(x)).reshape(len(x))),
    "first column": lambda: Net(lambda net, x: net.last(net.hidden(x))[:, 0]),
    "ellipsis": lambda: Net(lambda net, x: net.last(net.hidden(x))[..., 0]),
    "another axis": lambda: Net(lambda net, x: net.last(net.hidden(x)).unsqueeze(1).squeeze(-1)),
    "float": lambda: Net(lambda net, x: net.last(net.hidden(x.float()))),
    "float and double": lambda: Net(lambda net, x: net.last(net.hidden(x.float())).double()),
    "to": lambda: Net(lambda net, x: net.last(net.hidden(x.to(net.last.weight.device, non_blocking=True))).cpu()),
    "type": lambda: Net(lambda net, x: net.last(net.hidden(x.type_as(net.last.weight).contiguous()))),
    "optional": lambda: Optional(),
    "asserted": lambda: Net(shape_is_asserted),
    "printed": lambda: Net(sizes_are_printed),
    "branches on sizes": lambda: Net(branches_on_sizes),
    "dropout without effect": lambda: Net(
        lambda net, x: net.last(functional.dropout(net.hidden(x), 0.0, net.training))
    ),
    "a graph of torch.fx": lambda: torch.fx.symbolic_trace(plain()),
    "frozen as a whole": lambda: plain().requires_grad_(False),
    "views of one vector": views_of_one_vector,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_no_value_is_read(name, capsys):
    """The reading has the weights of the two layers and the outputs of the module."""
    module, X = HARMLESS[name](), np.random.default_rng(0).standard_normal((6, 4))
    before = copy.deepcopy(module.state_dict())
    reading = read_module(module, X)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # compiling takes a minute
        expected = module(torch.as_tensor(X, dtype=torch.float32))
    np.testing.assert_allclose(reading.predict(X).ravel(), expected.ravel(), rtol=1e-4, atol=1e-5)
    weights = [value.double().numpy() for value in module.state_dict().values() if value.ndim == 2]
    assert sorted(weight.size for weight in weights) == [5, 20]
    np.testing.assert_array_equal(reading.W1[:4].T, next(weight for weight in weights if weight.size == 20))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("outputs", "shape"), [(3, (7, 4)), (1, (1, 4)), (3, (1, 4))], ids=["three outputs", "one sample", "one of three"]
)
def test_a_squeeze_keeps_every_output(outputs, shape):
    X = np.random.default_rng(1).standard_normal(shape)
    net = Net(lambda net, x: net.last(net.hidden(x)).squeeze(), outputs)
    assert read_module(net, X).predict(X).shape == (shape[0], outputs)


def test_images_that_the_module_shapes_itself():
    """Rows of 16 pixels become images in the forward; the problem is that of the convolution."""
    X = np.random.default_rng(2).standard_normal((5, 16))
    layers = nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
    module = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), *layers).double()
    reading, images = read_module(module, X), read_module(nn.Sequential(*layers), X.reshape(5, 1, 4, 4))
    assert reading.words == images.words
    np.testing.assert_array_equal(reading.data(X), images.data(X.reshape(5, 1, 4, 4)))
    np.testing.assert_allclose(reading.predict(X), module(torch.as_tensor(X)).detach().numpy(), rtol=1e-12)


# -- trained on another problem ---------------------------------------------------------------------------------------


def first_frozen():
    module = plain()
    module[0].requires_grad_(False)
    return module


def bias_frozen():
    module = plain()
    module[2].bias.requires_grad_(False)
    return module


def tied(transposed):
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    weight = module[0].weight.data
    module[2].weight.data = weight.T if transposed else weight
    return module


def overlapping_rows():
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    rows = torch.randn(7, 4)
    module[0].weight.data, module[2].weight.data = rows[:4], rows[3:]
    return module


def repeated_row():
    module = plain()
    module[0].weight.data = torch.randn(1, 4).expand(5, 4)
    return module


def without_gradient(net, x):
    with torch.no_grad():
        hidden = net.hidden(x)
    return net.last(hidden)


def dropout_while_training(net, x):
    hidden = net.hidden(x)
    return net.last(functional.dropout(hidden, 0.3) if net.training else hidden)


OTHERWISE = {
    "frozen layer": (first_frozen(), "frozen parameters 0.weight, 0.bias .*requires_grad_"),
    "frozen bias": (bias_frozen(), "frozen parameters 2.bias"),
    "tied": (tied(False), "0.weight and 2.weight in the same memory"),
    "tied and transposed": (tied(True), "0.weight and 2.weight in the same memory"),
    "overlapping": (overlapping_rows(), "in the same memory"),
    "repeated": (repeated_row(), "0.weight and 0.weight in the same memory"),
    "no_grad": (Net(without_gradient), "first.weight, first.bias, which no gradient reaches"),
    "data": (Net(lambda net, x: net.last(torch.relu(net.first(x))) + 0 * x.sum()), "no chain"),
    "dropout in training": (Net(dropout_while_training).eval(), "dropout: with dropout .* random objective.*p = 0"),
    "dropout by its flag": (
        Net(lambda net, x: net.last(functional.dropout(net.hidden(x), training=net.training))).eval(),
        "random objective",
    ),
    "dropout layer": (nn.Sequential(nn.Dropout(0.2), *plain()).eval(), r"layer '0' = Dropout\(p=0.2"),
    "alpha dropout": (nn.Sequential(nn.AlphaDropout(0.2), *plain()).eval(), "random objective"),
    "noise in training": (
        Net(lambda net, x: net.last(net.hidden(x + torch.randn_like(x) if net.training else x))).eval(),
        "uses randn_like",
    ),
    "batch norm": (
        nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1)).eval(),
        "layer '1' = BatchNorm1d.*weight decay acts on other weights.*fuse_linear_bn_eval",
    ),
    "layer norm": (nn.Sequential(nn.LayerNorm(4), *plain()), "layer '0' = LayerNorm.*each sample"),
    "batch norm after ReLU": (nn.Sequential(*plain()[:2], nn.BatchNorm1d(5), nn.Linear(5, 1)), "BatchNorm1d"),
    "softmax": (nn.Sequential(*plain(3), nn.Softmax(dim=1)), "layer '3' = Softmax.*CrossEntropyLoss contains the"),
    "softmax function": (Net(lambda net, x: net.last(net.hidden(x)).softmax(-1), 3), "CrossEntropyLoss contains"),
    "softmax between": (nn.Sequential(nn.Linear(4, 5), nn.Softmax(1), nn.Linear(5, 1)), "between its layers"),
    "sigmoid between": (nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 1)), "between its layers"),
    "log-softmax over samples": (nn.Sequential(*plain(3), nn.LogSoftmax(dim=0)), "axis 0"),
    "values decide": (
        Net(lambda net, x: net.last(net.hidden(x)) if x.sum() > 0 else net.last(net.first(x))),
        "by the values",
    ),
    "one of two outputs": (Net(lambda net, x: net.last(net.hidden(x))[:, 0], 2), "leaves out some values"),
    "several results": (Net(lambda net, x: (net.last(net.hidden(x)), x)), "returns a tuple"),
    "transposed": (Net(lambda net, x: net.last(net.hidden(x)).T), "uses T"),
    "a scripted layer": (nn.Sequential(torch.jit.script(nn.Linear(4, 5)), *plain()[1:]), "TorchScript part '0'"),
    "tanh": (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)), r"layer '1' = Tanh\(\), an activation with"),
    "gelu": (Net(lambda net, x: net.last(functional.gelu(net.first(x)))), "uses gelu, an activation with which"),
    "max pool": (nn.Sequential(*plain()[:2], nn.MaxPool1d(1), nn.Linear(5, 1)), "MaxPool1d.*not linear"),
    "another argument": (Net(lambda net, x, y=None: y(x)), "cannot be traced"),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_was_trained_on_another_problem_is_refused_with_the_reason(name):
    module, words = OTHERWISE[name]
    with pytest.raises(cnn.UnsupportedError, match=words) as caught:
        cnn.certify_module(module, np.random.default_rng(0).standard_normal((6, 4)), np.ones(6), "squared", 0.1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pool",
    [
        lambda maps: maps.mean((2, 3)),
        lambda maps: maps.mean([-1, -2], keepdim=True).squeeze(),
        lambda maps: functional.adaptive_avg_pool2d(maps, 1).squeeze(-1).squeeze(-1),
        lambda maps: functional.avg_pool2d(maps, 4)[..., 0, 0],
    ],
)
def test_ways_to_pool_everything(pool):
    class Pooled(Net):
        def hidden(self, x):
            return pool(functional.relu(self.first(x)))

    module = Pooled(lambda net, x: net.last(net.hidden(x)), first=nn.Conv2d(1, 5, 2)).double()
    X = np.random.default_rng(0).standard_normal((6, 1, 5, 5))
    reading = read_module(module, X)
    assert "1 pooled values a filter" in reading.words
    np.testing.assert_allclose(reading.predict(X), module(torch.as_tensor(X)).detach().numpy(), rtol=1e-10)


def test_a_scripted_module_that_cannot_be_told_is_refused_with_what_to_do():
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1)))
    with pytest.raises(cnn.UnsupportedError, match=r"TorchScript module with other layers.*load_state_dict"):
        read_module(scripted, np.ones((2, 1, 3, 3)))
    frozen = torch.jit.freeze(torch.jit.script(plain().eval()))
    with pytest.raises(cnn.UnsupportedError, match=r"frozen TorchScript module.*load_state_dict"):
        read_module(frozen, np.ones((2, 4)))
    tanh = torch.jit.script(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)))
    with pytest.raises(cnn.UnsupportedError, match="does not reproduce"):
        read_module(tanh, np.random.default_rng(0).standard_normal((3, 4)))


def test_a_function_of_evaluation_alone_is_noted():
    """Logits in training and probabilities in evaluation: the training problem is that of the logits."""
    X = np.random.default_rng(0).standard_normal((6, 4))
    net = Net(lambda net, x: net.last(net.hidden(x)) if net.training else net.last(net.hidden(x)).softmax(1), 3).eval()
    reading = read_module(net, X)
    assert "evaluation mode" in " ".join(reading.notes)
    np.testing.assert_allclose(reading.predict(X), copy.deepcopy(net).train().double()(torch.as_tensor(X)).detach())
    assert read_module(HARMLESS["squeeze"](), X).notes == ()


@pytest.mark.parametrize("library", ["sklearn.neural_network", "keras.models"])
def test_networks_of_other_libraries_get_the_reason(library):
    other = type("MLP", (), {"__module__": library})()
    with pytest.raises(cnn.InputError, match="biases without weight decay"):
        cnn.certify_module(other, np.ones((2, 2)), np.ones(2), weight_decay=0.1)


def test_overlaps_are_those_of_memory():
    base = torch.zeros(10)
    pairs = {"a": base[:4], "b": base[4:8], "c": base[7:], "d": torch.zeros(3)}
    assert list(overlaps(pairs)) == [("b", "c")]
    assert list(overlaps({"a": base, "b": base[2:3], "c": base[5:6]})) == [("a", "b"), ("a", "c")]
    assert list(overlaps({"a": torch.zeros(1).expand(3), "b": torch.zeros(0)})) == [("a", "a")]
