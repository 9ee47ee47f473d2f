"""Labels of any kind: what they become, which classes a problem keeps, and that a module is judged by the same ones."""

import numpy as np
import pandas as pd
import pytest
import torch

import convexnn_bench as cnn

X = np.random.default_rng(0).standard_normal((24, 3))
PLACES = np.arange(24) % 3  # positions among three classes
HALVES = np.arange(24) % 2


def problem(Y, loss, **arguments):
    return cnn.Problem(X, Y, loss=loss, **{"beta": 0.1, "patterns": 4, **arguments})


CLASSES = {
    "1 to 3": np.array([1, 2, 3])[PLACES],
    "0, 5, 9": np.array([0, 5, 9])[PLACES],
    "negative": np.array([-1, 0, 1])[PLACES],
    "uint8": np.array([7, 8, 255], dtype=np.uint8)[PLACES],
    "words": np.array(["ant", "bee", "cow"])[PLACES],
    "objects": np.array(["a", "b", "c"], dtype=object)[PLACES],
    "list": ["null" if k == 0 else "x" if k == 1 else "y" for k in PLACES],
    "whole floats": np.array([1.0, 2.0, 3.0])[PLACES],
    "column": np.array([1, 2, 3])[PLACES, None],
    "Series": pd.Series(np.array(["a", "b", "c"])[PLACES]),
    "category": pd.Series(pd.Categorical.from_codes(PLACES, ["small", "medium", "large"])),
    "frame": pd.DataFrame({"kind": pd.Categorical.from_codes(PLACES, ["z", "y", "x"])}),
    "tensor": torch.as_tensor(PLACES + 1),
}
ORDERS = {"category": ("small", "medium", "large"), "frame": ("z", "y", "x"), "list": ("null", "x", "y")}


@pytest.mark.parametrize("name", CLASSES)
def test_cross_entropy_has_an_output_for_each_class(name):
    Y = CLASSES[name]
    made = problem(Y, "cross_entropy")
    np.testing.assert_array_equal(made.Y, np.eye(3)[PLACES])
    values = np.asarray(Y).ravel().tolist() if name != "tensor" else Y.tolist()
    assert made.classes == ORDERS.get(name, tuple(sorted(set(values))))
    assert made.notes == (f"3 classes in the order of the outputs: {', '.join(map(repr, made.classes))}.",)


def test_two_labels_have_two_outputs():
    labels = np.array([0, 5])[HALVES]
    assert problem(labels, "cross_entropy").Y.shape == (24, 2)
    assert problem(labels == 5, "cross_entropy").classes == (False, True)


def test_the_optimum_does_not_depend_on_the_names_of_the_classes():
    values = [
        cnn.solve(problem(Y, "cross_entropy", activation="linear", beta=1.0), "fista", gap=1e-8).objective
        for Y in (np.eye(3)[PLACES], PLACES, PLACES + 1, CLASSES["words"])
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-6)


@pytest.mark.parametrize("pair", [("a", 1), ("a", True), (("a", 1), ("b", 2)), ("a", "1")])
def test_a_list_of_labels_keeps_their_types(pair):
    """numpy reads ["a", 1] as two words, and tuples as rows."""
    made = problem([pair[place] for place in HALVES], "logistic", output_bias="free")
    assert {(type(label), label) for label in made.classes} == {(type(label), label) for label in pair}


def test_messages_about_labels_name_the_loss_without_its_bias():
    with pytest.raises(cnn.InputError, match="for the logistic loss, found one class only, 'a'"):
        problem(["a"] * len(HALVES), "logistic", output_bias="free")


BINARY = {
    "0/1": ((0, 1), HALVES),
    "uint8": ((0, 1), HALVES.astype(np.uint8)),
    "1/2": ((1, 2), HALVES + 1),
    "words": (("no", "yes"), np.array(["no", "yes"])[HALVES]),
    "booleans": ((False, True), HALVES == 1),
    "objects": (("a", "b"), np.array(["a", "b"], dtype=object)[HALVES]),
    "category": (("sick", "healthy"), pd.Series(pd.Categorical.from_codes(HALVES, ["sick", "healthy"]))),
}


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
@pytest.mark.parametrize("name", BINARY)
def test_two_labels_become_signs(name, loss):
    classes, Y = BINARY[name]
    made = problem(Y, loss)
    np.testing.assert_array_equal(made.Y[:, 0], 2.0 * HALVES - 1.0)
    assert made.classes == classes
    assert made.notes == (f"Labels {classes[0]!r}/{classes[1]!r} are -1/+1.",)


def test_signs_stay_as_they_are():
    made = problem(2 * HALVES - 1, "logistic")
    assert (made.classes, made.notes) == ((-1, 1), ())
    assert problem(np.ones(24), "logistic").classes == (-1.0, 1.0)


def test_numbers_have_no_classes():
    assert problem(PLACES, "squared").classes is None
    assert problem(np.eye(3)[PLACES], "cross_entropy").classes is None
    booleans = problem(HALVES == 1, "squared")
    np.testing.assert_array_equal(booleans.Y[:, 0], HALVES)
    assert booleans.notes == ("Y holds booleans, which the squared loss takes as the numbers 0 and 1.",)


def test_columns_of_unsigned_bytes_do_not_wrap():
    columns = np.eye(3, dtype=np.uint8)[PLACES]
    made = problem(columns, "logistic")
    np.testing.assert_array_equal(made.Y, 2.0 * columns - 1.0)
    assert made.notes == ("Entries 0/1 of Y are -1/+1.",)


def test_pandas_indices_that_differ_are_mentioned():
    frame, column = pd.DataFrame(X, columns=list("abc")), pd.Series(X[:, 0])
    assert problem(column, "squared", beta=0.1).notes == ()
    shuffled = cnn.Problem(frame, column[::-1], beta=0.1, patterns=4)
    assert shuffled.notes == ("X and Y have different pandas indices; their rows were paired by position.",)
    np.testing.assert_array_equal(shuffled.Y[:, 0], X[::-1, 0])


def test_nullable_columns_are_numbers():
    frame = pd.DataFrame({"a": pd.array(np.arange(24), dtype="Int64"), "b": X[:, 0], "c": HALVES == 1})
    made = cnn.Problem(frame, frame[["a", "b"]], beta=0.1, patterns=4)
    np.testing.assert_array_equal(made.X, np.column_stack([np.arange(24.0), X[:, 0], HALVES]))
    np.testing.assert_array_equal(made.Y, made.X[:, :2])


# -- a module is judged by the same targets ------------------------------------------------------------------


def module(outputs):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, outputs)).double()


@pytest.mark.parametrize("name", ["0/1", "uint8", "words", "booleans", "category"])
def test_a_module_and_a_problem_read_two_labels_alike(name):
    classes, Y = BINARY[name]
    report = cnn.certify_module(module(1), X, Y, loss="logistic", weight_decay=0.1)
    np.testing.assert_array_equal(report.problem.Y, problem(Y, "logistic").Y)
    assert report.problem.classes == classes
    assert report.assumptions[-1] == f"Labels {classes[0]!r}/{classes[1]!r} are -1/+1."


@pytest.mark.parametrize("name", ["0, 5, 9", "words", "category"])
def test_a_module_and_a_problem_read_classes_alike(name):
    Y = CLASSES[name]
    report = cnn.certify_module(module(3), X, Y, loss="cross_entropy", weight_decay=0.1)
    np.testing.assert_array_equal(report.problem.Y, np.eye(3)[PLACES])
    assert report.problem.classes == problem(Y, "cross_entropy").classes


def test_class_numbers_of_a_module_keep_outputs_that_do_not_occur():
    report = cnn.certify_module(module(4), X, PLACES + 1, loss="cross_entropy", weight_decay=0.1)
    np.testing.assert_array_equal(report.problem.Y, np.eye(4)[PLACES + 1])
    assert report.problem.classes == (0, 1, 2, 3)
    assert report.assumptions[-1] == "Labels are the class numbers 0 to 3 of the outputs; without samples: 0."
    with pytest.raises(cnn.InputError, match=r"outputs, 4, got 3 classes: 'ant', 'bee', 'cow'"):
        cnn.certify_module(module(4), X, CLASSES["words"], loss="cross_entropy", weight_decay=0.1)
