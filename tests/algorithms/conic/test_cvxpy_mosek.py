"""cvxpy_mosek as far as it goes without a licence: the skip line, and the task that would be sent."""

import cvxpy as cp
import cvxpy.settings
import numpy as np
import pytest
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.algorithms.conic import mosek as conic_mosek

mosek = pytest.importorskip("mosek", reason="package mosek is not installed (extra 'mosek')")
from mosek_task import rebuilt  # noqa: E402

HAS_LICENCE = cnn.SOLVERS.get("cvxpy_mosek").unavailable() is None


def small_problems():
    return {
        "scalar": random_problem(0, n=12, d=4, c=1, patterns=6),
        "vector": random_problem(0, n=12, d=3, c=2, patterns=5),
        "all patterns": random_problem(0, n=8, d=2, c=2, patterns="all"),
        "logistic": random_problem(1, loss="logistic", n=12, d=3, c=1, patterns=4),
        "cross-entropy": random_problem(1, loss="cross_entropy", n=9, d=3, c=3, patterns=3),
        "relu": random_problem(1, activation="relu", n=12, d=2, patterns="all"),
        "relu, sampled": random_problem(1, activation="relu", loss="squared_hinge", n=12, d=3, patterns=5),
    }


def compiled(problem, **parameters):
    made = cnn.SOLVERS.make("cvxpy_mosek", **parameters)
    made.set_problem(problem)
    return made


def without_licence(monkeypatch):
    """MOSEK as it answers on a machine without a licence, wherever this runs."""

    def refuse(*_, **__):
        raise mosek.Error(mosek.rescode.err_missing_license_file, "License cannot be located.\nLooked everywhere.")

    monkeypatch.setattr(mosek.Env, "checkoutlicense", refuse)
    monkeypatch.delenv(conic_mosek.SERVER, raising=False)


def test_skip_line_without_a_licence(monkeypatch):
    without_licence(monkeypatch)
    monkeypatch.setenv(conic_mosek.LICENCE, "/nowhere/mosek.lic")
    line = cnn.SOLVERS.get("cvxpy_mosek").unavailable()
    assert "\n" not in line
    for word in (
        "no MOSEK licence",
        "MOSEKLM_LICENSE_FILE",
        "/nowhere/mosek.lic",
        "mosek/mosek.lic",
        conic_mosek.SERVER,
    ):
        assert word in line
    monkeypatch.delenv(conic_mosek.LICENCE)
    assert "(not set)" in cnn.SOLVERS.get("cvxpy_mosek").unavailable()


def test_skip_line_without_the_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mosek" else True)
    assert "pip install mosek" in cnn.SOLVERS.get("cvxpy_mosek").unavailable()
    assert "pip install mosek" in conic_mosek.mosek_missing()


def test_a_remote_server_needs_no_licence_here(monkeypatch):
    without_licence(monkeypatch)
    monkeypatch.setenv(conic_mosek.SERVER, "http://solve.example:30080")
    assert cnn.SOLVERS.get("cvxpy_mosek").unavailable() is None
    parameters = conic_mosek.mosek_parameters(1e-9, 5.0)
    assert parameters[conic_mosek.SERVER] == "http://solve.example:30080"
    assert parameters["MSK_DPAR_OPTIMIZER_MAX_TIME"] == 5.0


def test_every_parameter_is_one_mosek_knows(monkeypatch):
    monkeypatch.setenv(conic_mosek.SERVER, "http://solve.example:30080")
    with mosek.Task() as task:
        for name, value in conic_mosek.mosek_parameters(1e-9, 60.0).items():
            task.putparam(name, str(value))  # raises for a name it does not know
        assert task.getdouparam(mosek.dparam.intpnt_co_tol_rel_gap) == 1e-9
        assert task.getdouparam(mosek.dparam.optimizer_max_time) == 60.0


@pytest.mark.slow
@pytest.mark.skipif(HAS_LICENCE, reason="there is a licence here: the run would succeed")
def test_run_without_a_licence_raises_with_mosek_s_words():
    made = compiled(random_problem(0))
    with pytest.raises(cnn.ConvexNNError, match=r"cvxpy_mosek: the solver failed: .*icense"):
        made.run(lambda: False)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LICENCE, reason="no MOSEK licence on this machine; the task itself is tested below")
@pytest.mark.parametrize("problem", small_problems().values(), ids=small_problems())
def test_with_a_licence_it_solves(problem):
    made = compiled(problem)
    made.run(lambda: False)
    assert cnn.certify(problem, made.get_result()).gap <= 1e-6


def write_task(problem, path):
    """The file that CVXPY writes just before it asks MOSEK to optimise."""
    made = compiled(problem, save_file=str(path))
    if HAS_LICENCE:
        made.run(lambda: False)
    else:
        with pytest.raises(cnn.ConvexNNError):
            made.run(lambda: False)
    return made


def test_the_task_can_be_written_as_text(tmp_path):
    path = tmp_path / "program.ptf"
    write_task(random_problem(0), path)
    assert path.read_text().startswith("Task")


@pytest.mark.slow
@pytest.mark.parametrize("name", small_problems())
def test_the_task_read_back_states_the_same_program(name, tmp_path):
    problem = small_problems()[name]
    path = tmp_path / "program.task"
    made = write_task(problem, path)
    program = rebuilt(path)
    program.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)

    ours = cnn.SOLVERS.make("cvxpy_clarabel")
    ours.set_problem(problem)
    ours.run(lambda: False)
    # the optimum is p* or -p* in the program's units (as the primal or the dual program was stated), p* > 0, less the
    # constant that CVXPY keeps to itself
    offset = made._compiled[2][-1][cp.settings.OBJ_OFFSET]
    certificate = cnn.certify(problem, ours.get_result())
    assert certificate.gap <= 1e-6
    assert abs(objective_unit(problem) * (program.value + offset)) == pytest.approx(certificate.primal, rel=1e-6)


def objective_unit(problem):
    """Undo the scaling of the objective: (mean square residual at zero) for quadratic losses, else F(0)."""
    import torch

    Y = problem.operator().Y
    at_zero = float(problem.loss.value(torch.zeros_like(Y), Y))
    quadratic = problem.loss.name in ("squared", "squared_hinge", "huber")
    return 2 * at_zero / Y.numel() if quadratic else at_zero


@pytest.mark.parametrize("name", ["vector", "all patterns", "cross-entropy"])
def test_matrix_entries_are_cvxpy_s_own(name):
    program = compiled(small_problems()[name])
    theirs, _, _ = program.conic.program.get_problem_data("MOSEK", solver_opts={}, canon_backend="SCIPY")
    ours = program._compiled[0]

    def normal(entries):
        out = {}
        for *where, (rows, columns, values) in entries:
            kept = sorted((int(r), int(c), float(v)) for r, c, v in zip(rows, columns, values, strict=True) if v != 0)
            out[tuple(int(index) for index in where)] = kept
        return out

    assert normal(ours["A_bar_data"]) == normal(theirs["A_bar_data"])
    assert normal(ours["c_bar_data"]) == normal(theirs["c_bar_data"])
    np.testing.assert_array_equal(ours["c"], theirs["c"])
    assert abs(ours["A"] - theirs["A"]).max() == 0
