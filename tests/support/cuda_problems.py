"""Small problems of every kind with the solvers that are run on them, for the tests of device="cuda"."""

import numpy as np
import pytest
import torch
from problems import targets

import convexnn_bench as cnn

DESCENT = ("bm_gd", "bm_adam", "bm_lbfgs", "bm_newton", "fista")
NETWORKS = ("network_gd", "network_sgd", "network_adam", "network_lbfgs")
FIXED = (*DESCENT, *NETWORKS, "bm_scaled_gd", "semismooth_newton")  # for fixed masks
CONES = (*DESCENT, *NETWORKS, "column_generation", "cvxpy_clarabel")
NEWTON = ("bm_newton", "semismooth_newton", "network_lbfgs", "interior_point")
FEW_CONES = ("bm_gd", "bm_lbfgs", "fista", "network_adam")
VECTOR_CONES = ("bm_gd", "bm_adam", "bm_newton", "network_lbfgs", "column_generation")
POOLING = np.array([[0.5, 0.5] + 14 * [0.0], 16 * [0.0625]])


def problems():
    """name -> (problem, solvers): every architecture, activation and loss, scalar and vector outputs."""
    rng = np.random.default_rng(0)
    X, images = rng.standard_normal((12, 4)), rng.standard_normal((6, 2, 5, 5))
    tokens, wide = rng.standard_normal((5, 3, 2)), rng.standard_normal((25, 2))

    def made(inputs, loss, c, *given, **named):
        return cnn.Problem(inputs, targets(loss, len(inputs), c, rng), *given, loss=loss, beta_fraction=0.1, **named)

    per_token = cnn.Problem(tokens, rng.standard_normal((5, 3, 2)), "attention", beta=0.5, patterns=4)
    mean = cnn.Attention("mean")
    return {
        "mlp_scalar": (made(X, "logistic", 1, patterns=5), NEWTON),
        "mlp_vector": (made(X, "squared", 3, patterns=5), FIXED),
        "mlp_classes": (made(X, "cross_entropy", 3, patterns=5), ("bm_adam", *NEWTON)),
        "mlp_blocks": (made(wide, "huber", 1, patterns=40), NEWTON),  # products through the mask matrix
        "mlp_hinge": (made(X, "squared_hinge", 2, patterns=5), ("bm_newton", "fista")),
        "mlp_linear": (
            made(X, "cross_entropy", 3, activation="linear"),
            ("bm_lbfgs", "network_sgd", "semismooth_newton"),
        ),
        "mlp_relu": (made(X[:, :3], "squared", 1, activation="relu", patterns=5), CONES),
        "mlp_vector_relu": (made(X[:, :3], "squared", 2, activation="relu", patterns=4), VECTOR_CONES),
        "cnn": (
            made(images, "squared", 1, cnn.CNN(patch=3, pool="identity"), patterns=4),
            ("bm_scaled_gd", "fista", "network_sgd", *NEWTON),
        ),
        "cnn_pooled": (made(images, "cross_entropy", 3, cnn.CNN(patch=2, pool=2), patterns=4), FIXED),
        "cnn_matrix": (
            made(images, "huber", 2, cnn.CNN(2, pool=POOLING, bias=True), patterns=4),
            ("bm_newton", "bm_scaled_gd", "network_adam"),
        ),
        "cnn_linear": (
            made(images, "squared", 2, cnn.CNN(patch=2, pool=2), "linear"),
            ("bm_lbfgs", "semismooth_newton"),
        ),
        "cnn_relu": (made(images[:5], "squared", 1, cnn.CNN(patch=1), "relu", patterns=3), FEW_CONES),
        "attention": (per_token, ("bm_gd", "fista", *NEWTON)),
        "attention_mean": (made(tokens, "logistic", 2, mean, "linear"), ("bm_lbfgs", "bm_newton")),
        "attention_relu": (made(tokens[:, :2], "squared", 1, mean, "relu", patterns=3), ("bm_adam", "bm_newton")),
    }


PROBLEMS = problems()


def close(found, expected, accuracy):
    """Arrays, relative to the largest entry."""
    found, expected = (value.detach().cpu() if torch.is_tensor(value) else value for value in (found, expected))
    scale = max(float(np.abs(np.asarray(expected)).max(initial=0.0)), 1e-300)
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=accuracy * scale)


def same_certificate(found, expected, accuracy):
    for name in ("primal", "dual", "max_dual_norm", "infeasibility", "stationarity_error"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=accuracy, abs=accuracy), name
    close(found.multiplier, expected.multiplier, 1e3 * accuracy)
    assert (found.scope, found.dual_norm_method, found.ranks) == (
        expected.scope,
        expected.dual_norm_method,
        expected.ranks,
    )
