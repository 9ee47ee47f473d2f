"""The files around the package agree: version, workflows, make targets, issue forms, what is public."""

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

import convexnn_bench as cnn

ROOT = Path(__file__).resolve().parents[1]
URL = "https://github.com/convexnn-bench/convexnn-bench"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def parsed(path):
    return yaml.safe_load((ROOT / path).read_text())


def steps(workflow):
    """Every step of every job of a workflow."""
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


def test_version_has_one_source_and_citation_and_changelog_agree_with_it():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "convexnn_bench/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", cnn.__version__)
    newest, date = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).groups()
    citation = parsed("CITATION.cff")
    assert newest == citation["version"] == cnn.__version__
    assert citation.get("date-released", "unreleased") == date


def test_every_entry_of_the_changelog_is_one_line():
    for line in (ROOT / "CHANGELOG.md").read_text().partition("\n## ")[2].splitlines()[1:]:
        assert re.match(r"$|## \d|### \w+$|- .*[.]$", line), line
        assert len(line) <= 120, line


def test_the_project_has_one_address():
    urls = PROJECT["project"]["urls"]
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} <= set(urls)
    assert all(url == URL or url.startswith(f"{URL}/") for url in urls.values())
    assert parsed("CITATION.cff")["repository-code"] == URL
    for name in ("SECURITY.md", ".github/ISSUE_TEMPLATE/config.yml"):
        assert f"{URL}/security/advisories/new" in (ROOT / name).read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_least_permissions_and_calls_what_exists(path):
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"].startswith(f"{path.stem}-")
    makefile = (ROOT / "Makefile").read_text()
    for name, job in workflow["jobs"].items():
        assert set(job.get("permissions", {})) <= {"contents", "id-token"}, name
        assert ("id-token" in job.get("permissions", {})) == (name == "publish"), name
        assert "uses" in job or job["timeout-minutes"] <= 90, name
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file(), name
        assert set(job.get("needs", [])) <= set(workflow["jobs"]) or job["needs"] in workflow["jobs"], name
    for step in steps(workflow):
        for target in re.findall(r"\bmake (\w+)", step.get("run", "")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+|pypa/gh-action-pypi-publish@release/v1", step["uses"])


def test_the_workflows_run_every_check_on_the_oldest_and_a_newer_python():
    ci, release = parsed(".github/workflows/ci.yml"), parsed(".github/workflows/release.yml")
    commands = [step.get("run") for step in steps(ci)]
    assert {"make check", "make quick", "make test", "make docs"} <= set(commands)
    assert ci["jobs"]["quick"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert release[True]["push"]["tags"] == ["v*"]  # YAML 1.1 reads the key `on` as true
    assert release["jobs"]["publish"]["environment"] == "pypi"
    assert {"tests", "build", "quickstart"} == set(release["jobs"]["publish"]["needs"])


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_what_github_asks_for(path):
    form = parsed(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_there_is_a_form_for_every_kind_of_report():
    assert [path.stem for path in FORMS] == ["bug_report", "feature_request", "wrong_certificate"]
    for name in ("bug_report", "wrong_certificate"):
        assert "convexnn-bench doctor" in (ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text()
    assert parsed(".github/ISSUE_TEMPLATE/config.yml")["blank_issues_enabled"] is False


def test_the_script_in_the_form_for_wrong_certificates_runs(tmp_path, monkeypatch, capsys):
    form = parsed(".github/ISSUE_TEMPLATE/wrong_certificate.yml")
    given = next(field["attributes"]["value"] for field in form["body"] if "value" in field.get("attributes", {}) and
                 field["type"] == "textarea")  # fmt: skip
    script = re.search(r"```python\n(.*?)```", given, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    problem = cnn.Problem(np.eye(4), np.arange(4.0), beta=0.1, patterns=3, seed=0)
    result = cnn.solve(problem, "fista", gap=1e-3, time_limit=60)
    exec(compile(script, "form", "exec"), {"problem": problem, "result": result})
    assert "Certificate" in capsys.readouterr().out
    with np.load("wrong_certificate.npz", allow_pickle=False) as kept:
        again = cnn.Problem(kept["X"], kept["Y"], beta=float(kept["beta"]), patterns=kept["masks"])
        assert again.objective(kept["blocks"]) == pytest.approx(result.objective, rel=1e-12)


def test_types_are_shipped():
    assert (ROOT / "convexnn_bench/py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]


def listed_modules():
    """{module: names} of the table of docs/public.md."""
    rows = re.findall(
        r"^\| `(convexnn_bench\.[\w.]+)` \| (.*) \|$", (ROOT / "docs/public.md").read_text(), re.MULTILINE
    )
    return {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}


def test_what_contributing_imports_is_public():
    listed, used = listed_modules(), 0
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("convexnn_bench."):
                for name in node.names:
                    inner = f"{node.module}.{name.name}"
                    assert inner in listed or name.name in listed[node.module], inner
                    used += 1
    assert used > 10


@pytest.mark.parametrize("module", sorted(listed_modules()))
def test_a_public_module_has_the_names_that_are_listed(module):
    for name in listed_modules()[module] - {"convexnn_bench"}:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_the_former_address_of_the_registries_warns_and_names_the_new_one():
    sys.modules.pop("convexnn_bench.registry", None)
    with pytest.warns(DeprecationWarning, match="convexnn_bench.plugins"):
        former = importlib.import_module("convexnn_bench.registry")
    assert former.SOLVERS is cnn.SOLVERS


def test_files_that_a_reader_is_sent_to_are_in_the_sdist():
    kept = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"SECURITY.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "docs", "tests"} <= set(kept)
    assert all((ROOT / name).exists() for name in kept)
