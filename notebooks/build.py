"""Notebooks from their sources: NAME.py in percent format is what is reviewed, NAME.ipynb is executed from it.

    python notebooks/build.py            # all of them
    python notebooks/build.py 03 08      # those whose names begin so

Two runs on one machine give the same bytes: cells have fixed ids, and nothing that depends on the clock is kept.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
SECONDS = 600  # for one cell


def sources(prefixes: tuple[str, ...] = ()) -> list[Path]:
    """The percent files, in order."""
    return sorted(
        path
        for path in HERE.glob("[0-9][0-9]_*.py")
        if not prefixes or path.name.startswith(prefixes)
    )


def folded(cell: Any) -> dict[str, Any]:
    """The metadata of a cell: the tag hide-input folds the code of a figure on the site and in JupyterLab."""
    if "hide-input" not in cell["metadata"].get("tags", []):
        return {}
    return {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}


def from_source(path: Path) -> Any:
    """The notebook that a source describes, without outputs."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.stem[:2]}-{number:03d}"
        cell["metadata"] = folded(cell)
    return notebook


def execute(notebook: Any) -> Any:
    """The notebook with its outputs. Raises nbclient's CellExecutionError where a cell fails."""
    os.environ.update(OMP_NUM_THREADS="1", CONVEXNN_PROGRESS="off", PYTHONHASHSEED="0")
    resources = {"metadata": {"path": str(HERE)}}
    NotebookClient(
        notebook, timeout=SECONDS, resources=resources, record_timing=False
    ).execute()
    for cell in notebook.cells:
        if "outputs" in cell:
            cell["outputs"] = _joined(cell["outputs"])
        for output in cell.get("outputs", []):
            for kind, text in output.get("data", {}).items():
                if isinstance(text, str):
                    output["data"][kind] = _without_addresses(text)
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """What a cell printed as one output: the kernel sends it in pieces that depend on the clock."""
    kept: list[Any] = []
    for output in outputs:
        if (
            output["output_type"] == "stream"
            and kept
            and kept[-1].get("name") == output["name"]
        ):
            kept[-1]["text"] += output["text"]
        else:
            kept.append(output)
    return kept


def _without_addresses(text: str) -> str:
    return re.sub(r"0x[0-9a-f]{6,}", "0x...", text)


def stale(path: Path) -> Iterator[str]:
    """What is not as the source says in the committed notebook, in words."""
    target = path.with_suffix(".ipynb")
    if not target.is_file():
        yield f"{target.name} is missing"
        return
    fresh, kept = from_source(path).cells, nbformat.read(target, as_version=4).cells
    if [(cell.cell_type, cell.source, cell.metadata) for cell in fresh] != [
        (cell.cell_type, cell.source, cell.metadata) for cell in kept
    ]:
        yield f"{target.name} was not made from {path.name} as it is now: run python notebooks/build.py {path.stem[:2]}"
    elif any(
        cell.cell_type == "code" and cell.execution_count is None for cell in kept
    ):
        yield f"{target.name} has cells that were not executed"


def main() -> None:
    """Build what the command line names."""
    for path in sources(tuple(sys.argv[1:])):
        nbformat.write(execute(from_source(path)), path.with_suffix(".ipynb"))
        print(path.with_suffix(".ipynb"), flush=True)


if __name__ == "__main__":
    main()
