"""What a solver file declares, and packages that refuse to load."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from problems import random_problem

import convexnn_bench as cnn
from convexnn_bench.plugins import registry

HEADER = "from convexnn_bench.solver import BaseSolver\n\n\nclass Solver(BaseSolver):\n    name = 'mine'\n"
NAMES = ("set_problem", "run", "get_result")
METHODS = "".join(f"    def {name}(self, *args):\n        return None\n" for name in NAMES)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (METHODS, "formulation must be one of convex, burer_monteiro, network"),
        ("    formulation = 'konvex'\n" + METHODS, "'konvex'"),
        ("    formulation = 'convex'\n    parameters = {'a': 1}\n" + METHODS, r"parameters\['a'\]"),
        ("    formulation = 'convex'\n", "must define set_problem, run, get_result"),
    ],
)
def test_a_wrong_declaration_is_named_with_its_file(tmp_path, body, words):
    (tmp_path / "mine.py").write_text(HEADER + body)
    fresh = registry.Registry("solver", "convexnn_bench.solver:BaseSolver", tmp_path)
    with pytest.raises(cnn.RegistryError, match=words) as caught:
        fresh.names()
    assert "mine.py" in str(caught.value)


def test_parameters_beside_an_instance_are_refused():
    with pytest.raises(cnn.InputError, match="instance already"):
        cnn.solve(random_problem(0), cnn.SOLVERS.make("bm_lbfgs[m=2]"), m=3)


@pytest.mark.parametrize("value", [np.float32(0.1), np.float64(0.1), np.array(0.1), torch.tensor(0.1)])
def test_beta_may_be_any_scalar(value):
    problem = cnn.Problem(np.eye(3), np.ones(3), activation="linear", beta=value)
    assert problem.beta == pytest.approx(0.1, rel=1e-6)
    assert type(problem.beta) is float


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("cvxpy_clarabel[tolerance=abc]", "tolerance must be a number above 0"),
        ("cvxpy_clarabel[max_iter=0]", "max_iter must be a whole number, at least 1"),
        ("cvxpy_scs[linear_solver=foo]", "linear_solver must be one of 'qdldl'"),
        ("cvxpy_scs[alpha=2.5]", "alpha must be a number above 0 and below 2"),
    ],
)
def test_parameters_of_the_exact_solvers_are_checked_at_once(spec, words):
    with pytest.raises(cnn.InputError, match=words):
        cnn.SOLVERS.make(spec)


@pytest.mark.process
def test_everything_else_works_where_the_conic_solvers_cannot_be_imported():
    """In a fresh interpreter whose import system refuses cvxpy, clarabel, scs and mosek."""
    script = """
    import sys

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("cvxpy", "clarabel", "scs", "mosek"):
                raise ModuleNotFoundError(f"No module named {name!r}")

    sys.meta_path.insert(0, Refuse())
    import convexnn_bench as cnn

    problem = cnn.make_problem("spiral", n=21, patterns=5)
    table = cnn.compare(problem, ["cvxpy_clarabel", "cvxpy_mosek", "fista", "bm_lbfgs"], gap=1e-3, time_limit=600)
    print(dict(zip(table.to_frame()["solver"], table.to_frame()["status"])))
    print(cnn.solve(problem, "cvxpy_scs").reason)
    from convexnn_bench.cli import main
    sys.argv = ["convexnn-bench", "list"]
    main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'cvxpy_clarabel': 'skipped'" in done.stdout
    assert "'fista': 'gap_reached'" in done.stdout
    assert "package cvxpy, scs is not installed: pip install cvxpy scs" in done.stdout
