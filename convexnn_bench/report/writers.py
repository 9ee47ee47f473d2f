"""Tables as text for other programs: CSV, Markdown and LaTeX."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[Sequence[str]]

# Characters that LaTeX reads as commands, and signs in the tables that its text fonts lack.
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
}  # fmt: skip
POWER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)e([-+]?\d+)(?!\w)")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of equal keys as CSV, titles first; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(rows: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Write rows of equal keys as a CSV file; None becomes an empty field."""
    target = Path(path)
    target.write_text(csv_text(rows), encoding="utf-8")
    return target


def markdown_table(head: Sequence[str], rows: Rows) -> str:
    """Return a table as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def latex_table(head: Sequence[str], groups: Mapping[str, Rows], words: int = 1) -> str:
    r"""Return a tabular for LaTeX with the rules of booktabs.

    A document needs \usepackage{booktabs} for it.

    groups: {title: rows}. If there are several groups, each title gets its own line. words: the number of left-aligned
    columns, which have words; columns with numbers are right-aligned.
    """
    columns = "l" * words + "r" * (len(head) - words)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_row(head)]
    for title, rows in groups.items():
        lines.append(r"\midrule")
        if len(groups) > 1:
            lines.append(rf"\multicolumn{{{len(head)}}}{{l}}{{{latex(title)}}} \\")
        lines += map(_latex_row, rows)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(latex, cells)) + r" \\"


def latex(text: str) -> str:
    r"""Return text as LaTeX shows it; numbers such as 3.1e-07 become powers of ten."""
    parts, end = [], 0
    for number in POWER.finditer(text):
        parts.append(_escaped(text[end : number.start()]))
        parts.append(rf"${number[1]} \times 10^{{{int(number[2])}}}$")
        end = number.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
