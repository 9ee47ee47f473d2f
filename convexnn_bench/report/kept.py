"""What a report has drawn, so that nothing is drawn again unless records, code or files have changed.

The file figures/drawn.json of a campaign's folder names the records by a checksum, and every file that was drawn from
them with its own checksum.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from convexnn_bench.records import Record, installed, plain
from convexnn_bench.storage import whole_file

NAME = "drawn.json"
PACKAGES = ("matplotlib", "vl-convert-python", "jinja2")  # whose versions decide how things are drawn
FOLDER = Path(__file__).parent  # of the code that draws
Described = tuple[str, str | None, list[Path]]  # title of a figure, why there is none, its files


def checksum(records: Sequence[Record], complaints: Sequence[str]) -> str:
    """Return a checksum of everything that figures and page depend on: records, complaints and code."""
    code = [_file_checksum(path) for path in sorted(FOLDER.rglob("*")) if path.suffix in (".py", ".jinja")]
    what = [code, [installed(package) for package in PACKAGES], plain(list(records)), list(complaints)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def keep(folder: Path, key: str, figures: Sequence[Described], page: Path) -> None:
    """Remember what was drawn for the records of `key`."""
    paths = [page, *(path for _, _, drawn in figures for path in drawn)]
    content = {
        "records": key,
        "figures": [[title, missing, [_name(folder, path) for path in drawn]] for title, missing, drawn in figures],
        "files": {_name(folder, path): _file_checksum(path) for path in paths},
    }
    with whole_file(folder / "figures" / NAME) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def kept(folder: Path, key: str) -> list[Described] | None:
    """Return the figures that were drawn for the records of `key`; None if a file of them is missing or different."""
    try:
        content = json.loads((folder / "figures" / NAME).read_text(encoding="utf-8"))
        whole = content["records"] == key and all(
            _file_checksum(folder / name) == known for name, known in content["files"].items()
        )
        figures = [(title, missing, [folder / name for name in names]) for title, missing, names in content["figures"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # there is no such file, or it was damaged: everything is drawn again
    return figures if whole else None


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _file_checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
