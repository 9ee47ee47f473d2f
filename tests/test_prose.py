"""Code that pages and notebooks show fits into a column, and the files, modules and targets that they name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 88  # the site and GitHub show about so many characters of a code block without a scroll bar
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts and path.stem != "plugins"),
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))


def code_of_page(text: str) -> list[str]:
    """Return the lines inside the fenced blocks of a Markdown page."""
    return [
        line
        for block in re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.split("\n")
    ]


def code_of_notebook(text: str) -> list[str]:
    """Return the lines of the code cells of a notebook in percent format."""
    cells = re.split(r"^(?=# %%)", text, flags=re.MULTILINE)
    return [line for cell in cells if not cell.startswith("# %% [markdown]") for line in cell.split("\n")]


def too_long(lines: list[str]) -> list[str]:
    return [line for line in lines if len(line) > COLUMNS]


def missing_names(text: str) -> list[str]:
    """Return what a page names and the checkout lacks; links, which are relative to the page, are tested elsewhere."""
    # a file above its own code is an example of a file to be added
    examples = set(re.findall(r"^`([\w/]+\.py)`:$", text, re.MULTILINE))
    files = re.findall(r"(?<![\w/.(])(?:tests|benchmarks|notebooks|docs|convexnn_bench|solvers)/[\w/.-]*\w\.\w+", text)
    missing = [file for file in files if file not in examples and "NN" not in file and not (ROOT / file).exists()]
    for module in re.findall(r"`(convexnn_bench(?:\.[a-z]\w*)+)`", text):
        path = ROOT / module.replace(".", "/")
        if not path.is_dir() and not path.with_suffix(".py").is_file():
            missing.append(module)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE):
        if not re.search(rf"^{target}:", makefile, re.MULTILINE):
            missing.append(f"make {target}")
    return missing


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_of_a_page_fits_into_a_column(page):
    assert too_long(code_of_page(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("source", NOTEBOOKS, ids=name_of)
def test_code_of_a_notebook_fits_into_a_column(source):
    assert too_long(code_of_notebook(source.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_names_exists(page):
    assert missing_names(page.read_text(encoding="utf-8")) == []


def test_long_lines_and_missing_names_are_found():
    """The rules above are broken by one added line each, and prose may be as long as it likes."""
    line = "x" * (COLUMNS + 1)
    assert too_long(code_of_page(f"{line}\n\n```python\n{line}\n```\n")) == [line]
    assert too_long(code_of_notebook(f"# %% [markdown]\n# {line}\n\n# %%\n{line}\n")) == [line]
    page = "`convexnn_bench.solver`, `convexnn_bench.nowhere`, `tests/test_prose.py`, docs/nowhere.md, `make nothing`"
    assert missing_names(page) == ["docs/nowhere.md", "convexnn_bench.nowhere", "make nothing"]
