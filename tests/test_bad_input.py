"""Bad input through the Python interface: what is refused, at once and in which words, and what works all the same."""

import re
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import convexnn_bench as cnn

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 3))
Y = RNG.standard_normal((12, 2))
y = Y[:, 0]
SIGNS = np.sign(y)


def make(X=X, Y=Y, **arguments):
    """A small problem with four sampled patterns; every argument may be replaced."""
    return cnn.Problem(X, Y, **{"beta": 0.1, "patterns": 4, **arguments})


class _Refused:
    """`with assert_refused("word", ...)`: InputError (or `error`) with all the words, within seconds of a processor."""

    def __init__(self, *words: str, error: type = cnn.InputError):
        self.words, self.error = words, error

    def __enter__(self):
        self.start = time.process_time()

    def __exit__(self, kind, value, _):
        assert kind is not None, f"nothing was raised, expected {self.error.__name__} with {self.words}"
        if not issubclass(kind, self.error):
            return False
        missing = [word for word in self.words if word not in str(value)]
        assert not missing, f"{missing} not in: {value}"
        assert time.process_time() - self.start < 10.0  # it is refused before any work is done
        return True


assert_refused = _Refused


def with_entry(array: np.ndarray, index: tuple, value: float) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


# -- X and Y -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value):
    with assert_refused("X has 1 NaN or infinite entries", "(3, 1)"):
        make(with_entry(X, (3, 1), value))
    with assert_refused("Y has NaN or infinite entries in 1 rows", "row 2"):
        make(Y=with_entry(Y, (2, 0), value))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (X[:, 0], ("X must be", "n x d", "(12,)", "X[:, None]")),
        (X[None], ("X must be", "n x d", "(1, 12, 3)")),
        (np.array(3.0), ("X must be", "n x d", "()")),
        (X[:0], ("X must be a non-empty array", "(0, 3)")),
        (X[:, :0], ("X must be a non-empty array", "(12, 0)")),
        ([[1.0, 2.0], [3.0]], ("X cannot be read as an array", "inhomogeneous")),
        (None, ("X must be a numeric array", "NoneType")),
        ({"a": 1}, ("X must be a numeric array", "dict")),
    ],
    ids=["one axis", "three axes", "number", "no rows", "no columns", "ragged", "None", "dict"],
)
def test_wrong_shapes_of_x(bad, words):
    with assert_refused(*words):
        make(bad)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Y[:5], ("X has 12 samples but Y has 5 rows",)),
        (Y[:0], ("X has 12 samples but Y has 0 rows",)),
        (Y[None], ("Y must be n or n x c", "(1, 12, 2)")),
        (Y[:, :0], ("Y must be n or n x c", "(12, 0)")),
        (2.0, ("Y must be n or n x c", "()")),
        ([[1], [2, 3]], ("Y cannot be read as an array",)),
        (None, ("Y must be numeric",)),
    ],
    ids=["fewer rows", "no rows", "three axes", "no columns", "number", "ragged", "None"],
)
def test_wrong_shapes_of_y(bad, words):
    with assert_refused(*words):
        make(Y=bad)


@pytest.mark.parametrize("dtype", [object, complex, str, "datetime64[s]"])
def test_dtypes_that_hold_no_real_numbers(dtype):
    whole = np.arange(36).reshape(12, 3)
    with assert_refused("X must be a numeric array", "dtype"):
        make(whole.astype(dtype))
    with assert_refused("Y must be numeric", "dtype"):
        make(Y=whole.astype(dtype))


def test_a_table_with_words_names_the_way_out():
    with assert_refused("X has columns that hold no numbers: 'b'", "pd.get_dummies(X, columns=['b'], dtype=float)"):
        make(pd.DataFrame({"a": y, "b": list("abcdefghijkl")}))
    with assert_refused("X has columns that hold no numbers: 'size' (category)"):
        make(pd.DataFrame({"a": y, "size": pd.Categorical(["S", "L"] * 6)}))
    with assert_refused("X: column 'a' is NaN or missing in 1 rows, the first is row 1"):
        make(pd.DataFrame({"a": pd.array([1, None, *range(10)], dtype="Int64")}))


def test_sparse_and_masked_arrays_are_no_silent_surprise():
    with assert_refused("X must be a dense array", "sparse"):
        make(torch.as_tensor(X).to_sparse())
    with assert_refused("patterns='all'", "sparse", "patterns=20", "X.toarray()"):
        make(scipy.sparse.csr_array(X), patterns="all")
    with assert_refused("X has", "masked entries"):
        make(np.ma.masked_array(X, X > 1))
    with assert_refused("X cannot be read as an array", "meta"):
        make(torch.empty(12, 3, device="meta"))


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.tolist(),
        lambda a: tuple(map(tuple, a.tolist())),
        pd.DataFrame,
        torch.as_tensor,
        lambda a: torch.as_tensor(a).requires_grad_(),
        lambda a: torch.as_tensor(a).bfloat16(),
        lambda a: a.astype(np.float32),
        lambda a: a.astype(np.float16),
        lambda a: a.astype(np.int8),
        lambda a: a.astype(np.int64),
        lambda a: a.astype(np.longdouble),
        lambda a: torch.as_tensor(a).int(),
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: a[::-1][::-1],
        lambda a: np.ascontiguousarray(a[::-1])[::-1],
        lambda a: torch.as_tensor(np.ascontiguousarray(a.T)).T,
    ],
    ids=[
        *("lists", "tuples", "DataFrame", "tensor", "tensor with gradient", "bfloat16", "float32", "float16", "int8"),
        *(
            "int64",
            "longdouble",
            "int tensor",
            "Fortran order",
            "strided",
            "view",
            "negative stride",
            "transposed tensor",
        ),
    ],
)
def test_other_kinds_of_arrays_give_the_same_result(convert):
    whole = np.random.default_rng(1).integers(-4, 5, size=(12, 3)).astype(float)
    targets = np.random.default_rng(2).integers(-4, 5, size=(12, 2)).astype(float)
    one = make(whole, targets)
    other = make(convert(whole), convert(targets))
    assert other.X.dtype == other.Y.dtype == np.float64
    np.testing.assert_array_equal(other.X, one.X)
    np.testing.assert_array_equal(other.Y, one.Y)
    np.testing.assert_array_equal(other.masks, one.masks)
    assert other.beta_max == one.beta_max
    Z = np.random.default_rng(3).integers(-4, 5, size=(one.P * one.p, one.q)).astype(float)
    blocks = [convert(block) for block in Z.reshape(one.P, one.p, one.q)]
    assert one.objective(blocks) == one.objective(Z.reshape(one.P, one.p, one.q))


def test_the_problem_keeps_its_own_data():
    mine, targets = X.copy(), Y.copy()
    problem = make(mine, targets)
    mine[:], targets[:] = 7.0, 7.0
    np.testing.assert_array_equal(problem.X, X)
    np.testing.assert_array_equal(problem.Y, Y)


# -- degenerate data that are no mistake ---------------------------------------------------------------------


def check_certified(problem, gap: float = 1e-5, solver: str = "fista"):
    """The problem solved, with warnings as errors; asserts the gap."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = cnn.solve(problem, solver, time_limit=600, gap=gap)
    assert result.status == "gap_reached", result.reason
    assert 0 <= result.certificate.gap <= gap
    return result


@pytest.mark.parametrize("activation", ["linear", "gated_relu", "relu"])
@pytest.mark.parametrize("patterns", ["all", 4])
def test_one_sample(activation, patterns):
    problem = make(X[:1], Y[:1, :1], activation=activation, patterns=patterns, beta=None, beta_fraction=0.5)
    assert problem.masks.all()
    assert problem.P == 1
    result = check_certified(problem)
    # one row x: only ||x|| matters, min 1/2 (||x|| z - y)^2 + beta |z|, with beta = ||x|| |y| / 2
    assert result.objective == pytest.approx(0.375 * Y[0, 0] ** 2, rel=1e-5)


@pytest.mark.slow
def test_one_class():
    for loss in ("logistic", "squared_hinge"):
        for label in (1, -1):
            check_certified(make(Y=np.full(12, label), loss=loss))
    for label in (0, 1):
        with assert_refused("Y holds one class only", f"all labels {label}", "at least two classes", "one-hot"):
            make(Y=np.full(12, label), loss="cross_entropy")
    one_hot = np.eye(2)[np.zeros(12, dtype=int)]
    check_certified(make(Y=one_hot, loss="cross_entropy"))


@pytest.mark.slow
def test_constant_features_and_a_constant_sample():
    check_certified(make(np.column_stack([X[:, :1], np.ones(12)]), patterns="all"))
    check_certified(make(np.column_stack([X[:, :1], np.zeros(12)]), patterns="all"))
    problem = make(np.ones((12, 3)), patterns="all")
    assert problem.P == 1
    check_certified(problem)
    with assert_refused("every row is zero", "the data must not be all zero"):
        make(np.zeros((12, 3)))


@pytest.mark.parametrize("patterns", ["all", 1000])
def test_duplicate_rows_have_the_patterns_of_the_distinct_ones(patterns):
    base = cnn.Problem(X[:, :2], Y, beta=0.1, patterns="all")
    doubled = cnn.Problem(np.repeat(X[:, :2], 2, axis=0), np.repeat(Y, 2, axis=0), beta=0.2, patterns=patterns)
    names = {column.tobytes() for column in doubled.masks.T}
    assert len(names) == doubled.P == base.P == 24  # 2 n in the plane
    np.testing.assert_array_equal(doubled.masks[::2], doubled.masks[1::2])
    assert {column.tobytes() for column in doubled.masks[::2].T} == {column.tobytes() for column in base.masks.T}
    Z = RNG.standard_normal((base.P, 2, 2))
    same = cnn.Problem(doubled.X, doubled.Y, beta=0.2, patterns=np.repeat(base.masks, 2, axis=0))
    assert same.objective(Z) == pytest.approx(2 * base.objective(Z), rel=1e-13)  # sums: twice the loss, twice the decay


# -- scales --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e12, 1e-12])
@pytest.mark.parametrize("which", ["X", "Y"])
@pytest.mark.parametrize("solver", ["fista", "bm_lbfgs"])
@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
def test_huge_and_tiny_scales_are_solved_and_certified(scale, which, solver, activation):
    factors = (scale, 1.0) if which == "X" else (1.0, scale)
    base = make(X, y, activation=activation, beta=None, beta_fraction=0.1)
    problem = make(factors[0] * X, factors[1] * y, activation=activation, beta=None, beta_fraction=0.1)
    assert problem.beta == pytest.approx(base.beta * scale, rel=1e-9)
    np.testing.assert_array_equal(problem.masks, base.masks)
    result = check_certified(problem, 1e-4, solver)
    # squared loss: the optimum is that of the plain data times the scale of Y squared, whatever that of X
    expected = check_certified(base, 1e-6).objective
    assert result.objective / factors[1] ** 2 == pytest.approx(expected, rel=2e-4)


def test_columns_of_very_different_scales():
    check_certified(make(X * [1e12, 1.0, 1e-12], y, beta=None, beta_fraction=0.1), 1e-4)


@pytest.mark.parametrize("scale", [1e45, 1e200, 1e300, 1e-45, 1e-200])
def test_scales_beyond_float64_products_are_refused(scale):
    for activation in ("gated_relu", "relu", "linear"):
        with assert_refused("X: the largest magnitude is", "e+" if scale > 1 else "e-", "1e-40 to 1e+40", "rescale X"):
            make(scale * X, y, activation=activation)
    with assert_refused("Y: the largest magnitude is", "1e-40 to 1e+40", "rescale Y"):
        make(X, scale * y)


def test_a_point_that_overflows_is_diverged_and_no_crash():
    class Runaway(cnn.BaseSolver):
        """Doubles its point for ever."""

        name, formulation = "runaway", "convex"

        def set_problem(self, problem):
            self.Z = np.ones((problem.P, problem.p, problem.q))

        def run(self, callback):
            while callback():
                self.Z = np.minimum(1e10 * self.Z, 1e200)

        def get_result(self):
            return cnn.Point(blocks=self.Z)

    result = cnn.solve(make(), Runaway(), time_limit=600)
    assert result.status == "diverged"
    assert "not finite, or above 1e+100" in result.reason


# -- beta ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [0, -1, -0.0, np.nan, np.inf, True, np.True_, "0.1", [0.1], 2 + 0j, np.complex128(1), 10**400],
    ids=lambda value: repr(value)[:12],
)
@pytest.mark.parametrize("name", ["beta", "beta_fraction"])
def test_beta_must_be_a_positive_number(name, value):
    with assert_refused(f"{name} must be a positive finite number, got "):
        make(**{"beta": None, name: value})


def test_exactly_one_of_beta_and_beta_fraction():
    with assert_refused("give exactly one of beta and beta_fraction", "beta=0.1", "beta_fraction=0.2"):
        make(beta=0.1, beta_fraction=0.2)
    with assert_refused("give exactly one of beta and beta_fraction", "beta=None", "beta_fraction=None"):
        make(beta=None)


def test_beta_fraction_of_nothing():
    with assert_refused("beta_fraction cannot be used", "beta_max is 0", "give beta itself"):
        make(Y=np.zeros((12, 2)), beta=None, beta_fraction=0.1)
    check_certified(make(Y=np.zeros((12, 2))))


@pytest.mark.parametrize(("name", "value"), [("beta", -3), ("X", X), ("masks", None), ("loss", "huber")])
def test_a_problem_does_not_change(name, value):
    problem = make()
    with pytest.raises(AttributeError, match=f"{name} of a Problem is read-only: .* new one"):
        setattr(problem, name, value)
    assert problem.beta == 0.1


@pytest.mark.parametrize("activation", ["gated_relu", "relu"])
def test_another_beta_is_another_problem(activation):
    problem = make(activation=activation)
    larger, half = problem.with_beta(2.5), problem.with_beta(fraction=0.5)
    assert (problem.beta, larger.beta, half.beta) == (0.1, 2.5, 0.5 * problem.beta_max)
    assert larger.masks is problem.masks
    Z = problem.gates.T[:, :, None] * np.ones(2)
    norms = (half.objective(Z) - problem.objective(Z)) / (half.beta - problem.beta)
    assert larger.objective(Z) == pytest.approx(problem.objective(Z) + (2.5 - 0.1) * norms)
    for arguments, words in (
        ({"beta": -3}, "beta must be a positive finite number, got -3"),
        ({"fraction": 0.0}, "fraction must be a positive"),
        ({}, "give exactly one of beta and fraction"),
        ({"beta": 1.0, "fraction": 0.5}, "give exactly one of beta and fraction"),
    ):
        with assert_refused(words):
            problem.with_beta(**arguments)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0", None], ids=repr)
def test_seed_of_the_patterns(seed):
    with assert_refused("seed must be a whole number, at least 0", repr(seed)):
        make(seed=seed)


# -- targets and losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
def test_labels_of_two_classes(loss):
    for labels, found in ((y, "found "), (np.arange(12) % 3, "found 0, 1, 2"), (np.zeros(12), "one class only, 0.0")):
        with assert_refused(f"labels -1 and 1, or any two labels, for the {loss} loss", found):
            make(Y=labels, loss=loss)
    with assert_refused(f"labels -1 and 1 in each column for the {loss} loss", "found 1, 2"):
        make(Y=np.tile([1, 2], (12, 1)), loss=loss)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.abs(Y) + 1, ("rows of Y must be non-negative and sum to one", "sums to")),
        (np.tile([2.0, -1.0], (12, 1)), ("rows of Y must be non-negative", "row 0", "-1")),
        (y, ("labels (words or whole numbers)", "not whole, such as ", "cross_entropy")),
        (np.arange(12) * 10_000, ("12 classes for 12 rows", "some label must repeat", "measured values")),
        (["a", None] * 6, ("missing labels in 6 rows, the first is row 1",)),
        (["a"] * 12, ("one class only (all labels 'a')", "at least two classes")),
    ],
    ids=["not one", "negative", "real numbers", "all different", "missing", "one class"],
)
def test_targets_of_cross_entropy(labels, words):
    with assert_refused(*words):
        make(Y=labels, loss="cross_entropy")


@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_words_are_no_numbers(loss):
    with assert_refused(f"Y must be numeric for the {loss} loss", "words such as 'a'", "cross_entropy", "get_dummies"):
        make(Y=["a", "b", "c"] * 4, loss=loss)


@pytest.mark.parametrize("delta", [0, -1.0, np.inf, np.nan, "x", True, None, [1.0]], ids=repr)
def test_parameters_of_a_loss(delta):
    with assert_refused("delta must be a positive finite number", "huber", repr(delta)):
        cnn.Huber(delta=delta)
    with assert_refused("delta must be a positive finite number"):
        make(loss="huber[delta=-1]")
    with assert_refused("loss 'huber' has no parameter 'gamma'", "it has: delta"):
        make(loss="huber[gamma=1]")
    with assert_refused("loss 'squared' has no parameter 'delta'", "it has: none"):
        make(loss="squared[delta=1]")


# -- patterns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patterns", [0, -3])
def test_a_number_of_patterns_below_one(patterns):
    with assert_refused('patterns must be "all"', "whole number", "at least 1", f"got {patterns}"):
        make(patterns=patterns)


@pytest.mark.parametrize("patterns", [2.5, 2.0, True, False, np.True_, "some", "4", None, {}, np.float32(2)], ids=repr)
def test_patterns_of_another_kind(patterns):
    with assert_refused('patterns must be "all"', "whole number", "N x P bool array", f"got {patterns!r}"):
        make(patterns=patterns)


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (np.ones((5, 2), dtype=bool), ("N = 12 rows", "(5, 2)")),
        (np.ones(12, dtype=bool), ("N = 12 rows", "(12,)")),
        (np.ones((2, 12), dtype=bool), ("N = 12 rows", "(2, 12)")),
        (np.ones((12, 0), dtype=bool), ("at least one column", "(12, 0)")),
        (np.full((12, 2), 2), ("booleans or 0 and 1 only",)),
        (np.full((12, 2), 0.5), ("booleans or 0 and 1 only",)),
        (np.full((12, 2), np.nan), ("booleans or 0 and 1 only",)),
        (np.full((12, 2), "yes"), ("booleans or 0 and 1 only",)),
        ([[True], [False, True]], ("patterns cannot be read as an array",)),
    ],
    ids=["rows", "one axis", "transposed", "no columns", "twos", "halves", "nan", "words", "ragged"],
)
def test_masks_that_do_not_fit(patterns, words):
    with assert_refused("patterns", *words):
        make(patterns=patterns)


def test_an_enumeration_that_cannot_fit_says_how_large_and_what_to_do():
    wide = np.random.default_rng(0).standard_normal((500, 20))
    with assert_refused(
        "10^34 patterns", "500 distinct hyperplanes of rank 20", "patterns=500", error=cnn.PatternBudgetError
    ):
        cnn.Problem(wide, wide[:, 0], beta=0.1, patterns="all")
    with assert_refused("patterns=1000000000000", "Ask for fewer", error=cnn.PatternBudgetError):
        cnn.Problem(wide, wide[:, 0], beta=0.1, patterns=10**12)


def test_more_patterns_than_there_are_end_at_those_there_are():
    problem = cnn.Problem(X[:, :2], y, beta=0.1, patterns=10**15)
    assert problem.P == 24
    assert problem.scope == "complete"


@pytest.mark.parametrize(
    ("rows", "mask"),
    [
        ([[1.0, 0.0], [1.0, 0.0]], [1, 0]),  # equal rows
        ([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1, 1, 0]),  # a sum of active rows
        ([[1.0, 2.0], [-1.0, -2.0]], [0, 0]),  # opposite rows, of which one is always active
    ],
    ids=["equal", "sum", "opposite"],
)
def test_masks_that_no_vector_attains(rows, mask):
    masks = np.column_stack([np.ones(len(rows), dtype=bool), np.array(mask, dtype=bool)])
    with assert_refused("patterns: block 1 is the pattern", "of no vector u"):
        cnn.Problem(rows, np.ones(len(rows)), activation="relu", beta=0.1, patterns=masks)
    gated = cnn.Problem(rows, np.ones(len(rows)), activation="gated_relu", beta=0.1, patterns=masks)
    np.testing.assert_array_equal(gated.masks, masks)


@pytest.mark.parametrize("shape", [(40, 5), (60, 2), (12, 12)], ids=str)
def test_masks_that_vectors_attain_are_taken(shape):
    rows = np.random.default_rng(0).standard_normal(shape)
    rows[::3] = np.round(rows[::3])  # some patterns lie on boundaries
    directions = np.random.default_rng(1).integers(-2, 3, (shape[1], 30))
    problem = cnn.Problem(rows, rows[:, 0], activation="relu", beta=0.1, patterns=rows @ directions >= 0)
    assert problem.P == 30


def test_sampled_and_enumerated_patterns_are_taken():
    sampled = cnn.sample_patterns(X, 20)
    for activation in ("relu", "gated_relu"):
        problem = make(patterns=sampled, activation=activation)
        np.testing.assert_array_equal(problem.masks, sampled.masks)
        np.testing.assert_array_equal(problem.gates, sampled.gates)
        assert problem.scope == "sampled"
        assert not np.shares_memory(problem.masks, sampled.masks)
    complete = cnn.enumerate_patterns(X[:, :2])
    assert cnn.Problem(X[:, :2], y, beta=0.1, patterns=complete).scope == "complete"
    # The same masks and gates, but X has a plane more than the patterns know of.
    twice = np.vstack([X[:2, :2], X[:1, :2]])
    fewer = cnn.enumerate_patterns(twice)
    turned = twice + np.array([[0.0, 0.0], [0.0, 0.0], [1e-3, 0.0]])
    assert cnn.Problem(turned, np.ones(3), beta=0.1, patterns=fewer).scope == "sampled"


def test_patterns_of_other_data_are_refused():
    sampled = cnn.sample_patterns(X, 20)
    with assert_refused("patterns: they are of other data", "block"):
        make(X=X[::-1], patterns=sampled)
    with assert_refused("they are of 12 rows of 3 features, and the first layer has 6 rows of 3"):
        make(X=X[:6], Y=Y[:6], patterns=sampled)


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make(loss="sqared"), ("unknown loss 'sqared'", "did you mean 'squared'?", "huber")),
        (lambda: make(activation="gated"), ("unknown activation 'gated'", "did you mean 'gated_relu'?", "linear")),
        (lambda: make(architecture="mpl"), ("unknown architecture 'mpl'", "did you mean 'mlp'?")),
        (lambda: cnn.solve(make(), "bm_lbgs"), ("unknown solver 'bm_lbgs'", "did you mean 'bm_lbfgs'?", "fista")),
        (lambda: cnn.make_problem("spirl"), ("unknown data set 'spirl'", "did you mean 'spiral'?", "digits")),
    ],
    ids=["loss", "activation", "architecture", "solver", "data set"],
)
def test_unknown_names_get_the_nearest_one(call, words):
    with assert_refused(*words, error=cnn.UnknownNameError):
        call()


def test_a_name_near_to_none_gets_the_list():
    with assert_refused("unknown loss 'zzz': known: cross_entropy", error=cnn.UnknownNameError):
        make(loss="zzz")


@pytest.mark.parametrize("kind", ["loss", "activation", "architecture"])
def test_names_must_be_names_or_instances(kind):
    for value in (3, None, ["squared"]):
        with assert_refused(f"{kind} must be a name or an instance of Base", type(value).__name__):
            make(**{kind: value})
    with assert_refused("solver must be a name or an instance of BaseSolver", "int"):
        cnn.solve(make(), 3)


# -- solvers and solve ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "parameters", "words"),
    [
        ("bm_lbfgs", {"k": 1}, ("solver 'bm_lbfgs' has no parameter 'k'", "it has: m, finish, history")),
        ("fista", {"m": 1}, ("solver 'fista' has no parameter 'm'", "it has: none")),
        ("bm_lbfgs", {"m": 0}, ("'bm_lbfgs': m must be a whole number, at least 1, or None, got 0",)),
        ("bm_gd", {"m": "x"}, ("'bm_gd': m must be a whole number", "got 'x'")),
        ("bm_gd", {"m": 1.5}, ("m must be a whole number", "got 1.5")),
        ("bm_adam", {"m": True}, ("m must be a whole number", "got True")),
        ("bm_lbfgs[m=0]", {}, ("m must be a whole number", "got 0")),
        ("bm_lbfgs[m=[1,2]]", {}, ("m must be a whole number", "got [1, 2]")),
        ("network_gd", {"width": -1}, ("'network_gd': width must be a whole number, at least 1, or None, got -1",)),
        ("network_adam", {"width": 2.5}, ("width must be a whole number", "got 2.5")),
        ("bm_lbfgs", {"history": 0}, ("history must be a whole number, at least 1, got 0",)),
        ("network_lbfgs", {"history": None}, ("history must be a whole number", "got None")),
        ("bm_adam", {"rate": -1}, ("rate must be a positive finite number, got -1",)),
        ("bm_adam", {"rate": 0}, ("rate must be a positive finite number", "got 0")),
        ("network_adam", {"rate": np.nan}, ("rate must be a positive finite number", "got nan")),
        ("network_adam", {"rate": "fast"}, ("rate must be a positive finite number", "got 'fast'")),
        ("network_sgd", {"batch": 0}, ("batch must be a whole number, at least 1, got 0",)),
        ("network_sgd", {"momentum": 1.5}, ("momentum must be a number at least 0 and below 1, got 1.5",)),
        ("network_sgd", {"momentum": -0.1}, ("momentum must be a number at least 0 and below 1, got -0.1",)),
    ],
    ids=str,
)
def test_parameters_of_solvers(solver, parameters, words):
    problem = make()
    with assert_refused(*words):
        cnn.solve(problem, solver, **parameters)


@pytest.mark.parametrize("value", [0, -1, np.nan, "5", True, [1]], ids=repr)
@pytest.mark.parametrize("name", ["time_limit", "gap"])
def test_limits_of_solve(name, value):
    with assert_refused(f"{name} must be a positive number, or None, got {value!r}"):
        cnn.solve(make(), "fista", **{name: value})


@pytest.mark.parametrize("value", [0, -1, 2.5, np.nan, "5", True, [1]], ids=repr)
def test_iterations_of_solve(value):
    with assert_refused(f"iterations must be a whole number, at least 1, or None, got {value!r}"):
        cnn.solve(make(), "fista", iterations=value)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0", None, 2**80], ids=repr)
def test_seed_of_solve(seed):
    with assert_refused("seed must be a whole number, at least 0 and below 2^63", repr(seed)):
        cnn.solve(make(), "fista", seed=seed)


@pytest.mark.parametrize("device", ["tpu", "gpu", "mps", "meta", "", 0, None], ids=repr)
def test_devices_there_are_not(device):
    with assert_refused("device must be 'cpu', 'cuda' or 'cuda:0'", f"got {device!r}"):
        cnn.solve(make(), "fista", device=device)


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        with assert_refused(f"device {device!r}", "torch sees no CUDA device here", "'cpu'"):
            cnn.solve(make(), "fista", device=device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with assert_refused("device 'cuda:7'", "the last CUDA device here is 'cuda:1'"):
        cnn.solve(make(), "fista", device="cuda:7")


def test_what_solve_and_certify_are_given():
    with assert_refused("problem must be a Problem", "tuple"):
        cnn.solve((X, Y), "fista")
    with assert_refused("on_score must be a function", "3"):
        cnn.solve(make(), "fista", on_score=3)


# -- vector-output ReLU, and points --------------------------------------------------------------------------


def test_fista_skips_vector_output_relu_with_the_reason():
    result = cnn.solve(make(activation="relu", patterns="all"), "fista")
    assert result.status == "skipped"
    assert re.search(r"q = 2.*NP-hard.*Burer-Monteiro", result.reason)
    assert result.blocks is result.factors is result.network is result.certificate is None
    assert result.curve == []
    assert np.isnan(result.objective)


def test_a_skipped_result_has_nothing_to_certify():
    result = cnn.solve(make(activation="relu"), "fista")
    with assert_refused("no point to certify", "skipped", "several outputs"):
        cnn.certify(make(), result)


P4 = np.zeros((4, 3, 2))


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (np.zeros((3, 2)), ("P x p x q = 4 x 3 x 2", "(3, 2)")),
        (np.zeros((5, 3, 2)), ("P x p x q = 4 x 3 x 2", "(5, 3, 2)")),
        ([np.zeros((3, 2))] * 3, ("4", "3 x 2")),
        ([np.zeros((3, 2)), np.zeros((2, 2))], ("p x q", "(2, 2)")),
        ([], ("p x q",)),
        ((np.zeros((4, 3, 2)), np.zeros((4, 2, 3))), ("U: P x p x m and V: P x q x m", "(4, 3, 2)", "(4, 2, 3)")),
        ((np.zeros((4, 3, 0)), np.zeros((4, 2, 0))), ("U: P x p x m", "m >= 1", "(4, 3, 0)")),
        ((np.zeros((3, 5)), np.zeros((2, 4))), ("W1: p x M and W2: q x M", "(3, 5)", "(2, 4)")),
        ((np.zeros((5, 3)), np.zeros((5, 2))), ("W1: p x M and W2: q x M", "(5, 3)", "(5, 2)")),
        (np.full((4, 3, 2), np.nan), ("Z has 24 NaN or infinite entries",)),
        (np.full((4, 3, 2), None), ("Z must be a numeric array", "object")),
        (None, ("point must be a Result, blocks", "NoneType")),
        ("x", ("point must be a Result, blocks", "str")),
        (
            torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(4, 2, bias=False)),
            ("no network of this gated_relu mlp problem",),
        ),
        (cnn.Point(blocks=P4, dual=np.zeros(3)), ("dual must have the shape of Y", "(12, 2)", "(3,)", "result.blocks")),
        (cnn.Point(factors=(P4, P4)), ("U: P x p x m and V: P x q x m",)),
    ],
    ids=[
        *(
            "two axes",
            "P",
            "list too short",
            "ragged list",
            "empty list",
            "V",
            "m = 0",
            "M",
            "transposed",
            "nan",
            "None's",
        ),
        *("None", "word", "module", "dual", "Point"),
    ],
)
def test_points_that_do_not_fit(point, words):
    problem = make()
    with assert_refused(*words):
        cnn.certify(problem, point)


@pytest.mark.parametrize("bad", [np.zeros((3, 2)), np.zeros((4, 3, 1)), [], [np.zeros((3, 2))] * 5, "blocks", None])
def test_blocks_that_do_not_fit_objective_and_predict(bad):
    problem = make()
    for method in (problem.objective, problem.predict):
        with assert_refused("Z must"):
            method(bad)


def test_a_result_of_another_problem():
    result = cnn.solve(make(), "fista", iterations=3)
    with assert_refused("Z must be P x p x q = 5 x 3 x 2", "(4, 3, 2)"):
        cnn.certify(make(patterns=5), result)
