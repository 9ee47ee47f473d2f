"""The outputs that pages show: run the Python blocks of a page in order, and compare or replace what they print.

    python docs/outputs.py            # compare README.md, docs/index.md and docs/tutorial.md with their code
    python docs/outputs.py --write    # replace the outputs by what is printed, and docs/images by saved figures

A block of text that follows a block of Python is its output. Words must be equal, and numbers nearly so, because the
last digits depend on the machine: to a hundredth of their size, or both below 1e-6.
"""

import contextlib
import io
import math
import os
import re
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs/index.md", ROOT / "docs/tutorial.md")
BLOCK = re.compile(r"```python\n(?P<code>.*?)```(?:\n\n```text\n(?P<output>.*?)```)?", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
TOLERANCE, TINY = 1e-2, 1e-6
COLUMNS = 88  # of a line; longer ones are folded


def run(text: str) -> list[tuple[str | None, str]]:
    """Return (output that the page shows or None, what is printed) for every Python block, run in order."""
    names: dict[str, Any] = {}
    pairs = []
    for block in BLOCK.finditer(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], "page", "exec"), names)
        pairs.append((block["output"], printed.getvalue()))
    return pairs


def differences(text: str) -> list[str]:
    """Return what differs between the outputs that a page shows and those of its code."""
    found = []
    for shown, printed in run(text):
        if shown is not None and not same(shown, printed):
            found.append(f"the page shows\n{shown}but its code prints\n{printed}")
    return found


def same(shown: str, printed: str) -> bool:
    """Return whether two outputs have the same words, and nearly the same numbers."""
    words = [re.sub(r"\s+", " ", NUMBER.sub("#", text)).strip() for text in (shown, printed)]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (shown, printed)]
    return words[0] == words[1] and len(numbers[0]) == len(numbers[1]) and all(map(_near, *numbers))


def _near(one: float, other: float) -> bool:
    return max(abs(one), abs(other)) <= TINY or math.isclose(one, other, rel_tol=TOLERANCE)


def replaced(text: str) -> str:
    """Return the page with the outputs of its code."""
    outputs = iter(run(text))

    def block(match: re.Match[str]) -> str:
        shown, printed = next(outputs)
        lines = [part for line in printed.splitlines() for part in textwrap.wrap(line, COLUMNS) or [line]]
        wide = any(len(line) > COLUMNS for line in printed.splitlines())
        text = "".join(f"{line}\n" for line in lines) if wide else printed
        return match[0] if shown is None else f"```python\n{match['code']}```\n\n```text\n{text}```"

    return BLOCK.sub(block, text)


def main() -> None:
    failed = False
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)  # a page may save files
            if "--write" in sys.argv[1:]:
                page.write_text(replaced(text), encoding="utf-8")
                for picture in Path(folder).glob("*.png"):
                    shutil.copy(picture, ROOT / "docs/images")
            else:
                for line in differences(text):
                    failed = True
                    print(f"{page.relative_to(ROOT)}: {line}")
            os.chdir(ROOT)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
