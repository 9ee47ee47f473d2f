"""Rivals in processes of their own: the protocol against scripts that behave and misbehave, then the real ones.

The real ones need their environments (make rivals) and skip without them.
"""

import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.algorithms import rival as rivals
from convexnn_bench.algorithms.rival import RivalSolver, environments
from convexnn_bench.errors import ConvexNNError
from convexnn_bench.harness.cell import Cell, Limits
from convexnn_bench.harness.cell_run import run_cell

pytestmark = pytest.mark.process

NAMES = ("rival_adelie", "rival_scnn", "rival_celer", "rival_skglm")
MISSING = {name: cnn.SOLVERS.get(name).unavailable() for name in NAMES}
REAL = [pytest.param(n, marks=pytest.mark.skipif(MISSING[n] is not None, reason=str(MISSING[n]))) for n in NAMES]
adelie_only = pytest.mark.skipif(MISSING["rival_adelie"] is not None, reason=str(MISSING["rival_adelie"]))
scnn_only = pytest.mark.skipif(MISSING["rival_scnn"] is not None, reason=str(MISSING["rival_scnn"]))
TIGHT = {"rival_adelie": 1e-18, "rival_scnn": 1e-16, "rival_celer": 1e-12, "rival_skglm": 1e-10}

# proximal gradient steps until one is shorter than the tolerance
SCRIPT = """
    import os, signal, sys, time
    sys.path.insert(0, {folder!r})
    import numpy as np
    from serve import serve

    def load():
        {load}
        def set_up(data, parameters):
            {set_up}
            X, Y, D, beta = data["Phi"], data["Y"][:, 0], data["masks"], float(data["beta"])
            A = np.concatenate([D[:, [k]] * X for k in range(D.shape[1])], axis=1)
            step, Z, calls = 1 / np.linalg.norm(A, 2) ** 2, np.zeros((D.shape[1], X.shape[1], 1)), 0
            def solve(tolerance):
                nonlocal Z, calls
                calls += 1
                {solve}
                while True:
                    moved = Z - step * (A.T @ (A @ Z.ravel() - Y)).reshape(Z.shape)
                    norms = np.linalg.norm(moved, axis=1, keepdims=True)
                    new = moved * np.maximum(1 - step * beta / np.maximum(norms, 1e-300), 0)
                    if np.abs(new - Z).max() <= tolerance:
                        return new, f"threads {{parameters['threads']}} {{os.environ['OMP_NUM_THREADS']}}"
                    Z = new
            return solve
        return set_up, "1.2.3"

    serve(load)
"""


class Fake(RivalSolver):
    """A rival whose script is given."""

    name, rival, package, losses, relu = "rival_fake", "fake", "fake", ("squared",), "no cones here"
    path_of_script: Path

    @classmethod
    def unavailable(cls) -> str | None:
        return None

    @classmethod
    def python(cls) -> Path:
        return Path(sys.executable)

    @classmethod
    def script(cls) -> Path:
        return cls.path_of_script


@pytest.fixture
def fake(tmp_path):
    """fake(load=..., set_up=..., solve=..., tolerance=...): a solver whose script runs these statements as well."""

    def make(load="", set_up="", solve="", **parameters):
        text = textwrap.dedent(SCRIPT).format(
            folder=str(rivals.PACKAGE / "rivals"), load=load or "pass", set_up=set_up or "pass", solve=solve or "pass"
        )
        Fake.path_of_script = tmp_path / "run_fake.py"
        Fake.path_of_script.write_text(text)
        return Fake(**parameters)

    return make


@pytest.fixture(scope="module")
def problem():
    return random_problem(3, c=1, n=20, d=3, patterns=5)


def gone(pid: int, seconds: float = 60.0) -> bool:
    """Whether a process ends within some seconds; one that waits to be reaped has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


# -- the protocol --------------------------------------------------------------------------------------------


def test_blocks_come_back_and_are_certified(fake, problem):
    result = cnn.solve(problem, fake(tolerance=1e-12), gap=1e-6)
    assert result.status == "gap_reached"
    assert len(result.curve) == 1
    exact = cnn.solve(problem, "cvxpy_clarabel", gap=1e-9)
    assert result.objective == pytest.approx(exact.objective, rel=1e-6)
    assert result.blocks.shape == (problem.P, problem.p, 1)


def test_its_message_has_version_clock_and_threads_and_the_clocks_agree(fake, problem):
    import torch

    solver = fake(solve="time.sleep(0.3)")
    result = cnn.solve(problem, solver, gap=None)
    assert re.search(r"fake 1\.2\.3: set-up \S+ s and solve \S+ s by its own clock", solver.message)
    assert f"threads {torch.get_num_threads()} {torch.get_num_threads()}" in solver.message
    own = float(re.search(r"solve (\S+) s", solver.message)[1])
    assert 0.3 <= own <= result.solve_seconds


def test_imports_are_no_part_of_any_clock_and_set_up_is_apart(fake, problem):
    """Loading takes five seconds, far more than everything else."""
    result = cnn.solve(problem, fake(load="time.sleep(5.0)", set_up="time.sleep(0.4)"), gap=None)
    assert 0.4 <= result.setup_seconds < 5
    assert result.solve_seconds < 5


def test_a_path_is_scored_point_by_point(fake, problem):
    result = cnn.solve(problem, fake(tolerance=1e-9, path=True, solve="time.sleep(0.02)"), gap=1e-30)
    gaps = [gap for _, _, gap in result.curve]
    assert 5 <= len(gaps) <= 9  # 1e-2, 1e-3, ..., 1e-9, where a score was due, and the last point once more
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-4 * gaps[0]
    assert result.status == "stalled"
    # it stops where the gap is reached
    early = cnn.solve(problem, fake(tolerance=1e-9, path=True, solve="time.sleep(0.02)"), gap=2 * gaps[3])
    assert early.status == "gap_reached"
    assert len(early.curve) <= 5


@pytest.mark.parametrize("noise", ["print('x' * 300_000)", "os.write(1, b'{}' * 50_000)", "sys.stderr.write('?' * 9)"])
def test_what_it_prints_does_no_harm(fake, problem, noise):
    result = cnn.solve(problem, fake(load=noise, set_up=noise, solve=noise, tolerance=1e-12), gap=1e-6)
    assert result.status == "gap_reached"


@pytest.mark.parametrize(("where", "doing"), [("load", "importing"), ("set_up", "setting up"), ("solve", "solving")])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raise ValueError('no  luck\\ntoday')", "fake failed while {}: ValueError: no luck today"),
        ("print('bye', flush=True); os._exit(3)", "fake ended with exit code 3 while {}; it printed: bye"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "fake ended with exit code -11 while {}; it printed nothing"),
    ],
)
def test_a_rival_that_fails_says_where_and_why(fake, problem, where, doing, what, said):
    with pytest.raises(ConvexNNError, match=re.escape(said.format(doing))):
        cnn.solve(problem, fake(**{where: what}))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("np.zeros((2, 2))", "shape [2, 2] in 32 bytes; expected P x p x q = 5 x 3 x 1"),
        ("Z[:, :, 0]", "shape [5, 3] in 120 bytes"),
        ("Z[:4]", "shape [4, 3, 1] in 96 bytes"),
    ],
)
def test_a_wrong_shape_is_refused(fake, problem, answer, said):
    with pytest.raises(ConvexNNError, match=re.escape(said)):
        cnn.solve(problem, fake(solve=f"return {answer}, ''"))


def test_an_answer_that_is_no_message_is_refused(fake, problem):
    solver = fake()
    Fake.path_of_script.write_text(
        "import sys\nfrom multiprocessing.connection import Connection\n"
        "Connection(int(sys.argv[-1])).send_bytes(b'\\x00 hello')\nsys.stdin.read()\n"
    )
    with pytest.raises(ConvexNNError, match=r"fake failed while importing: it answered b'.*hello'"):
        cnn.solve(problem, solver)


def test_nan_is_called_diverged(fake, problem):
    assert cnn.solve(problem, fake(solve="return np.nan * Z, ''")).status == "diverged"


def test_a_rival_that_hangs_is_killed_at_the_time_limit(fake, problem, tmp_path):
    note = tmp_path / "pid"
    hang = f"open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    solver = fake(solve=hang)
    result = cnn.solve(problem, solver, time_limit=2.0)
    assert result.status == "time_limit"
    assert 0 < result.solve_seconds < 300  # less than the limit where set-up has taken a part of the wait
    assert (result.blocks == 0).all()  # where it started
    assert "no answer within" in solver.message
    assert gone(int(note.read_text()))


def test_the_last_point_of_a_path_counts_when_time_is_up(fake, problem):
    solver = fake(tolerance=1e-9, path=True, solve="time.sleep(600 if calls == 3 else 0.05)")
    result = cnn.solve(problem, solver, time_limit=5.0)
    assert result.status == "time_limit"
    assert np.abs(result.blocks).max() > 0
    assert result.gap < result.curve[0][2]
    assert "no answer" in solver.message


def test_its_process_ends_with_the_solver(fake, problem):
    solver = fake()
    cnn.solve(problem, solver)
    pid = solver._process._process.pid
    assert not gone(pid, 0.2)
    del solver
    assert gone(pid)


def test_a_solver_object_goes_on_with_its_process(fake, problem):
    """The second problem has other sizes, and a zero start of its own; one that was interrupted starts anew."""
    solver, other = fake(tolerance=1e-12), random_problem(4, c=1, n=30, d=4, patterns=6)
    first = cnn.solve(problem, solver, gap=None)
    process = solver._process
    second = cnn.solve(other, solver, gap=None)
    assert solver._process is process
    for one, result in ((problem, first), (other, second)):
        alone = cnn.solve(one, fake(tolerance=1e-12), gap=None)
        np.testing.assert_array_equal(result.blocks, alone.blocks)
    process._send(tolerance=1e-3)  # an answer that nobody has read
    third = cnn.solve(problem, solver, gap=None)
    assert solver._process is not process
    np.testing.assert_array_equal(third.blocks, first.blocks)


def test_its_process_ends_with_ours_however_that_ends(fake, problem, tmp_path):
    """The script notes its process; ours is killed while that hangs."""
    note = tmp_path / "pid"
    fake(solve=f"open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    tests = Path(__file__).parents[1]
    folders = [tests, tests / "solvers", tests / "support", rivals.PACKAGE.parent]
    code = f"""
        import sys
        sys.path[:0] = {list(map(str, folders))!r}
        from pathlib import Path
        import convexnn_bench as cnn
        from problems import random_problem
        from test_rivals import Fake
        Fake.path_of_script = Path({str(Fake.path_of_script)!r})
        cnn.solve(random_problem(3, c=1, n=20, d=3, patterns=5), Fake(), time_limit=None)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        until = time.monotonic() + 600
        while not (note.exists() and note.read_text()):
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert gone(int(note.read_text()))


def test_the_harness_kills_it_at_the_deadline_of_its_cell(fake, tmp_path):
    note = tmp_path / "pid"
    fake(solve=f"open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    folder = tmp_path / "solvers"
    folder.mkdir()
    (folder / "rival_fake.py").write_text(
        textwrap.dedent(f"""
            import sys
            from pathlib import Path
            from convexnn_bench.algorithms.rival import RivalSolver

            class Solver(RivalSolver):
                name, rival, package, losses, relu = "rival_fake", "fake", "fake", ("squared",), ""

                @classmethod
                def unavailable(cls):
                    return None

                @classmethod
                def python(cls):
                    return Path(sys.executable)

                @classmethod
                def script(cls):
                    return Path({str(Fake.path_of_script)!r})
        """)
    )
    cnn.SOLVERS.add_folder(folder)
    try:
        limits = Limits(time_limit=300.0, deadline=12.0)
        sizes = {"n": 20, "d": 3}
        cell = Cell("teacher", sizes, {"patterns": 5}, "rival_fake", {"tolerance": 1e-6, "path": False}, limits=limits)
        record = run_cell(Cell(**{**vars(cell), "solvers_dir": str(folder)}))
    finally:
        cnn.SOLVERS.classes.pop("rival_fake")
        cnn.SOLVERS._folders.remove(folder.resolve())
    assert record["status"] == "time_limit", record["reason"]
    assert "killed at its deadline" in record["reason"]
    assert gone(int(note.read_text()))


# -- environments and problems that are not for them ---------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_environment_is_a_skip_that_says_how_to_get_it(name, problem, monkeypatch, tmp_path):
    monkeypatch.setenv("CONVEXNN_RIVALS", str(tmp_path))
    result = cnn.solve(problem, name)
    assert result.status == "skipped"
    assert "make rivals" in result.reason
    assert str(tmp_path / name.removeprefix("rival_")) in result.reason
    assert "\n" not in result.reason
    # an interpreter without the package is no environment either
    python = cnn.SOLVERS.get(name).python()
    python.parent.mkdir(parents=True)
    python.touch()
    assert "make rivals" in cnn.SOLVERS.get(name).unavailable()
    (python.parents[1] / "lib" / "python3.11" / "site-packages" / cnn.SOLVERS.get(name).package).mkdir(parents=True)
    assert cnn.SOLVERS.get(name).unavailable() is None


def test_where_environments_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("CONVEXNN_RIVALS", raising=False)
    assert environments() == rivals.PACKAGE.parent / ".rivals"
    monkeypatch.setenv("CONVEXNN_RIVALS", str(tmp_path))
    assert environments() == tmp_path
    monkeypatch.setenv("CONVEXNN_RIVALS", "")
    monkeypatch.setattr(rivals, "PACKAGE", tmp_path / "site-packages" / "convexnn_bench")
    assert environments().is_relative_to(Path.home())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"c": 2}, "nuclear norm"),
        ({"activation": "relu"}, "use gated_relu"),
        ({"loss": "huber", "c": 1}, "and this is huber"),
    ],
)
def test_problems_they_do_not_solve_are_skipped_with_the_reason(name, options, words):
    assert words in cnn.SOLVERS.make(name).skip(random_problem(0, **options))


def test_architectures_they_do_not_know_are_skipped():
    problem = cnn.Problem(np.ones((3, 2, 2)), np.ones(6), architecture="attention", beta=1.0, patterns=2)
    for name in NAMES:
        assert "this is attention" in cnn.SOLVERS.make(name).skip(problem)


# -- the real ones -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    """real(problem, name, gap=..., **parameters): the result of one solver object, whose process starts once."""
    solvers = {}

    def solve(problem, name, gap=None, **parameters):
        chosen = cnn.SOLVERS.make(name, **parameters)
        solver = solvers.setdefault(name, chosen)
        vars(solver).update({key: getattr(chosen, key) for key in (*solver.parameters, "one_shot")})
        return cnn.solve(problem, solver, gap=gap)

    return solve


@pytest.mark.parametrize("name", REAL)
def test_gaps_shrink_with_the_tolerance_and_the_optimum_is_the_exact_solvers(name, real):
    problem = random_problem(1, n=60, d=6, c=1, patterns=15, beta_fraction=0.05)
    exact = cnn.solve(problem, "cvxpy_clarabel", gap=1e-9)
    loose, tight = TIGHT[name] ** 0.25, TIGHT[name]
    results = [real(problem, name, tolerance=t) for t in (loose, (loose * tight) ** 0.5, tight)]
    gaps = [result.gap for result in results]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < min(1e-6, 0.1 * gaps[0])
    assert results[-1].objective == pytest.approx(exact.objective, rel=1e-6)
    np.testing.assert_allclose(results[-1].blocks, exact.blocks, atol=1e-3 * np.abs(exact.blocks).max())


@pytest.mark.parametrize("name", REAL)
def test_masks_are_the_problems_own_repeated_and_empty_ones_too(name, real):
    """Masks that no gate makes, in no order; the objective at the blocks that come back is by our own function."""
    rng = np.random.default_rng(4)
    X, Y = rng.standard_normal((25, 4)), rng.standard_normal(25)
    masks = rng.random((25, 7)) < 0.5
    masks[:, 2], masks[:, 3], masks[:, 5] = masks[:, 0], False, True
    problem = cnn.Problem(X, Y, beta_fraction=0.05, patterns=masks)
    result = real(problem, name, tolerance=TIGHT[name])
    assert result.gap < 1e-6
    assert (result.blocks[3] == 0).all()
    exact = cnn.solve(problem, "cvxpy_clarabel", gap=1e-9)
    assert result.objective == pytest.approx(exact.objective, rel=1e-6)
    np.testing.assert_allclose(result.blocks[[1, 4, 6]], exact.blocks[[1, 4, 6]], atol=1e-4)


@pytest.mark.parametrize("name", REAL)
def test_a_linear_network(name, real):
    problem = random_problem(1, activation="linear", n=60, d=6, c=1, beta_fraction=0.05)
    result = real(problem, name, tolerance=TIGHT[name])
    assert result.gap < 1e-6
    assert result.objective == pytest.approx(cnn.solve(problem, "cvxpy_clarabel", gap=1e-9).objective, rel=1e-6)


@pytest.mark.parametrize("name", REAL)
def test_the_zero_network_above_beta_max(name, real):
    problem = random_problem(2, c=1, beta_fraction=1.5)
    result = real(problem, name, gap=1e-9)
    assert result.status == "gap_reached"
    assert (result.blocks == 0).all()


@pytest.mark.parametrize("name", REAL)
def test_a_path_ends_where_one_solve_does(name, real):
    problem = random_problem(5, n=60, d=6, c=1, patterns=15, beta_fraction=0.05)
    direct, path = (real(problem, name, tolerance=TIGHT[name], path=p, gap=1e-12) for p in (False, True))
    assert path.objective == pytest.approx(direct.objective, rel=1e-7)
    assert len(path.curve) > 3
    assert path.curve[-1][2] < 1e-2 * path.curve[0][2]


@adelie_only
def test_adelie_may_come_down_from_a_higher_weight_decay():
    problem = random_problem(5, n=60, d=6, c=1, patterns=15, beta_fraction=0.05)
    exact = cnn.solve(problem, "cvxpy_clarabel", gap=1e-9)
    for path in (False, True):
        result = cnn.solve(problem, "rival_adelie", tolerance=1e-16, lambdas=10, path=path, gap=None)
        assert result.objective == pytest.approx(exact.objective, rel=1e-6)
    above = random_problem(2, c=1, beta_fraction=1.5)
    assert (cnn.solve(above, "rival_adelie", lambdas=10, gap=None).blocks == 0).all()


@adelie_only
def test_logistic_loss_in_adelie():
    problem = random_problem(6, "logistic", n=50, d=4, c=1, patterns=12, beta_fraction=0.05)
    result = cnn.solve(problem, "rival_adelie", tolerance=1e-16, gap=1e-6)
    assert result.status == "gap_reached"
    assert result.objective == pytest.approx(cnn.solve(problem, "cvxpy_clarabel", gap=1e-9).objective, rel=1e-6)


@adelie_only
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_adelie_fits_a_free_output_bias(loss):
    base = random_problem(6, loss, n=50, d=4, c=1, patterns=12)
    free, penalised = (
        cnn.Problem(base.X, base.Y, loss=loss, beta=0.3 * base.beta, patterns=base.masks, output_bias=bias)
        for bias in ("free", "penalised")
    )
    for lambdas in (1, 10):
        result = cnn.solve(free, "rival_adelie", tolerance=1e-16, lambdas=lambdas, gap=1e-6)
        assert result.objective == pytest.approx(cnn.solve(free, "cvxpy_clarabel", gap=1e-9).objective, rel=1e-6)
    assert "with a penalised output bias" in cnn.solve(penalised, "rival_adelie").reason


@scnn_only
def test_scnn_says_when_its_iterations_run_out(problem):
    solver = cnn.SOLVERS.make("rival_scnn", tolerance=1e-20, max_iters=5)
    cnn.solve(problem, solver, gap=None)
    assert "5 iterations, short of its tolerance" in solver.message


@adelie_only
def test_a_broken_environment_is_an_error_with_its_own_words(problem, monkeypatch):
    """scnn's script in adelie's environment: its imports fail."""
    cls = cnn.SOLVERS.get("rival_adelie")
    monkeypatch.setattr(cls, "script", classmethod(lambda cls: rivals.PACKAGE / "rivals" / "run_scnn.py"))
    with pytest.raises(ConvexNNError, match="adelie failed while importing: ModuleNotFoundError: No module named"):
        cnn.solve(problem, cls())


def test_the_scripts_import_nothing_of_ours():
    for script in (rivals.PACKAGE / "rivals").glob("*.py"):
        assert not re.search(r"^\s*(from|import) convexnn_bench", script.read_text(), re.MULTILINE), script
