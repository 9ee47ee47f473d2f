"""What else of the interface takes arrays and modules that are on a GPU, on a stand-in or a real one."""

import numpy as np
import pytest
import torch
from cuda_problems import PROBLEMS, close, same_certificate
from problems import targets
from torch import nn

import convexnn_bench as cnn


@pytest.mark.slow
def test_compare_and_values(cuda):
    problem = PROBLEMS["mlp_vector"][0]
    found = cnn.compare(problem, ["bm_newton", "semismooth_newton"], device="cuda", gap=1e-2)
    assert {result.status for result in found.results.values()} == {"gap_reached"}
    result = found.results["bm_newton"]
    Z, (U, V), network = result.blocks, result.factors, result.network
    there = [torch.as_tensor(array, device="cuda") for array in (Z, U, V, *network)]
    close(problem.predict(there[0]), problem.predict(Z), 1e-12)
    assert problem.objective(there[0]) == pytest.approx(result.objective, rel=1e-3)
    assert problem.factored_objective(*there[1:3]) == pytest.approx(result.objective, rel=1e-9)
    assert problem.network_objective(*there[3:]) == pytest.approx(result.objective, rel=1e-9)
    again = cnn.Problem(torch.as_tensor(problem.X, device="cuda"), torch.as_tensor(problem.Y, device="cuda"), beta=1.0)
    assert np.array_equal(again.X, problem.X)


MODULES = {
    "relu": (lambda: nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False)), (9, 3)),
    "biases": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (9, 3)),
    "cnn": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(12, 2)), (6, 2, 8, 8)),
    "attention": (lambda: cnn.AttentionBlock(2, 2, heads=4, output="mean"), (5, 3, 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("loss", ["huber", "cross_entropy"])
def test_modules_of_the_device_are_certified(cuda, kind, loss):
    build, shape = MODULES[kind]
    torch.manual_seed(0)
    module, rng = build(), np.random.default_rng(4)
    X, Y = rng.standard_normal(shape).astype(np.float32), targets(loss, shape[0], 2, rng)
    expected = cnn.certify_module(module, X, Y, loss, weight_decay=0.1)
    there = [torch.as_tensor(array, device="cuda") for array in (X, Y)]
    module.to("cuda")
    assert all(parameter.device.type == "cuda" for parameter in module.parameters())
    found = cnn.certify_module(module, *there, loss, weight_decay=0.1)
    same_certificate(found.certificate, expected.certificate, cuda)


@pytest.mark.slow
@pytest.mark.parametrize("output_bias", ["free", "penalised"])
@pytest.mark.parametrize("loss", ["huber", "cross_entropy"])
def test_a_problem_with_an_output_bias(cuda, output_bias, loss):
    """Its loss is minimised over the bias there, with sample weights that are copied once."""
    rng = np.random.default_rng(5)
    X, Y, weights = rng.standard_normal((9, 3)), targets(loss, 9, 2, rng), rng.integers(0, 3, 9)
    problem = cnn.Problem(
        X, Y, loss=loss, activation="linear", beta=0.1, sample_weight=weights, output_bias=output_bias
    )
    Z = torch.as_tensor(0.1 * rng.standard_normal((problem.P, problem.p, problem.q)))
    same_certificate(cnn.certify(problem, Z.to("cuda")), cnn.certify(problem, Z), 1e-8)
    z, L = (torch.as_tensor(rng.standard_normal((9, 2))) for _ in range(2))
    found = []
    for at in ("cpu", "cuda"):
        z, L, targets_there = z.to(at), L.to(at), problem.operator(at).Y
        dual = problem.loss.project_dual(problem.loss.gradient(z, targets_there), targets_there)
        bent = problem.loss.curvature(z, targets_there)(L[:, :, None])
        value, conjugate = problem.loss.value(z, targets_there), problem.loss.conjugate(dual, targets_there)
        found.append([problem.loss.best_bias(z, targets_there), dual, bent, value, conjugate])
    for expected, own in zip(*found, strict=True):
        assert own.device.type == "cuda"
        close(own, expected, 1e-8)
