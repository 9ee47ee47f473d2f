"""One new file adds a loss, an activation, an architecture, a data set or a solver: the examples of CONTRIBUTING.md."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from properties import given
from properties import strategies as st

import convexnn_bench as cnn
from convexnn_bench.plugins.registry import ACTIVATIONS, ARCHITECTURES, DATASETS, LOSSES, SOLVERS
from convexnn_bench.plugins.specs import expand_grid, format_spec, parse_spec

REGISTRIES = {
    "losses": LOSSES,
    "architectures": ARCHITECTURES,
    "activations": ACTIVATIONS,
    "datasets": DATASETS,
    "solvers": SOLVERS,
}
PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
# `folder/file.py`: on a line of its own, then the block
EXAMPLES = dict(re.findall(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))


@pytest.fixture
def registries(monkeypatch):
    """The global registries, restored after the test."""
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_classes", dict(registry.classes))
        monkeypatch.setattr(registry, "_folders", list(registry._folders))
    return REGISTRIES


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def examples(registries, tmp_path) -> dict[str, str]:
    """Every example of the page in a temporary folder of its kind, registered: {kind: name}."""
    names = {}
    for path, text in EXAMPLES.items():
        kind, file = Path(path).parts[-2:]
        registries[kind].add_folder(write(tmp_path / kind, file, text))
        names[kind] = Path(file).stem
    return names


def test_the_page_has_one_example_of_each_kind():
    assert sorted(Path(path).parts[-2] for path in EXAMPLES) == sorted(REGISTRIES)


def test_every_example_is_registered_under_the_name_of_its_file(examples):
    for kind, name in examples.items():
        assert name in REGISTRIES[kind].names()
        assert inspect.getfile(REGISTRIES[kind].get(name)).endswith(f"{kind}/{name}.py")


@pytest.mark.slow
def test_a_new_data_set_and_a_new_solver(examples):
    problem = cnn.make_problem("rings[n=30]", seed=1, patterns=10, beta_fraction=0.1)
    assert problem.X.shape == (30, 3)
    result = cnn.solve(problem, "ista[damping=0.9]", gap=1e-2, time_limit=600)
    assert result.status == "gap_reached"
    assert result.parameters == {"damping": 0.9}
    other = cnn.solve(problem, "fista", gap=1e-4, time_limit=600)
    assert result.certificate.dual <= other.objective
    assert other.certificate.dual <= result.objective
    with pytest.raises(cnn.InputError, match="damping must be a number above 0 and below 2, got 2"):
        cnn.solve(problem, "ista", damping=2)
    with pytest.raises(cnn.UnknownNameError, match="did you mean 'rings'"):
        cnn.make_problem("ringss")


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["fista", "bm_lbfgs", "network_lbfgs", "ista"])
def test_a_new_loss_activation_and_architecture_together(examples, solver):
    """All three at once, certified; the optimum from the two sides of two solvers."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((10, 3, 2)), 3 * rng.standard_normal((10, 2))
    problem = cnn.Problem(X, Y, architecture="bags", activation="axis_gated", loss="log_cosh", beta_fraction=0.2)
    assert (problem.N, problem.p, problem.q, problem.P, problem.n_out) == (30, 2, 2, 4, 10)
    gap = 1e-3 if solver == "ista" else 1e-4
    result = cnn.solve(problem, solver, gap=gap, time_limit=600)
    assert result.status == "gap_reached", result.reason
    rows = (problem.masks[:, :, None] * X.reshape(30, 1, 2)).reshape(10, 3, 4, 2).mean(axis=1)
    predictions = np.einsum("nkp,kpq->nq", rows, result.blocks)
    np.testing.assert_allclose(problem.predict(result.blocks), predictions, atol=1e-12)
    np.testing.assert_allclose(result.predict(X), predictions, atol=1e-12)
    np.testing.assert_allclose(result.to_torch()(torch.as_tensor(X)).detach(), predictions, atol=1e-12)
    loss = np.log(np.cosh(predictions - Y)).sum()
    norms = np.linalg.svd(result.blocks, compute_uv=False).sum()
    assert problem.objective(result.blocks) == pytest.approx(loss + problem.beta * norms, rel=1e-12)
    assert result.objective >= problem.objective(result.blocks) * (1 - 1e-12)


def test_a_new_loss_through_cvxpy(examples):
    import cvxpy as cp

    loss = cnn.LOSSES.make("log_cosh")
    rng = np.random.default_rng(0)
    z, Y = rng.standard_normal((2, 5, 3)) * 3
    L = np.tanh(z - Y)
    value, constraints = loss.cvxpy_value(cp.Constant(z), Y)
    conjugate, domain = loss.cvxpy_conjugate(cp.Constant(L), Y)
    assert all(constraint.value() for constraint in [*constraints, *domain])
    assert value.value == pytest.approx(float(loss.value(torch.as_tensor(z), torch.as_tensor(Y))), rel=1e-12)
    assert value.value + conjugate.value == pytest.approx((z * L).sum(), rel=1e-10)  # Fenchel-Young, with equality
    assert value.is_convex()
    assert conjugate.is_convex()


def test_a_new_architecture_refuses_targets_that_do_not_fit(examples):
    with pytest.raises(cnn.InputError, match="X has 4 samples but Y has 12 rows"):
        cnn.Problem(np.ones((4, 3, 2)), np.ones(12), architecture="bags", beta=0.1)
    with pytest.raises(cnn.InputError, match=r"shape n x K x d, got shape \(4, 3\)"):
        cnn.Problem(np.ones((4, 3)), np.ones(4), architecture="bags", beta=0.1)


@pytest.mark.slow
def test_instances_classes_and_names_are_the_same_thing(examples):
    X, y = np.random.default_rng(0).standard_normal((2, 8, 2))
    losses = ["huber[delta=0.5]", cnn.Huber(delta=0.5), cnn.Huber(0.5)]
    problems = [cnn.Problem(X, y, loss=loss, beta=0.1) for loss in losses]
    assert [problem.loss.delta for problem in problems] == [0.5] * 3
    assert len({problem.beta_max for problem in problems}) == 1
    assert cnn.Problem(X, y, loss=cnn.Huber, beta=0.1).loss.delta == 1.0
    solver = SOLVERS.make("ista", damping=0.5)
    assert cnn.solve(problems[0], solver, gap=0.1, time_limit=600).parameters == {"damping": 0.5}


# -- files that do not load ----------------------------------------------------------------------------------

LOSS = "from convexnn_bench.losses.base import BaseLoss\n\n\nclass {name}(BaseLoss):\n    name = '{name}'\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class Broken(:", "SyntaxError"),
        ("import a_package_that_is_not_there", "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        ("1 / 0", "ZeroDivisionError"),
        ("x = 3", "exactly one subclass of BaseLoss, found 0"),
        (LOSS.format(name="one") + LOSS.format(name="two"), "exactly one subclass of BaseLoss, found 2"),
        ("from convexnn_bench.losses.squared import Squared", "exactly one subclass of BaseLoss, found 0"),
        (LOSS.format(name="a").replace("name = 'a'", "pass"), "class a needs a string attribute `name`"),
        (LOSS.format(name="a").replace("'a'", "3"), "class a needs a string attribute `name`"),
        (LOSS.format(name="squared"), "the loss name 'squared' is taken by"),
    ],
    ids=["syntax", "import", "error", "none", "two", "borrowed", "no name", "name no word", "taken"],
)
def test_a_file_that_does_not_load_is_named(registries, tmp_path, text, words):
    before = LOSSES.names()
    folder = write(tmp_path / "losses", "bad_loss.py", text)
    write(folder, "another.py", LOSS.format(name="another"))
    with pytest.raises(cnn.RegistryError) as error:
        LOSSES.add_folder(folder)
    assert str(folder / "bad_loss.py") in str(error.value)
    assert words in str(error.value)
    assert LOSSES.names() == before  # nothing of the folder is half registered
    write(folder, "bad_loss.py", LOSS.format(name="mended"))
    LOSSES.add_folder(folder)
    assert {"another", "mended"} <= set(LOSSES.names())


def test_two_folders_of_one_name_are_kept_apart(registries, tmp_path):
    for parent, name in (("a", "one"), ("b", "two")):
        LOSSES.add_folder(write(tmp_path / parent / "losses", "mine.py", LOSS.format(name=name)))
    assert {"one", "two"} <= set(LOSSES.names())
    LOSSES.add_folder(tmp_path / "a" / "losses")  # a folder twice is a folder once
    with pytest.raises(cnn.RegistryError, match="'one' is taken by"):
        LOSSES.add_folder(write(tmp_path / "c" / "losses", "mine.py", LOSS.format(name="one")))


def test_files_with_an_underscore_and_base_are_passed_over(registries, tmp_path):
    folder = write(tmp_path / "losses", "_helper.py", "1 / 0")
    write(folder, "base.py", "1 / 0")
    before = LOSSES.names()
    LOSSES.add_folder(folder)
    assert LOSSES.names() == before


def test_a_folder_that_is_none(registries, tmp_path):
    with pytest.raises(cnn.InputError, match=r"solver folder .* is not a directory"):
        SOLVERS.add_folder(tmp_path / "nowhere")


# -- what is registered --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registered_class_loads_and_says_what_it_is(kind):
    registry = REGISTRIES[kind]
    assert registry.names() == sorted(registry.classes)
    for name in registry.names():
        cls = registry.get(name)
        assert cls.name == name == name.lower()
        assert issubclass(cls, registry.base)
        assert vars(cls).get("__doc__"), f"{kind} {name} has no docstring"
        assert inspect.getmodule(cls).__doc__, f"the file of {kind} {name} has no docstring"
        registry.make(name)


def test_every_solver_declares_itself():
    for name in SOLVERS.names():
        cls = SOLVERS.get(name)
        assert cls.formulation in ("convex", "burer_monteiro", "network")
        assert all(isinstance(values, list) and values for values in cls.parameters.values())
        assert set(cls.allowed) <= set(cls.parameters)
        assert cls.unavailable() is None or isinstance(cls.unavailable(), str)
        for method in ("set_problem", "run", "get_result"):
            assert getattr(cls, method) is not getattr(cnn.BaseSolver, method)


# -- names with parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fista", ("fista", {})),
        (" fista [ ] ", ("fista", {})),
        ("bm_lbfgs[m=[1,2],history=20]", ("bm_lbfgs", {"m": [1, 2], "history": 20})),
        ("huber[delta=0.5]", ("huber", {"delta": 0.5})),
        ("a[x=1e-3,y=None,z=true,w=word]", ("a", {"x": 1e-3, "y": None, "z": True, "w": "word"})),
        ("file[path=data/my-file.csv,target='a, b']", ("file", {"path": "data/my-file.csv", "target": "a, b"})),
        ("a[x=[[1,2],[3]],y=(1,2)]", ("a", {"x": [[1, 2], [3]], "y": (1, 2)})),
        ("a[x='[',y=2]", ("a", {"x": "[", "y": 2})),
    ],
)
def test_parse_spec(text, expected):
    assert parse_spec(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected name or name[key=value"),
        ("3d", "expected name or name[key=value"),
        ("a[x=1", "expected name or name[key=value"),
        ("a[x=1]b", "expected name or name[key=value"),
        ("a[1]", "cannot read '1' in 'a[1]': expected key=value"),
        ("a[x]", "expected key=value"),
        ("a[x=]", "expected key=value"),
        ("a[=1]", "expected key=value"),
        ("a[x y=1]", "expected key=value"),
        ("a[x=1,x=2]", "'x' stands twice"),
        ("a[x=[1,2]", "a bracket or quote in it is not closed"),
        ("a[x='b]", "a bracket or quote in it is not closed"),
        ("data.csv", "a file of data is file[path=data.csv]"),
        ("my data.npz", "a file of data is file[path='my data.npz']"),
        ("../raw/iris.data", "a file of data is file[path=../raw/iris.data]"),
    ],
)
def test_specs_that_cannot_be_read(text, words):
    with pytest.raises(cnn.InputError) as error:
        parse_spec(text)
    assert words in str(error.value)


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text("abcXYZ019_ ,.=/-[]()'", max_size=8).filter(lambda text: "'" not in text),
    st.sampled_from(["None", "true", "1e5", "0x10", "[1,2]", "a b.csv", "/tmp/data.csv", ""]),
)


@given(st.dictionaries(st.sampled_from("abcd"), st.one_of(ATOMS, st.lists(ATOMS, max_size=3)), max_size=4))
def test_format_spec_is_the_inverse_of_parse_spec(parameters):
    text = format_spec("name", parameters)
    assert parse_spec(text) == ("name", parameters)
    assert format_spec(*parse_spec(text)) == text


def test_expand_grid():
    assert expand_grid({}) == [{}]
    assert expand_grid({"a": [1, 2], "b": "x", "c": [None]}) == [
        {"a": 1, "b": "x", "c": None},
        {"a": 2, "b": "x", "c": None},
    ]
    with pytest.raises(cnn.InputError, match=r"a=\[\] sweeps over nothing"):
        expand_grid({"a": []})


@pytest.mark.process
def test_a_registry_may_be_the_first_name_that_is_used():
    """The files of a room import their neighbours, which must not meet a file that is half loaded."""
    code = (
        "import convexnn_bench as cnn; print(*cnn.LOSSES.names(), *cnn.ARCHITECTURES.names(), *cnn.ACTIVATIONS.names())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert {"squared", "mlp", "relu"} <= set(done.stdout.split())
