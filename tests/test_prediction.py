"""Predictions on new data: those of the certified point on the training data, and those of the formula elsewhere."""

import pickle

import numpy as np
import pytest
import torch
from points import DATA, RNG, close, points_of, problem_of

import convexnn_bench as cnn
import convexnn_bench.prediction as prediction
from convexnn_bench.formulations import Point
from convexnn_bench.prediction import Predictor, predict


def hidden_sum(problem: "cnn.Problem", network: tuple[np.ndarray, np.ndarray], X: np.ndarray, kind: str) -> np.ndarray:
    """The network's outputs on X, neuron by neuron, from the definitions of the layers and not from Phi and C."""
    W1, W2 = map(np.asarray, network)
    c, outputs = problem.c, 0.0
    for j in range(W1.shape[1]):

        def active(h, gate):
            return {"linear": h, "relu": np.maximum(h, 0)}.get(problem.activation.name, h * (gate >= 0))

        gate = problem.gates[:, j % problem.P] if problem.activation.has_gates else np.zeros(problem.p)
        if kind == "mlp":
            outputs = outputs + active(X @ W1[:, j], X @ gate)[:, None] * W2[:, j]
        elif kind == "cnn":

            def maps(w):
                kernel = torch.as_tensor(w[:-1].reshape(1, 2, 2, 2))
                return torch.nn.functional.conv2d(torch.as_tensor(X), kernel, torch.as_tensor(w[-1:])).numpy()

            hidden = torch.as_tensor(active(maps(W1[:, j]), maps(gate)))
            pooled = torch.nn.functional.adaptive_avg_pool2d(hidden, 2).reshape(len(X), 4).numpy()
            outputs = outputs + pooled @ W2[:, j].reshape(4, c)
        else:
            heads = [X @ w.reshape(2, 2) @ X.transpose(0, 2, 1) for w in (W1[:, j], gate)]
            outputs = outputs + active(*heads) @ X @ W2[:, j].reshape(2, c)
    return outputs.mean(axis=1) if kind == "mean" else outputs


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("activation", ["linear", "gated_relu", "relu"])
def test_predictions_are_those_of_the_point_on_the_training_data_and_of_the_layers_on_new_data(kind, activation):
    problem = problem_of(kind, activation)
    fresh = RNG(5).standard_normal((7, *problem.X.shape[1:]))
    for point in points_of(problem):
        trained = predict(problem, point, problem.X)
        expected = point.evaluate(problem, "cpu").predictions.numpy()
        assert close(trained.reshape(expected.shape), expected)
        if not problem.has_cone:
            assert close(trained.reshape(expected.shape), problem.predict(point.to_blocks(problem)))
        new = predict(problem, point, fresh)
        assert new.shape == ((7, 3, 2) if kind == "tokens" else (7, 2))
        assert close(new, hidden_sum(problem, point.to_network(problem), fresh, kind))
        # a sample's prediction is its own, and a list will do
        assert close(predict(problem, point, fresh[3:4].tolist()), new[3:4])


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
def test_a_solution_predicts_its_training_data_as_certified(activation):
    """All patterns, enumerated; the blocks of the optimum, whose scalar ReLU blocks are split over their cones."""
    problem = problem_of("mlp", activation, c=1, patterns="all")
    result = cnn.solve(problem, "bm_newton", gap=1e-8)
    blocks = cnn.Result(problem, "none", {}, "solved", "", point=Point(blocks=result.blocks))
    for one in (result, blocks):
        assert close(one.predict(problem.X), problem.predict(result.blocks))
        again = pickle.loads(pickle.dumps(one))
        assert np.array_equal(again.predict(problem.X), one.predict(problem.X))


def test_vector_output_relu_blocks_predict_by_neurons_in_their_cones():
    problem = problem_of("mlp", "relu", patterns=2)
    directions = problem.cones.project(np.ones((2, 3, 1)))
    Z = directions @ np.array([[[1.0, -2.0]]])
    new = RNG(5).standard_normal((4, 3))
    expected = sum(np.maximum(new @ u, 0) @ np.array([[1.0, -2.0]]) for u in directions)
    assert close(predict(problem, Point(blocks=Z), new), expected)


def test_samples_are_taken_some_at_a_time(monkeypatch):
    problem = problem_of("tokens", "gated_relu")
    point, X = points_of(problem)[0], RNG(5).standard_normal((5, 3, 2))
    whole = predict(problem, point, X)
    monkeypatch.setattr(prediction, "CHUNK_ELEMENTS", 1)
    assert close(predict(problem, point, X), whole)


def test_tokens_keep_their_axis_where_there_is_one_of_them():
    X, Y = RNG(0).standard_normal((5, 1, 2)), RNG(1).standard_normal((5, 1, 2))
    problem = cnn.Problem(X, Y, "attention", "linear", beta=0.1)
    assert np.array_equal(problem.Y, Y[:, 0])
    assert predict(problem, points_of(problem)[0], X).shape == (5, 1, 2)


def test_the_zero_network_predicts_zero():
    for activation in ("linear", "gated_relu", "relu"):
        problem = problem_of("cnn", activation)
        zero = np.zeros((problem.P, problem.p, 1)), np.zeros((problem.P, problem.q, 1))
        assert not predict(problem, Point(factors=zero), problem.X[:2]).any()


@pytest.mark.parametrize(("activation", "blocks"), [("gated_relu", True), ("relu", False)])
def test_the_output_bias_is_the_best_one_on_the_training_data(activation, blocks):
    """Squared loss with a free bias: the weighted mean of the residuals of the training data."""
    weights = np.arange(1.0, 9.0)
    problem = problem_of("mlp", activation, output_bias="free", sample_weight=weights)
    point = points_of(problem)[0 if blocks else 1]
    plain = predict(problem_of("mlp", activation), point, problem.X)
    bias = np.average(problem.Y - plain, axis=0, weights=weights)
    assert np.abs(Predictor(problem, point).output_bias - bias).max() < 1e-12
    X = RNG(6).standard_normal((3, 3))
    assert close(predict(problem, point, X), predict(problem_of("mlp", activation), point, X) + bias)


def test_masks_without_gates_are_refused_and_patterns_with_gates_are_not():
    problem = problem_of("mlp", "gated_relu")
    point = points_of(problem)[0]
    alone = cnn.Problem(problem.X, problem.Y, beta=problem.beta, patterns=problem.masks)
    with pytest.raises(cnn.UnsupportedError, match=r"masks without gates.*cnn.sample_patterns"):
        predict(alone, point, problem.X)
    patterns = cnn.sample_patterns(problem.X, problem.P)
    kept = cnn.Problem(problem.X, problem.Y, beta=problem.beta, patterns=patterns)
    assert np.array_equal(kept.masks, problem.masks)
    assert close(predict(kept, point, problem.X), predict(problem, point, problem.X))
    # a ReLU network needs no gates
    relu = cnn.Problem(problem.X, problem.Y, activation="relu", beta=problem.beta, patterns=problem.masks)
    assert predict(relu, points_of(relu)[0], problem.X).shape == (8, 2)


@pytest.mark.parametrize(
    ("X_new", "words"),
    [
        (np.ones((4, 2)), r"n_new x 3 where X is 8 x 3, got shape \(4, 2\)"),
        (np.ones(3), r"got shape \(3,\); one sample is X_new\[None\]"),
        (np.ones((0, 3)), "at least one sample"),
        (1.0, r"got shape \(\)"),
        ([[1.0, np.nan, 0.0]], "X_new has 1 NaN"),
        ("words", "X_new"),
    ],
)
def test_other_data_than_the_training_data_is_refused(X_new, words):
    problem = problem_of("mlp", "gated_relu")
    with pytest.raises(cnn.InputError, match=words):
        predict(problem, points_of(problem)[0], X_new)


def labelled(Y: object, loss: str = "cross_entropy", activation: str = "linear") -> "cnn.Result":
    X = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    problem = cnn.Problem(X, Y, activation=activation, loss=loss, beta_fraction=0.001)
    return cnn.solve(problem, "bm_newton")


@pytest.mark.parametrize(
    ("Y", "loss"),
    [
        (["b", "b", "a", "a"], "cross_entropy"),
        (["b", "b", "a", "a"], "logistic"),
        ([7, 7, 3, 3], "squared_hinge"),
        ([-1.0, -1.0, 1.0, 1.0], "logistic"),
        ([True, True, False, False], "cross_entropy"),
        ([(1, 2), (1, 2), "a", "a"], "cross_entropy"),
    ],
)
def test_labels_come_back_as_they_were_given(Y, loss):
    given = np.empty(4, dtype=object)
    given[:] = Y
    mixed = isinstance(Y[0], tuple)
    labels = labelled(given if mixed else Y, loss).predict_labels([[0.2, 1.0], [2.8, 1.0]])
    assert labels.tolist() == [Y[0], Y[3]]
    assert labels.dtype == (object if mixed else np.array(Y).dtype)


@pytest.mark.slow
def test_a_token_has_a_label_of_its_own():
    X = RNG(0).standard_normal((6, 3, 2))
    words = np.where(X[:, :, 0] > 0, "up", "down")
    problem = cnn.Problem(X, words, "attention", "gated_relu", "cross_entropy", beta_fraction=1e-3, patterns=30)
    result = cnn.solve(problem, "bm_newton", gap=1e-3)
    labels = result.predict_labels(X)
    assert labels.shape == (6, 3)
    best = problem.predict(result.blocks).argmax(axis=1).reshape(6, 3)
    assert labels.tolist() == np.array(problem.classes)[best].tolist()
    assert np.mean(labels == words) > 0.6


def test_targets_that_are_numbers_have_no_labels():
    with pytest.raises(cnn.InputError, match=r"numbers for the squared loss.*use predict"):
        labelled([0.0, 1.0, 2.0, 3.0], "squared").predict_labels([[0.0, 1.0]])
    rows = labelled(np.eye(2)[[0, 0, 1, 1]])
    with pytest.raises(cnn.InputError, match="not one column of labels"):
        rows.predict_labels([[0.0, 1.0]])
    assert rows.predict([[0.0, 1.0]]).shape == (1, 2)


def test_a_result_without_a_point_says_so():
    problem = problem_of("mlp", "relu")
    result = cnn.Result(problem, "fista", {}, "skipped", "fista does not run here")
    with pytest.raises(cnn.InputError, match="no point with which to predict"):
        result.predict(problem.X)
