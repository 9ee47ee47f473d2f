"""The README's Python runs as printed, and what it names exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


@pytest.fixture
def outputs(monkeypatch):
    """The module docs/outputs.py."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("outputs")


LINES = 120  # of the README, for a reader with two minutes


@pytest.mark.docs
@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/tutorial.md"])
def test_python_blocks_print_what_the_page_shows(page, outputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the tutorial saves files
    text = (ROOT / page).read_text()
    shown = [output for output, _ in outputs.run(text) if output is not None]
    assert len(shown) >= (2 if page == "README.md" else 1)
    assert outputs.differences(text) == []


def test_outputs_with_other_words_or_numbers_are_found(outputs):
    page = "```python\nprint('gap', 1 / 3, 2e-8)\n```\n\n```text\ngap\n0.333 4.4e-08\n```\n"
    assert outputs.differences(page) == []
    assert outputs.replaced(page) == page.replace("gap\n0.333 4.4e-08", f"gap {1 / 3} 2e-08")
    for wrong in ("gap\n0.343 4.4e-08", "bound\n0.333 4.4e-08", "gap\n0.333 4.4e-05", "gap\n0.333"):
        (line,) = outputs.differences(page.replace("gap\n0.333 4.4e-08", wrong))
        assert "its code prints" in line


def test_it_is_read_in_two_minutes():
    assert len(TEXT.splitlines()) <= LINES


def test_every_number_in_its_prose_is_a_size_or_a_command_makes_it():
    """Outputs are compared above. What is left in prose are sizes of the example, versions, years and a target."""
    prose = re.sub(r"```.*?```|`[^`]*`|<.*?>|\]\(.*?\)|!\[.*?\]", " ", TEXT, flags=re.DOTALL)
    numbers = set(re.findall(r"(?<![\w.-])\d[\d.e+-]*\d|(?<![\w.-])\d(?![\w.])", prose))
    assert numbers <= {"24", "3.11", "2024", "2020"}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_links_inside_the_repository_exist(target):
    assert (ROOT / target).is_file(), target


def test_the_commands_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert f"\n{command}:" in makefile
