"""Scores on held-out samples are those that one computes by hand, and what is held out stays with its problem."""

import pickle

import numpy as np
import pytest
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.errors import ChangedProblemError
from convexnn_bench.running import Untouched, describe_scores

RNG = np.random.default_rng(3)
X, NEW = RNG.standard_normal((12, 2)), RNG.standard_normal((7, 2))


class Skips(cnn.BaseSolver):
    """A solver that takes no problem."""

    name, formulation = "skips", "convex"

    def skip(self, problem):
        return "it takes no problem"


def solved(Y, Y_new, **options):
    options = {"beta": 0.05, "patterns": 5, **options}
    problem = cnn.Problem(X, Y, **options).with_held_out(NEW, Y_new)
    return cnn.solve(problem, "bm_newton", gap=1e-4)


def test_two_classes_are_counted_by_sign():
    Y, Y_new = np.where(X[:, 0] > 0.2, "up", "down"), np.where(NEW[:, 1] > 0, "up", "down")
    result = solved(Y, Y_new, loss="logistic")
    assert "held_out_score" not in vars(result)  # it is no part of what `solve` waits for
    z = result.predict(NEW)[:, 0]
    signs = np.where(Y_new == "up", 1.0, -1.0)
    score = result.held_out_score
    assert score.accuracy == sum((one > 0) == (word == "up") for one, word in zip(z, Y_new, strict=True)) / 7
    assert 0 < score.accuracy < 1
    assert score.loss == pytest.approx(np.log1p(np.exp(-signs * z)).sum(), rel=1e-12)
    assert (score.samples, score.r2, score.missing) == (7, None, None)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_several_classes_are_counted_by_the_largest_score(loss):
    Y, Y_new = np.eye(3)[np.arange(12) % 3], np.eye(3)[np.arange(7) % 3]
    result = solved(Y, Y_new, loss=loss)
    z = result.predict(NEW)
    assert result.held_out_score.accuracy == np.mean([np.argmax(row) == k % 3 for k, row in enumerate(z)])
    by_hand = np.log(np.exp(z).sum(axis=1)).sum() - z[Y_new == 1].sum()
    expected = by_hand if loss == "cross_entropy" else 0.5 * np.square(z - Y_new).sum()
    assert result.held_out_score.loss == pytest.approx(expected, rel=1e-10)


def test_numbers_have_r2_as_in_scikit_learn():
    from sklearn.metrics import r2_score

    Y, Y_new = X[:, :1] ** 2, NEW[:, 0] ** 2
    score = solved(Y, Y_new).held_out_score
    assert score.r2 == pytest.approx(r2_score(Y_new, solved(Y, Y_new).predict(NEW)), rel=1e-10)
    assert score.accuracy is None
    assert solved(Y, np.full(7, 2.0)).held_out_score.r2 is None  # constant targets
    # targets that happen to be signs state no classes where those of the training part do not
    assert solved(Y, np.array([1, -1, 1, 1, -1, 1, 1.0])).held_out_score.accuracy is None


def test_an_output_bias_is_that_of_the_training_part_and_weights_of_it_do_not_count():
    Y, Y_new = X[:, :1] + 3.0, NEW[:, :1] + 3.0
    options = {"sample_weight": np.arange(12.0), "output_bias": "free", "beta": 0.5, "patterns": 5}
    problem = cnn.Problem(X, Y, **options).with_held_out(NEW, Y_new)
    result = cnn.solve(problem, "bm_lbfgs", gap=1e-3, iterations=30)
    residuals = result.predict(NEW) - Y_new
    assert result.held_out_score.loss == pytest.approx(0.5 * np.square(residuals).sum(), rel=1e-12)


def test_attention_is_scored_output_by_output():
    tokens = RNG.standard_normal((6, 3, 2))
    Y = np.eye(2)[RNG.integers(2, size=(6, 3))]
    problem = cnn.Problem(tokens[:4], Y[:4], "attention", loss="cross_entropy", beta=0.1, patterns=3)
    problem = problem.with_held_out(tokens[4:], Y[4:])
    result = cnn.solve(problem, "bm_lbfgs", iterations=5)
    right = result.predict(tokens[4:]).argmax(axis=2) == Y[4:].argmax(axis=2)
    assert result.held_out_score.accuracy == right.mean()
    assert result.held_out_score.samples == 2


def test_a_point_that_cannot_predict_has_no_score_and_says_why():
    problem = random_problem(1)
    masks = cnn.Problem(problem.X, problem.Y, beta=0.1, patterns=problem.masks)
    result = cnn.solve(masks.with_held_out(problem.X[:2], problem.Y[:2]), "bm_lbfgs", iterations=3)
    assert "masks without gates" in result.held_out_score.missing
    fields = describe_scores(result)
    assert fields["reason"].startswith(f"{result.reason}; no test scores: the problem has masks without gates")
    assert (fields["test_samples"], fields["test_loss"], fields["test_accuracy"]) == (2, None, None)
    skipped = cnn.solve(masks.with_held_out(problem.X[:2], problem.Y[:2]), Skips())
    assert (skipped.point, skipped.held_out_score) == (None, None)
    assert describe_scores(skipped) == {"test_samples": 2}
    assert describe_scores(cnn.solve(masks, "bm_lbfgs", iterations=1)) == {}


@pytest.mark.parametrize("labels", [False, True])
def test_what_is_held_out_is_kept_by_files_pickles_and_other_betas(tmp_path, labels):
    Y, Y_new = (np.where(A[:, 0] > 0, "a", "b") if labels else A[:, :1] for A in (X, NEW))
    result = solved(Y, Y_new, loss="logistic" if labels else "squared")
    copies = [
        cnn.load_result(result.save(tmp_path / "r.npz")),
        pickle.loads(pickle.dumps(result)),
    ]
    problems = [cnn.load_problem(result.problem.save(tmp_path / "p.npz")), result.problem.with_beta(0.1)]
    for problem in [*problems, *(copy.problem for copy in copies)]:
        np.testing.assert_array_equal(problem.held_out.X, NEW)
        np.testing.assert_array_equal(problem.held_out.Y, result.problem.held_out.Y)
    assert [copy.held_out_score for copy in copies] == [result.held_out_score] * 2
    assert repr(result.problem.held_out).startswith(f"HeldOut(X: {len(NEW)} x ")
    with pytest.raises(AttributeError, match="held_out of a Problem is read-only"):
        result.problem.held_out = None


def test_a_solver_sees_the_held_out_samples_of_a_rescaled_problem_in_no_other_unit():
    """Points come back in the user's units, in which they are scored."""
    scale = 1e6
    result = cnn.solve(
        cnn.Problem(scale * X, scale * X[:, :1], beta=1e9, patterns=5).with_held_out(scale * NEW, scale * NEW[:, :1]),
        "bm_newton",
        gap=1e-3,
    )
    assert result.problem.rescaled(2.0**20, 2.0**20).held_out is None
    residuals = result.predict(scale * NEW) - scale * NEW[:, :1]
    assert result.held_out_score.loss == pytest.approx(0.5 * np.square(residuals).sum(), rel=1e-12)


def test_a_solver_may_not_change_the_held_out_samples():
    problem = cnn.Problem(X, X[:, :1], beta=0.1, patterns=3).with_held_out(NEW, NEW[:, :1])
    untouched = Untouched(problem)
    problem.held_out.Y[0] += 1.0
    with pytest.raises(ChangedProblemError, match=r"problem\.held_out"):
        untouched.check("the solver")


@pytest.mark.parametrize(
    ("X_new", "Y_new", "words"),
    [
        (NEW[:, :1], ["a"] * 7, "X must hold at least one sample, n_test x 2 as in training, got shape (7, 1)"),
        (NEW[:0], [], "X must hold at least one sample"),
        (NEW, ["a"] * 6, "Y must be 7 x 1 for these 7 samples, got (6, 1)"),
        (NEW, ["a"] * 6 + ["c"], "Y has the labels 'c', which are none of the classes 'a', 'b'"),
        (NEW * np.nan, ["a"] * 7, "X has 14 NaN or infinite entries"),
    ],
)
def test_samples_that_do_not_fit_the_problem_are_refused(X_new, Y_new, words):
    problem = cnn.Problem(X, np.where(X[:, 0] > 0, "a", "b"), loss="logistic", beta=0.1, patterns=3)
    with pytest.raises(cnn.InputError) as caught:
        problem.with_held_out(X_new, np.array(Y_new))
    assert str(caught.value).startswith("held-out samples: ")
    assert words in str(caught.value)


@pytest.mark.slow
def test_compare_has_the_scores_in_its_frame_and_its_tables():
    Y, Y_new = np.where(X[:, 0] > 0, 1, -1), np.where(NEW[:, 0] > 0, 1, -1)
    problem = cnn.Problem(X, Y, loss="logistic", beta=0.05, patterns=5).with_held_out(NEW, Y_new)
    table = cnn.compare(problem, ["bm_lbfgs", "fista"], gap=1e-3, iterations=30)
    frame = table.to_frame()
    scores = [result.held_out_score for result in table.results.values()]
    assert list(frame["test_accuracy"]) == [score.accuracy for score in scores]
    assert list(frame["test_loss"]) == [score.loss for score in scores]
    assert list(frame["test_samples"]) == [7.0, 7.0]
    assert "test acc." in repr(table)
    assert f"{scores[0].accuracy:.4f}" in repr(table)
    assert "<th" in table._repr_html_()
    assert "test acc." in table._repr_html_()
    plain = cnn.compare(cnn.Problem(X, Y, loss="logistic", beta=0.05, patterns=5), ["fista"], iterations=3)
    assert "test" not in repr(plain)
    assert "test" not in plain._repr_html_()
