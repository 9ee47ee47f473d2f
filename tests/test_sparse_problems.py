"""Problems on sparse and on large float32 data, against their dense float64 twins."""

import copy
import os
import pickle
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.sparse
import torch
from problems import targets

import convexnn_bench as cnn
from convexnn_bench.algorithms.newton.working_problem import WorkingProblem
from convexnn_bench.errors import ChangedProblemError, InputError, UnsupportedError
from convexnn_bench.harness.process import run_process
from convexnn_bench.harness.tree import resident_mb
from convexnn_bench.operator import adjoint_rounding, compact, data, prediction_rounding
from convexnn_bench.running.untouched import Untouched

LOSSES = [("squared", 1), ("squared", 3), ("huber", 3), ("logistic", 1), ("squared_hinge", 1), ("cross_entropy", 3)]


def counts(n: int = 30, d: int = 8, seed: int = 0) -> scipy.sparse.csr_array:
    """A sparse matrix with an empty row and an empty column."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, d)) < 0.3, rng.standard_normal((n, d)), 0.0)
    dense[3], dense[:, 2] = 0.0, 0.0
    return scipy.sparse.csr_array(dense)


def problem(X, loss="squared", c=1, activation="gated_relu", **options):
    Y = targets(loss, X.shape[0], c, np.random.default_rng(1))
    options = {"beta_fraction": 0.1, "patterns": 6, **options}
    return cnn.Problem(X, Y, activation=activation, loss=loss, **options)


@pytest.fixture(params=["sparse", "float32"])
def kind(request, monkeypatch):
    """How the data are kept, as a function of a sparse matrix; all float32 data count as large."""
    monkeypatch.setattr(data, "fits", lambda numbers: False)
    monkeypatch.setattr(compact, "PART_NUMBERS", 64)
    return {"sparse": lambda X: X, "float32": lambda X: X.toarray().astype(np.float32)}[request.param]


def dense_twin(made: cnn.Problem) -> cnn.Problem:
    X = made.X.toarray() if made.is_sparse else made.X.astype(np.float64)
    parts = {"activation": made.activation, "loss": made.loss, "beta": made.beta, "patterns": made.pattern_info}
    return cnn.Problem(X, made.Y, **parts)


@contextmanager
def refused(*words: str, error: type[Exception] = InputError):
    with pytest.raises(error) as caught:
        yield
    for word in words:
        assert word in str(caught.value)


# -- the same problem -------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["gated_relu", "linear"])
@pytest.mark.parametrize(("loss", "c"), LOSSES)
def test_objectives_and_certificates_are_those_of_the_dense_twin(kind, loss, c, activation):
    made = problem(kind(counts()), loss, c, activation)
    twin = dense_twin(made)
    assert made.beta_max == pytest.approx(twin.beta_max, rel=1e-13)
    rng = np.random.default_rng(2)
    U, V = rng.standard_normal((made.P, made.p, 2)), rng.standard_normal((made.P, made.q, 2))
    W1, W2 = U.transpose(1, 2, 0).reshape(made.p, -1), V.transpose(1, 2, 0).reshape(made.q, -1)
    Z = U @ V.transpose(0, 2, 1)
    np.testing.assert_allclose(made.predict(Z), twin.predict(Z), rtol=1e-12, atol=1e-12)
    assert made.objective(Z) == pytest.approx(twin.objective(Z), rel=1e-13)
    assert made.factored_objective(U, V) == pytest.approx(twin.factored_objective(U, V), rel=1e-13)
    assert made.network_objective(W1, W2) == pytest.approx(twin.network_objective(W1, W2), rel=1e-13)
    for point in (0.1 * Z, (0.1 * U, 0.1 * V), (0.1 * W1, 0.1 * W2)):
        found, expected = cnn.certify(made, point), cnn.certify(twin, point)
        assert found.primal == pytest.approx(expected.primal, rel=1e-12)
        assert found.dual == pytest.approx(expected.dual, rel=1e-11)
        assert found.max_dual_norm == pytest.approx(expected.max_dual_norm, rel=1e-12)


@pytest.mark.parametrize(
    ("solver", "loss", "c"),
    [
        ("bm_newton", "logistic", 1),
        ("bm_newton", "squared", 3),
        ("semismooth_newton", "logistic", 1),
        ("interior_point", "squared", 3),
        ("fista", "squared", 3),
        pytest.param("bm_lbfgs", "logistic", 1, marks=pytest.mark.slow),
        pytest.param("network_lbfgs", "squared", 3, marks=pytest.mark.slow),
    ],
)
def test_solvers_reach_the_optimum_of_the_dense_twin(kind, solver, loss, c):
    made = problem(kind(counts()), loss, c)
    result = cnn.solve(made, solver, gap=1e-4, iterations=1000)
    assert result.status == "gap_reached", result.reason
    assert cnn.certify(dense_twin(made), result.point).gap == pytest.approx(result.gap, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["bm_gd", "bm_adam", "bm_scaled_gd", "network_gd", "network_adam", "network_sgd"])
def test_other_first_order_solvers_take_the_data(kind, solver):
    made = problem(kind(counts()), "squared", 2)
    before = made.objective(np.zeros((made.P, made.p, made.q)))
    result = cnn.solve(made, solver, gap=1e-2, iterations=60)
    assert result.status in ("gap_reached", "stalled", "iteration_limit"), result.reason
    assert result.objective < 0.9 * before


@pytest.mark.parametrize("factor", [1e7, 1e-7])
def test_units_of_the_data(kind, factor):
    X = counts()
    X.data *= factor
    result = cnn.solve(problem(kind(X)), "bm_newton", gap=1e-6, iterations=200)
    assert result.status == "gap_reached", result.reason


def test_gates_are_those_of_the_dense_data(kind):
    made = problem(kind(counts()))
    dense = problem(dense_twin(made).X)
    assert np.array_equal(made.masks, dense.masks)
    assert np.array_equal(made.gates, dense.gates)


def test_fewer_patterns_than_asked_for():
    made = problem(counts(d=4)[:, :2], patterns=500)
    assert 1 <= made.P < 500
    assert made.scope == "sampled"


def test_products_shared_by_processes(kind):
    made = problem(kind(counts()), c=2)
    Z = torch.randn(made.P, made.p, made.q, dtype=torch.float64)
    torch.testing.assert_close(made.shared().operator().apply(Z), made.operator().apply(Z))


def test_the_preconditioner_takes_the_diagonal_of_sparse_data(kind):
    made = problem(kind(counts()))
    weights = torch.rand(made.N, dtype=torch.float64)
    found = WorkingProblem(made, "cpu").row_gram(weights)
    expected = WorkingProblem(dense_twin(made), "cpu").row_gram(weights)
    torch.testing.assert_close(found, expected.diagonal() if made.is_sparse else expected)


# -- rounding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_bounds_on_rounding_hold_in_extended_precision(kind, seed):
    """Magnitudes over ten decades, and products that cancel."""
    rng = np.random.default_rng(seed)
    X = counts(200, 6, seed)
    X.data *= 10 ** rng.uniform(-5, 5, X.nnz)
    made = problem(kind(X), "squared", 2, beta_fraction=None, beta=1.0)
    operator, exact = made.operator(), dense_twin(made).X.astype(np.longdouble)
    L, Z = rng.standard_normal((made.N, 2)), rng.standard_normal((made.P, made.p, 2))
    G, z = operator.adjoint(torch.as_tensor(L)).numpy(), operator.apply(torch.as_tensor(Z)).numpy()
    bound = adjoint_rounding(operator, torch.as_tensor(L))
    for k in range(made.P):
        error = exact.T @ (made.masks[:, k, None] * L.astype(np.longdouble)) - G[k]
        assert 0 < float(np.linalg.norm(error.astype(float))) <= bound
    truth = sum(made.masks[:, k, None] * (exact @ Z[k].astype(np.longdouble)) for k in range(made.P))
    allowed = prediction_rounding(operator, torch.as_tensor(np.abs(Z).sum(axis=0)), made.P).numpy()
    assert (np.abs(truth - z) <= allowed).all()
    assert (allowed < 1e-10 * (1 + np.abs(exact) @ np.abs(Z).sum(axis=0))).all()


# -- what may be given ------------------------------------------------------------------------------------


FORMATS = {
    "csr_array": scipy.sparse.csr_array,
    "csr_matrix": scipy.sparse.csr_matrix,
    "csc_array": scipy.sparse.csc_array,
    "csc_matrix": scipy.sparse.csc_matrix,
    "coo_array": scipy.sparse.coo_array,
    "coo_matrix": scipy.sparse.coo_matrix,
    "lil_array": scipy.sparse.lil_array,
    "float32": lambda X: scipy.sparse.csr_array(X.astype(np.float32)),
    "int8": lambda X: scipy.sparse.csr_array(np.rint(4 * X).astype(np.int8)),
    "bool": lambda X: scipy.sparse.coo_array(X > 0),
    "64-bit indices": lambda X: _with_indices(scipy.sparse.csr_array(X), np.int64),
    "explicit zeros": lambda X: _edited(scipy.sparse.csr_array(X), lambda X: X.data.__setitem__(slice(0, 9), 0.0)),
    "wrong flags": lambda X: _edited(scipy.sparse.csr_array(X), _with_old_flags),
    "unsorted indices": lambda X: _edited(scipy.sparse.csr_array(X), _swap_first_two),
}


def _with_indices(X, dtype):
    made = scipy.sparse.csr_array(X.shape)
    made.data, made.indices, made.indptr = X.data, X.indices.astype(dtype), X.indptr.astype(dtype)
    return made


def _edited(X, edit):
    edit(X)
    return X


def _swap_first_two(X):
    row = int(np.flatnonzero(np.diff(X.indptr) >= 2)[0])
    at = X.indptr[row]
    for array in (X.data, X.indices):
        array[[at, at + 1]] = array[[at + 1, at]]
    X.has_sorted_indices = False


def _with_old_flags(X):
    """Swap two numbers after SciPy has noted that the indices are sorted."""
    assert X.has_canonical_format
    _swap_first_two(X)
    X.has_sorted_indices = X.has_canonical_format = True


def _arrays(X):
    return [copy.copy(getattr(X, name)) for name in ("data", "indices", "indptr", "coords") if hasattr(X, name)]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read_and_left_unchanged(form):
    X = FORMATS[form](counts().toarray())
    before, dense = copy.deepcopy(_arrays(X)), np.asarray(X.toarray(), dtype=np.float64)
    names = set(vars(X))
    made = problem(X)
    assert type(made.X) is scipy.sparse.csr_array
    assert made.X.dtype == np.float64
    assert made.X.indices.dtype == np.int32
    assert made.X.has_canonical_format
    assert np.count_nonzero(dense) == made.X.nnz
    assert np.array_equal(made.X.toarray(), dense)
    assert set(vars(X)) == names
    for old, new in zip(before, _arrays(X), strict=True):
        np.testing.assert_array_equal(old, new)
    if hasattr(X, "data") and form != "lil_array":
        X.data[:] = 1
        assert np.array_equal(made.X.toarray(), dense)


def test_duplicates_are_added_without_overflow():
    rows, columns = np.r_[np.arange(12), 0], np.r_[np.arange(12) % 3, 0]
    X = scipy.sparse.coo_array((np.full(13, 100, dtype=np.int8), (rows, columns)), shape=(12, 3))
    assert problem(X).X[0, 0] == 200
    assert X.nnz == 13
    # In SciPy duplicates of truth values are still truth values.
    assert problem(X.astype(bool)).X[0, 0] == 1


def _with(X, name, index, value):
    made = X.copy()
    getattr(made, name)[index] = value
    return made


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (_with(counts(), "data", 5, np.nan), ("X has 1 NaN or infinite entries, the first at index (",)),
        (_with(counts(), "data", slice(0, 2), np.inf), ("X has 2 NaN",)),
        (_with(counts(), "indices", 0, 99), ("X is a sparse matrix that cannot be read",)),
        (_with(counts(), "indices", 0, -1), ("X is a sparse matrix that cannot be read",)),
        (_with(counts().tocsc(), "indices", 3, 99), ("X is a sparse matrix that cannot be read",)),
        (_with(counts().tocoo(), "row", 3, -1), ("X is a sparse matrix that cannot be read",)),
        (counts().astype(complex), ("X must be a numeric matrix", "complex")),
        (scipy.sparse.coo_array(np.arange(30.0)), ("X must be a sparse matrix of shape n x d", "(30,)")),
        (scipy.sparse.csr_array((0, 3)), ("X must be a non-empty array",)),
        (_with(counts(), "data", 0, 1e50), ("X: the largest magnitude is 1e+50",)),
        (scipy.sparse.csr_array((30, 8)), ("every row is zero",)),
    ],
    ids=[
        "NaN",
        "infinite",
        "index too large",
        "index negative",
        "CSC",
        "COO",
        "complex",
        "one axis",
        "empty",
        "scale",
        "zero",
    ],
)
def test_what_cannot_be_used_is_refused(X, words):
    with pytest.raises(InputError) as caught:
        problem(X)
    for word in words:
        assert word.lower() in str(caught.value).lower()


def test_the_first_nan_is_named_by_its_index():
    X = counts()
    row, column = (int(index[7]) for index in X.nonzero())
    with refused(f"the first at index ({row}, {column})"):
        problem(_with(X, "data", 7, np.nan))


def test_large_float32_data_keep_their_dtype_where_they_are_multiplied_only(monkeypatch):
    X = counts().toarray().astype(np.float32)
    assert problem(X).X.dtype == np.float64
    monkeypatch.setattr(data, "fits", lambda numbers: numbers < X.size)
    assert problem(X).X.dtype == np.float32
    assert problem(X[1:]).X.dtype == np.float64
    assert problem(torch.as_tensor(X)).X.dtype == np.float32
    assert problem(X, activation="relu").X.dtype == np.float64
    X[2, 1] = np.nan
    with refused("X has 1 NaN or infinite entries, the first at index (2, 1)"):
        problem(X)


# -- what takes dense data only ---------------------------------------------------------------------------


def test_what_needs_entries_of_the_data_says_so():
    X = counts(20, 8)
    with refused("cones of ReLU blocks need dense data", "X.toarray()", "gated_relu"):
        problem(X, activation="relu")
    for architecture in (cnn.CNN(patch=2), cnn.Attention()):
        with refused(f"the {architecture.name} architecture takes dense data: X.toarray()"):
            problem(X, architecture=architecture)
    with refused("patterns='all'", "patterns=20"):
        problem(X, patterns="all")
    made = problem(X)
    with refused("Phi", "not formed", error=UnsupportedError):
        _ = made.Phi
    with refused("torch module", "(W1, W2)"):
        cnn.certify(made, torch.nn.Linear(8, 1))


@pytest.mark.slow
def test_sparse_data_stay_on_the_cpu(cuda, monkeypatch):
    monkeypatch.setattr(data, "fits", lambda numbers: False)
    with refused("sparse X is multiplied on the CPU only", "device='cpu'"):
        cnn.solve(problem(counts()), "fista", device="cuda")
    made = problem(counts().toarray().astype(np.float32))
    assert cnn.solve(made, "fista", device="cuda", gap=1e-3, iterations=500).status == "gap_reached"


@pytest.mark.parametrize("solver", ["cvxpy_clarabel", "cvxpy_scs", "rival_adelie", "rival_scnn", "column_generation"])
def test_solvers_that_need_entries_are_skipped_with_the_reason(solver):
    cls = cnn.SOLVERS.get(solver)
    loss = "logistic" if solver == "rival_adelie" else "squared"
    reason = cls().skip(problem(counts(), loss))
    assert reason is not None
    assert "sparse" in reason or solver == "column_generation"


# -- copies, files, predictions ---------------------------------------------------------------------------


def test_copies_and_files_hold_the_data_as_they_are(kind, tmp_path):
    made = problem(kind(counts()), "logistic")
    result = cnn.solve(made, "bm_newton", gap=1e-4, iterations=50)
    expected = cnn.certify(made, result.point)
    path = made.save(tmp_path / "problem.npz")
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), cnn.load_problem(path)):
        assert type(other.X) is type(made.X)
        assert other.X.dtype == made.X.dtype
        assert (other.X != made.X).sum() == 0
        found = cnn.certify(other, result.point)
        assert (found.primal, found.dual) == (expected.primal, expected.dual)
        assert repr(other) == repr(made)
        assert Untouched(other).fingerprint() == Untouched(made).fingerprint()


def test_a_change_of_the_data_is_noticed(kind):
    made = problem(kind(counts()))
    made.operator()
    watch = Untouched(made)
    watch.check("nobody")
    (made.X.data if made.is_sparse else made.X[0])[:1] += 1
    with pytest.raises(ChangedProblemError, match=r"problem\.X"):
        watch.check("somebody")


def test_an_exchanged_matrix_of_the_operator_is_noticed(kind):
    made = problem(kind(counts()))
    operator, watch = made.operator(), Untouched(made)
    operator.X = problem(2 * kind(counts())).operator().X
    assert watch.changed() == ["X of problem.operator('cpu')"]


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gated_relu", "linear"])
def test_predictions_on_new_data(kind, activation):
    made = problem(kind(counts()), "cross_entropy", 3, activation)
    result = cnn.solve(made, "bm_newton", gap=1e-3, iterations=50)
    new = counts(seed=5)
    single = kind(new) if not made.is_sparse else new
    expected = result.predict(single.toarray() if made.is_sparse else single.astype(np.float64))
    np.testing.assert_allclose(result.predict(single), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(result.predict(scipy.sparse.coo_array(single)), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(result.predict(made.X), made.predict(result.blocks), rtol=1e-12, atol=1e-12)
    with refused("X_new must hold"):
        result.predict(scipy.sparse.csr_array((4, 3)))
    with refused("X_new has 1 NaN"):
        result.predict(_with(new, "data", 0, np.nan))


@pytest.mark.slow
def test_held_out_samples_and_weights(kind, tmp_path):
    weights = np.random.default_rng(3).random(30)
    made = problem(kind(counts()), "logistic", sample_weight=weights)
    held_out = targets("logistic", 30, 1, np.random.default_rng(4))
    new = made.with_held_out(kind(counts(seed=5)), held_out)
    twin = dense_twin(made).with_held_out(counts(seed=5).toarray().astype(new.held_out.X.dtype), held_out)
    found, expected = (cnn.solve(each, "bm_newton", gap=1e-6, iterations=50).held_out_score for each in (new, twin))
    assert found.accuracy == expected.accuracy
    assert found.loss == pytest.approx(expected.loss, rel=1e-3)
    loaded = cnn.load_problem(new.save(tmp_path / "problem.npz"))
    assert (loaded.held_out.X != new.held_out.X).sum() == 0
    assert Untouched(loaded).fingerprint() == Untouched(new).fingerprint()
    with refused("held-out samples: X has 1 NaN"):
        made.with_held_out(_with(counts(), "data", 0, np.nan), held_out)


@pytest.mark.slow
def test_a_dense_relu_problem_predicts_on_sparse_data():
    X = counts()
    result = cnn.solve(problem(X.toarray(), activation="relu"), "fista", gap=1e-2, iterations=200)
    np.testing.assert_allclose(result.predict(X), result.predict(X.toarray()), rtol=1e-12, atol=1e-12)


# -- memory -----------------------------------------------------------------------------------------------


def _solve_large(link, threads):
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    n = d = 20_000
    X = scipy.sparse.csr_array(
        (rng.standard_normal(20 * n), rng.integers(0, d, 20 * n), 20 * np.arange(n + 1)), shape=(n, d)
    )
    before = resident_mb(os.getpid())[1]
    made = cnn.Problem(X, rng.choice([-1.0, 1.0], n), loss="logistic", patterns=10, beta_fraction=0.3)
    gaps = []
    for solver in ("bm_newton", "fista"):
        result = cnn.solve(made, solver, gap=1e-2, iterations=8)
        gaps.append(float(cnn.certify(made, result).gap))
    result.predict(X)
    link.send(("peak", (resident_mb(os.getpid())[0] - before, gaps)))


@pytest.mark.process
def test_a_large_problem_is_never_dense():
    """As a dense array X would take 3.2 GB."""
    outcome = run_process(_solve_large, (), 1, 240.0)
    assert outcome.messages, outcome.output
    megabytes, gaps = outcome.messages[0][1]
    assert megabytes < 400
    assert gaps[0] <= 1e-2
