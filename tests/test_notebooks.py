"""Every notebook runs from its source, was made from it as it is now, and tells its story in the agreed way."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
from build import execute, from_source, sources, stale  # noqa: E402

pytestmark = pytest.mark.docs

SOURCES = sources()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_made_from_its_source_as_it_is_now(source):
    assert list(stale(source)) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_source(source):
    """Raises where a cell fails; what it prints to stderr (warnings) would be seen in the rendered page."""
    notebook = execute(from_source(source))
    said = [o.text for c in notebook.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]
    assert said == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_question_and_ends_with_exercises_and_solutions(source):
    cells = nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells
    assert "**The question.**" in cells[0].source
    assert "## Exercises" in cells[-1].source
    assert "<details><summary>Solutions</summary>" in cells[-1].source
    sizes = [len(str(o)) for c in cells for o in c.get("outputs", [])]
    assert max(sizes) < 400_000  # figures of 200 dpi
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert "convexnn_bench." not in code.replace("import convexnn_bench as cnn", "")  # the public interface alone
    # Figures have the style of the house, and colours by its names.
    assert ("plt.rcParams.update(cnn.style())" in code) == ("import matplotlib.pyplot" in code)
    assert not {"tab:", "#0072B2", "#D55E00", "#009E73"} & set(re.findall(r"tab:|#[0-9A-F]{6}", code))


def test_a_source_that_has_changed_is_told(tmp_path):
    for suffix in (".py", ".ipynb"):
        (tmp_path / f"01_x{suffix}").write_text(SOURCES[0].with_suffix(suffix).read_text())
    assert list(stale(tmp_path / "01_x.py")) == []
    (tmp_path / "01_x.py").write_text(SOURCES[0].read_text() + "\n# %%\nprint(1)\n")
    (told,) = stale(tmp_path / "01_x.py")
    assert "was not made from 01_x.py as it is now" in told
