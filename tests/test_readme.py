"""The README's Python runs as printed, and what it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


@pytest.mark.docs
def test_python_blocks_run_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 2
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "proven lower bound" in printed
    assert "@@" not in TEXT
    assert names["table"].to_frame().shape[0] == 3
    assert names["result"].certificate.gap <= 1e-4


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_links_inside_the_repository_exist(target):
    assert (ROOT / target).is_file(), target


def test_the_commands_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert f"\n{command}:" in makefile
