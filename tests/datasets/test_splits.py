"""A part of any data set can be held out: how it is drawn, by which part it is standardised, and what is refused."""

import numpy as np
import pytest
import scipy.sparse

import convexnn_bench as cnn
from convexnn_bench.datasets import Data, split_parameters
from convexnn_bench.datasets._split import held_out_rows
from convexnn_bench.plugins.registry import DATASETS

SMALL = {"digits": {"n": 60, "pool": 4}, "teacher": {"n": 40, "d": 3}, "wine": {"n": 50}, "diabetes": {"n": 40}}


def rows_of(X):
    """The rows as a sorted list, so that two sets of samples can be compared."""
    return sorted(map(tuple, X.tolist()))


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes", "digits", "spiral", "teacher", "wine"])
def test_both_parts_together_are_the_data_and_the_seed_draws_them(name):
    raw = {"standardize": False} if "standardize" in DATASETS.get(name).parameters else {}
    parameters = {**SMALL.get(name, {}), **raw, "patterns": 3}
    everything = cnn.make_problem(name, **parameters)
    first, again, other = (cnn.make_problem(name, test=0.25, test_seed=s, **parameters) for s in (7, 7, 8))
    n = len(everything.X)
    assert len(first.held_out.X) == round(0.25 * n)
    assert rows_of(np.vstack([first.X, first.held_out.X])) == rows_of(everything.X)
    np.testing.assert_array_equal(first.held_out.X, again.held_out.X)
    np.testing.assert_array_equal(first.held_out.Y, again.held_out.Y)
    assert rows_of(first.held_out.X) != rows_of(other.held_out.X)
    assert everything.held_out is None
    note = first.notes[-1]
    assert note.startswith(f"{round(0.25 * n)} of {n} samples, drawn with seed 7")
    assert "are held out for test scores." in note


def test_one_seed_draws_everything_and_test_seed_the_split_alone():
    assert split_parameters("wine", {"seed": 4, "test": 0.2}) == (
        {"seed": 4},
        {"test": 0.2, "pattern_seed": 4, "test_seed": 4},
    )
    assert split_parameters("file", {"seed": 4, "test": 0.2, "test_seed": 1})[1]["test_seed"] == 1
    assert "test_seed" not in split_parameters("wine", {"seed": 4})[1]
    first, second = (cnn.make_problem("wine", patterns=5, test=0.2, test_seed=s, standardize=False) for s in (0, 1))
    assert rows_of(first.X) != rows_of(second.X)
    assert rows_of(np.vstack([first.X, first.held_out.X])) == rows_of(np.vstack([second.X, second.held_out.X]))


def test_columns_are_standardised_by_the_training_part():
    raw = cnn.make_problem("wine", test=0.3, seed=5, standardize=False, patterns=2)
    problem = cnn.make_problem("wine", test=0.3, seed=5, bias=True, patterns=2)
    mean, deviation = raw.X.mean(axis=0), raw.X.std(axis=0)
    np.testing.assert_allclose(problem.X[:, :-1], (raw.X - mean) / deviation, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(problem.held_out.X[:, :-1], (raw.held_out.X - mean) / deviation, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(problem.held_out.X[:, -1], 1.0)
    assert problem.notes[-1].endswith("Means and standard deviations are those of the training samples.")
    assert "Means" not in raw.notes[-1]


def test_numbers_as_targets_are_standardised_by_the_training_part_too():
    raw = cnn.make_problem("diabetes", test=0.3, standardize_targets=False, patterns=2)
    problem = cnn.make_problem("diabetes", test=0.3, patterns=2)
    mean, deviation = raw.Y.mean(), raw.Y.std()
    np.testing.assert_allclose(problem.held_out.Y, (raw.held_out.Y - mean) / deviation, rtol=1e-12)
    assert abs(problem.held_out.Y.mean()) > 1e-3  # not by themselves


def test_every_class_keeps_its_share_and_one_sample_in_training():
    labels = np.repeat([0, 1, 2, 3], [40, 20, 9, 1])
    rng = np.random.default_rng(0)
    rng.shuffle(labels)
    rows, how = held_out_rows(np.eye(4)[labels], 0.25, 3, False)
    assert rows.sum() == round(0.25 * 70)
    held = np.bincount(labels[rows], minlength=4)
    assert list(held) in ([10, 5, 3, 0], [11, 5, 2, 0], [10, 6, 2, 0])  # 17.5 of 70 rounds to 18
    assert "every class keeps its share" in how
    # the same strata, however the classes are stated
    for Y in (2 * np.eye(4)[labels] - 1, labels[:, None], np.array(["d", "a", "c", "b"])[labels]):
        held = np.bincount(labels[held_out_rows(Y, 0.25, 3, True)[0]], minlength=4)
        assert held[3] == 0
        assert held.sum() == rows.sum()
    # numbers, and rows of several classes, are drawn without strata
    assert "class" not in held_out_rows(labels[:, None] * 1.0, 0.25, 3, False)[1]
    assert "class" not in held_out_rows(rng.choice([-1.0, 1.0], (70, 3)), 0.25, 3, True)[1]


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("spiral", {"test": 0}, "test must be a number above 0 and below 1, got 0"),
        ("spiral", {"test": 1}, "test must be a number above 0 and below 1, got 1"),
        ("spiral", {"test": 1.5}, "test must be a number above 0 and below 1, got 1.5"),
        ("spiral", {"test": True}, "test must be a number above 0 and below 1, got True"),
        ("spiral[test=x]", {}, "test must be a number above 0 and below 1, got 'x'"),
        ("spiral", {"test": 0.2, "test_seed": -1}, "test_seed must be a whole number, at least 0"),
        ("spiral", {"test_seed": 1}, "test_seed=1 needs test, the share of the samples that is held out"),
        ("spiral", {"n": 30, "test": 0.01}, "test=0.01 of 30 samples leaves no held-out sample"),
        ("teacher", {"n": 30, "test": 0.99}, "test=0.99 of 30 samples leaves no training sample"),
        ("spiral", {"n": 30, "test": 0.95}, "would leave a class without a training sample: at most 27 samples"),
    ],
)
def test_what_is_no_split_is_named(name, parameters, words):
    with pytest.raises(cnn.InputError) as caught:
        cnn.make_problem(name, **parameters)
    assert words in str(caught.value)


@pytest.mark.slow
def test_the_problem_is_that_of_the_training_part_alone():
    problem = cnn.make_problem("wine", n=60, test=0.25, seed=2, patterns=6)
    alone = cnn.Problem(problem.X, problem.Y, loss="cross_entropy", beta_fraction=0.01, patterns=6, seed=2)
    np.testing.assert_array_equal(problem.masks, alone.masks)
    assert (problem.beta, problem.beta_max) == (alone.beta, alone.beta_max)
    results = [cnn.solve(one, "bm_lbfgs", gap=1e-2, iterations=15) for one in (problem, alone)]
    certificates = [cnn.certify(one, result) for one, result in zip((problem, alone), results, strict=True)]
    assert certificates[0] == certificates[1]
    assert results[0].certificate == results[1].certificate
    assert results[1].held_out_score is None


def test_a_file_of_words_is_split_and_its_labels_come_from_the_training_part(tmp_path):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 2))
    words = np.where(X[:, 0] > 0, "spam", "ham")
    words[0] = "eggs"  # a class of one sample
    lines = ["a,b,y", *(f"{a!r},{b!r},{w}" for (a, b), w in zip(X.tolist(), words, strict=True))]
    (tmp_path / "mail.csv").write_text("\n".join(lines))
    problem = cnn.make_problem("file", path=str(tmp_path / "mail.csv"), standardize=True, test=0.4, patterns=4)
    assert problem.classes == ("eggs", "ham", "spam")
    assert (problem.Y.sum(axis=0) > 0).all()
    assert len(problem.held_out.X) == 16
    raw = cnn.make_problem("file", path=str(tmp_path / "mail.csv"), test=0.4, patterns=4)
    scaled = (raw.held_out.X - raw.X.mean(axis=0)) / raw.X.std(axis=0)
    np.testing.assert_allclose(problem.held_out.X, scaled, rtol=1e-12)
    # accuracy counted by hand, on the labels of the file
    result = cnn.solve(problem, "bm_newton", gap=1e-3)
    lookup = {tuple(x): word for x, word in zip(X.tolist(), words, strict=True)}
    truth = [lookup[tuple(x)] for x in raw.held_out.X.tolist()]
    said = result.predict_labels(problem.held_out.X)
    right = sum(str(a) == str(b) for a, b in zip(said, truth, strict=True))
    assert result.held_out_score.accuracy == right / 16


PLUGIN = """
import numpy as np
from convexnn_bench.datasets import BaseDataset, Data


class Points(BaseDataset):
    name = "points_of_my_own"

    def load(self, n: int = 20, words: bool = False) -> Data:
        X = np.arange(3.0 * n).reshape(n, 3) ** 2
        Y = np.where(np.arange(n) % 4 == 0, "rare", "common") if words else X[:, 0]
        defaults = {"loss": "logistic" if words else "squared", "beta_fraction": 0.1, "patterns": 3}
        defaults["sample_weight"] = np.arange(n)
        return Data(X, Y, defaults, standardize=True, bias=True)
"""


def test_a_plug_in_is_split_without_a_line_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "points.py").write_text(PLUGIN)
    monkeypatch.setattr(DATASETS, "_classes", dict(DATASETS.classes))
    monkeypatch.setattr(DATASETS, "_folders", list(DATASETS._folders))
    DATASETS.add_folder(tmp_path)
    problem = cnn.make_problem("points_of_my_own[test=0.25,test_seed=3]")
    assert (problem.X.shape, problem.held_out.X.shape) == ((15, 4), (5, 4))
    np.testing.assert_allclose(problem.X[:, :3].mean(axis=0), 0.0, atol=1e-12)
    raw = np.arange(60.0).reshape(20, 3) ** 2
    kept = np.isin(raw[:, 0], problem.Y[:, 0])
    np.testing.assert_array_equal(problem.sample_weight, np.arange(20)[kept])
    words = cnn.make_problem("points_of_my_own[test=0.4,words=true]")
    assert words.classes == ("common", "rare")
    assert sorted(words.held_out.labels.tolist()) == [0] * 6 + [1] * 2


@pytest.mark.parametrize("standardize", [False, True])
def test_sparse_samples_are_split_and_not_standardised(standardize):
    class Sparse(cnn.BaseDataset):
        name = "sparse"

        def load(self):
            X = scipy.sparse.random_array((20, 6), density=0.4, rng=np.random.default_rng(0), format="csr")
            return Data(X, np.arange(20.0), standardize=standardize)

    if standardize:
        with pytest.raises(cnn.InputError, match="standardize and bias need X as a dense array, got a csr_array"):
            Sparse().split(0.25)
        return
    whole, (training, rest) = Sparse().data(), Sparse().split(0.25)
    order = np.concatenate([training.Y, rest.Y]).astype(int)
    both = np.vstack([training.X.toarray(), rest.X.toarray()])
    np.testing.assert_array_equal(both, whole.X.toarray()[order])
    problem = cnn.Problem(training.X, training.Y, beta=0.1, patterns=3).with_held_out(rest.X, rest.Y)
    dense = cnn.Problem(training.X.toarray(), training.Y, beta=0.1, patterns=problem.pattern_info)
    dense = dense.with_held_out(rest.X.toarray(), rest.Y)
    scores = [cnn.solve(one, "bm_lbfgs", iterations=5).held_out_score for one in (problem, dense)]
    assert scores[0].loss == pytest.approx(scores[1].loss, rel=1e-9)
    assert (problem.is_sparse, scores[0].samples) == (True, 5)


def test_targets_that_do_not_lie_sample_by_sample_are_refused():
    class Tokens(cnn.BaseDataset):
        name = "tokens"

        def load(self):
            return Data(np.ones((4, 3, 2)), np.ones((12, 1)))

    with pytest.raises(cnn.InputError, match="one index for each of 4 samples in the first axis"):
        Tokens().split(0.5)
