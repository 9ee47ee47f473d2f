"""The documentation builds without a warning, its Python runs as printed, and what it names exists."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import convexnn_bench as cnn
from convexnn_bench.cli import app

pytestmark = pytest.mark.docs

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts and path.stem != "plugins")
WITH_PYTHON = [page for page in PAGES if "```python\n" in page.read_text()]


def test_the_site_is_built_without_a_warning(tmp_path):
    for name in ("docs", "notebooks", "convexnn_bench", "solvers"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("_build", "__pycache__", ".*"))
    for name in ("CONTRIBUTING.md", "pyproject.toml", "verify_proof.py"):
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "site"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for page in ("index", "reference", "notebooks/03_certificates", "howto/extend"):
        assert (tmp_path / "site" / f"{page}.html").stat().st_size > 10_000
    assert "cvxpy_clarabel" in (tmp_path / "site" / "plugins.html").read_text()


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_python_blocks_of_a_page_run_in_order(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a page may save files
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, page.name, "exec"), names)
    assert capsys.readouterr().out


def test_the_reference_lists_all_that_is_exported():
    text = (ROOT / "docs/reference.md").read_text()
    listed = set(re.findall(r"convexnn_bench\.(\w+)$", text, re.MULTILINE)) | set(re.findall(r"cnn\.(\w+)", text))
    assert set(cnn.__all__) - listed == {"__version__"}


def test_there_are_pages_with_python():
    assert len(WITH_PYTHON) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_commands_and_options_that_a_page_names_exist(page):
    for line in re.findall(r"^convexnn-bench .*$", page.read_text(), re.MULTILINE):
        words = line.partition("  #")[0].split()
        helped = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "200"})
        assert helped.exit_code == 0, line
        for option in re.findall(r"(?<!\S)--[a-z-]+", line.partition("  #")[0]):
            assert option in helped.output, (line, option)
    for script in re.findall(r"python (benchmarks/\w+\.py|notebooks/\w+\.py)", page.read_text()):
        assert (ROOT / script).is_file(), script
