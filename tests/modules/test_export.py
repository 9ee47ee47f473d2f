"""Points as torch modules: the predictions of `predict`, in plain layers that `certify_module` and ONNX understand."""

import numpy as np
import pytest
import torch
from points import DATA, RNG, close, points_of, problem_of

import convexnn_bench as cnn
from convexnn_bench.formulations import Point
from convexnn_bench.modules import to_torch
from convexnn_bench.prediction import Predictor

LAYERS = {
    ("mlp", "linear"): "Linear",
    ("mlp", "gated_relu"): "GatedMLP",
    ("mlp", "relu"): "Linear ReLU Linear",
    ("cnn", "linear"): "Flatten Linear",
    ("cnn", "gated_relu"): "GatedCNN",
    ("cnn", "relu"): "Conv2d ReLU AdaptiveAvgPool2d Flatten Linear",
    **{(kind, name): "AttentionBlock" for kind in ("tokens", "mean") for name in ("linear", "relu")},
    **{(kind, "gated_relu"): "GatedAttention" for kind in ("tokens", "mean")},
}
BATCH = ({0: torch.export.Dim("n")},)


def outputs(module: torch.nn.Module, X: np.ndarray) -> np.ndarray:
    dtype = next(module.parameters()).dtype
    with torch.no_grad():
        return module(torch.as_tensor(X, dtype=dtype)).numpy()


def fresh(problem: "cnn.Problem", n: int = 7) -> np.ndarray:
    return RNG(5).standard_normal((n, *problem.X.shape[1:]))


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("activation", ["linear", "gated_relu", "relu"])
def test_the_module_predicts_as_the_point_does(kind, activation):
    problem = problem_of(kind, activation)
    for point in points_of(problem):
        predictor = Predictor(problem, point)
        module = to_torch(predictor)
        X = fresh(problem)
        assert close(outputs(module, X), predictor(X))
        layers = list(module) if isinstance(module, torch.nn.Sequential) else [module]
        assert " ".join(type(layer).__name__ for layer in layers) == LAYERS[kind, activation]
        assert not module.training
        assert {value.dtype for value in module.state_dict().values()} == {torch.float64}
        assert all(parameter.requires_grad for parameter in module.parameters())
        in_float32 = outputs(module.float(), X)
        assert np.abs(in_float32 - predictor(X)).max() < 1e-5 * np.abs(predictor(X)).max()


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("activation", ["linear", "gated_relu", "relu"])
def test_an_output_bias_is_the_bias_of_the_last_layer(kind, activation):
    problem = problem_of(kind, activation, output_bias="free")
    predictor = Predictor(problem, points_of(problem)[-1])
    module = to_torch(predictor)
    assert close(outputs(module, fresh(problem)), predictor(fresh(problem)))
    # without it the outputs differ by the bias
    last = [value for name, value in module.state_dict().items() if name.endswith("bias")][-1]
    assert np.abs(predictor.output_bias).min() > 1e-3
    if (kind, activation) != ("cnn", "linear"):  # there it is joined with the biases of the patches
        assert np.array_equal(last.numpy(), predictor.output_bias)


def test_neurons_that_are_zero_are_left_out_and_random_numbers_are_not_touched():
    problem = problem_of("mlp", "gated_relu")
    U, V = np.zeros((6, 3, 2)), np.zeros((6, 2, 2))
    U[4], V[4] = 1.0, 2.0
    U[1], V[2] = 1.0, 1.0
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    module = to_torch(Predictor(problem, Point(factors=(U, V))))
    assert torch.equal(torch.rand(3), expected)
    assert module.first.weight.shape == (2, 3)
    assert np.array_equal(module.gates.numpy(), problem.gates[:, [4, 4]].T)
    zero = to_torch(Predictor(problem, Point(factors=(0 * U, V))))
    assert zero.first.weight.shape == (1, 3)
    assert not outputs(zero, problem.X).any()


class Bags(cnn.BaseArchitecture):
    """A registered kind of its own: two-layer perceptrons on the rows of a bag, and the mean over the bag."""

    name = "bags"

    def check_data(self, X):
        assert X.ndim == 3

    def phi_rows(self, X):
        return X.reshape(-1, X.shape[2])

    def width_out(self, X, c):
        return c

    def second_layer(self, M, X, c):
        return M.reshape(X.shape[0], X.shape[1], c).mean(dim=1)


class EveryOther(cnn.MLP):
    """An MLP that sees every other feature."""

    def phi_rows(self, X):
        return X[:, ::2]


class AxisGated(cnn.BaseActivation):
    name, has_gates = "axis_gated", True

    def blocks(self, Phi, patterns, seed):
        gates = np.concatenate([np.eye(Phi.shape[1]), -np.eye(Phi.shape[1])], axis=1)
        return type(cnn.sample_patterns(np.eye(2), 1))(np.asarray(Phi) @ gates >= 0, gates, False)

    def apply(self, H, gate_masks):
        return H * gate_masks


@pytest.mark.parametrize(
    ("architecture", "activation", "sample"),
    [
        (Bags(), "gated_relu", (3, 2)),
        (Bags(), "relu", (3, 2)),
        (EveryOther(), "linear", (4,)),
        (cnn.MLP(), AxisGated(), (3,)),
    ],
)
def test_other_architectures_and_activations_become_modules_by_their_maps(architecture, activation, sample):
    X = RNG(0).standard_normal((6, *sample))
    Y = RNG(1).standard_normal((6, 2))
    problem = cnn.Problem(X, Y, architecture, activation, beta=0.1, patterns=4, output_bias="penalised")
    predictor = Predictor(problem, points_of(problem)[0])
    module = to_torch(predictor)
    assert isinstance(module, cnn.ArchitectureNetwork)
    assert close(outputs(module, fresh(problem)), predictor(fresh(problem)))
    twin = cnn.ArchitectureNetwork(
        architecture, problem.activation, problem.p, problem.q, module.W1.shape[1], (2,), bias=True
    ).double()
    twin.load_state_dict(module.state_dict())
    assert np.array_equal(outputs(twin, X), outputs(module, X))
    exported = torch.export.export(module, (torch.as_tensor(fresh(problem)),), dynamic_shapes=BATCH).module()
    assert close(exported(torch.as_tensor(X)).detach().numpy(), predictor(X))


def test_gated_modules_are_made_from_sizes_and_load_a_state_dict():
    matrix = RNG(7).standard_normal((3, 9))
    images = cnn.Problem(
        RNG(1).standard_normal((4, 2, 4, 4)), RNG(2).standard_normal((4, 2)), cnn.CNN(patch=2, pool=matrix, bias=True),
        "gated_relu", beta=0.1, patterns=5,
    )  # fmt: skip
    tokens, rows = problem_of("tokens", "gated_relu"), problem_of("mlp", "gated_relu")
    for problem, make in (
        (rows, lambda M: cnn.GatedMLP(d=3, neurons=M, c=2)),
        (tokens, lambda M: cnn.GatedAttention(d=2, c=2, heads=M)),
        (images, lambda M: cnn.GatedCNN(2, M, 2, patch=2, pool=0 * matrix, pooled=3, bias=True)),
    ):
        predictor = Predictor(problem, points_of(problem)[0])
        module = to_torch(predictor)
        twin = make(predictor.neurons().W1.shape[1]).double()
        assert not close(outputs(twin, problem.X), predictor(problem.X))
        twin.load_state_dict(module.state_dict())
        assert np.array_equal(outputs(twin, problem.X), outputs(module, problem.X))
        assert close(outputs(twin, problem.X), predictor(problem.X))
        assert "gates" not in dict(module.named_parameters())


# -- the round trip: solve, export, certify ---------------------------------------------------------------------------

CNNS = {
    "global": cnn.CNN(patch=2),
    "grid": cnn.CNN(patch=2, padding=1, pool=2, bias=True),
    "identity": cnn.CNN(patch=3, stride=2, pool="identity"),
    "matrix": cnn.CNN(patch=2, pool=RNG(3).standard_normal((2, 9))),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", *CNNS, "attention"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_relu_module_is_certified_with_the_objective_of_its_result(kind, bias):
    sample = {"mlp": (3,), "attention": (2, 2)}.get(kind, (1, 4, 4))
    architecture = CNNS.get(kind, cnn.Attention(output="mean") if kind == "attention" else cnn.MLP())
    X, Y = RNG(1).standard_normal((5, *sample)), RNG(2).standard_normal(5)
    output_bias = "free" if bias else None
    problem = cnn.Problem(X, Y, architecture, "relu", beta_fraction=0.05, patterns=6, output_bias=output_bias)
    # neurons in the cones of some blocks; that they are no optimum does not matter here
    U = problem.cones.project(RNG(3).standard_normal((problem.P, problem.p, 1)))
    V = RNG(4).standard_normal((problem.P, problem.q, 1)) * U.any(axis=1, keepdims=True)
    point = Point(factors=(U, V))
    result = cnn.Result(problem, "none", {}, "solved", "", point=point, certificate=cnn.certify(problem, point))
    report = cnn.certify_module(
        result.to_torch(), X, Y, weight_decay=problem.beta, output_bias=output_bias or "penalised", time_limit=1
    )
    assert report.primal == pytest.approx(result.objective, rel=1e-12)
    assert report.beta == problem.beta


@pytest.mark.slow
def test_an_optimum_is_certified_as_a_module():
    problem = problem_of("mlp", "relu", c=1, patterns="all")
    result = cnn.solve(problem, "bm_newton", gap=1e-8)
    report = cnn.certify_module(result.to_torch(), problem.X, problem.Y, weight_decay=problem.beta)
    assert report.gap < 1e-7
    assert abs(report.dual - result.certificate.dual) < 1e-6 * result.objective


def test_a_gated_module_is_refused_with_advice():
    problem = problem_of("mlp", "gated_relu")
    module = to_torch(Predictor(problem, points_of(problem)[0]))
    with pytest.raises(cnn.UnsupportedError, match=r"gated network.*cnn.certify\(result.problem, result\)"):
        cnn.certify_module(module, problem.X, problem.Y, weight_decay=0.1)


# -- other runtimes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mlp", "cnn", "tokens"])
@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
def test_torch_export_keeps_the_predictions_for_any_number_of_samples(kind, activation):
    problem = problem_of(kind, activation)
    predictor = Predictor(problem, points_of(problem)[0])
    program = torch.export.export(to_torch(predictor), (torch.as_tensor(fresh(problem)),), dynamic_shapes=BATCH)
    for n in (1, 11):
        X = fresh(problem, n)
        assert close(program.module()(torch.as_tensor(X)).detach().numpy(), predictor(X))


def run_onnx(module: torch.nn.Module, X: np.ndarray, dtype: torch.dtype, path: object) -> np.ndarray:
    import onnxruntime

    example = torch.as_tensor(X[:2], dtype=dtype)
    torch.onnx.export(module.to(dtype), (example,), path, dynamic_shapes=BATCH, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (name,) = [value.name for value in session.get_inputs()]
    return session.run(None, {name: torch.as_tensor(X, dtype=dtype).numpy()})[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "activation"), [("mlp", "relu"), ("mlp", "gated_relu"), ("cnn", "gated_relu"), ("tokens", "gated_relu")]
)
def test_onnxruntime_predicts_as_the_point_does(kind, activation, tmp_path):
    problem = problem_of(kind, activation)
    predictor = Predictor(problem, points_of(problem)[0])
    X = fresh(problem)
    expected = predictor(X)
    outputs = run_onnx(to_torch(predictor), X, torch.float32, tmp_path / "m.onnx")
    assert outputs.dtype == np.float32
    assert np.abs(outputs - expected).max() < 1e-6 * np.abs(expected).max()
    if (kind, activation) == ("mlp", "relu"):  # onnxruntime has no convolution in float64
        outputs = run_onnx(to_torch(predictor), X, torch.float64, tmp_path / "m64.onnx")
        assert np.abs(outputs - expected).max() < 1e-12 * np.abs(expected).max()
