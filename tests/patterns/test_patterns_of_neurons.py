"""The patterns of a network's neurons: every neuron that adds something lies in the closed cone of one of them."""

import numpy as np
import pytest

import convexnn_bench as cnn
from convexnn_bench.patterns import patterns_of_neurons


def cones_of(patterns, Phi, W1):
    """Return which neurons u satisfy K_k u >= 0 for which pattern k, up to rounding."""
    signed = np.where(patterns.masks[:, None, :], 1.0, -1.0) * (Phi @ W1)[:, :, None]
    return (signed >= -1e-12 * np.abs(Phi @ W1).max()).all(axis=0)


CASES = {
    "gaussian": lambda rng: (rng.standard_normal((30, 6)), rng.standard_normal((6, 12))),
    "sparse weights on one-hot rows": lambda rng: (
        np.eye(6)[rng.integers(6, size=30)],
        np.maximum(rng.normal(size=(6, 9)), 0),
    ),
    "zero rows and zero neurons": lambda rng: (
        np.vstack([np.zeros((3, 4)), rng.normal(size=(9, 4))]),
        np.hstack([np.zeros((4, 2)), rng.normal(size=(4, 3))]),
    ),
    "neurons on rows": lambda rng: (
        rng.integers(-1, 2, (20, 4)).astype(float),
        rng.integers(-1, 2, (4, 10)).astype(float),
    ),
    "sizes of all orders": lambda rng: (
        rng.normal(size=(20, 4)),
        rng.normal(size=(4, 8)) * 10.0 ** np.arange(-150, 250, 50),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_each_active_neuron_has_its_cone(name, seed):
    Phi, W1 = CASES[name](np.random.default_rng(seed))
    patterns = patterns_of_neurons(Phi, W1)
    unit = W1 / np.maximum(np.abs(W1).max(axis=0), 1e-300)
    active = (Phi @ unit > 1e-12).any(axis=0)
    assert cones_of(patterns, Phi, unit[:, active]).any(axis=1).all()
    # the gates are strictly inside, the patterns differ, and a problem takes them
    rows = Phi[np.any(Phi != 0, axis=1)]
    assert (rows @ patterns.gates != 0).all()
    assert len(np.unique(patterns.masks, axis=1).T) == patterns.masks.shape[1] <= W1.shape[1]
    problem = cnn.Problem(Phi, np.ones(len(Phi)), activation="relu", beta=0.1, patterns=patterns)
    assert (problem.masks == patterns.masks).all()
    assert problem.scope == "sampled"


def test_a_network_without_active_neurons_has_none():
    Phi = np.abs(np.random.default_rng(0).normal(size=(5, 3)))
    assert patterns_of_neurons(Phi, -np.ones((3, 2))) is None
    assert patterns_of_neurons(Phi, np.zeros((3, 2))) is None
    assert patterns_of_neurons(np.zeros((5, 3)), np.ones((3, 2))) is None
