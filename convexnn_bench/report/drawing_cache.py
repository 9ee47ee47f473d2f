"""Cache of a report, so that figures are drawn again only if records, code or files have changed.

The file figures/drawn.json in a campaign's folder has a checksum of the records, and the name and checksum of every
file that was drawn from them.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from convexnn_bench.records import Record, installed, plain
from convexnn_bench.storage import whole_file

NAME = "drawn.json"
PACKAGES = ("matplotlib", "vl-convert-python", "jinja2")  # packages whose versions affect the figures and the page
FOLDER = Path(__file__).parent  # folder with the code that draws
Described = tuple[str, str | None, list[Path]]  # title of a figure, why there is none, its files


def checksum(records: Sequence[Record], complaints: Sequence[str]) -> str:
    """Return a checksum of the records, the complaints and the code, on which figures and page depend."""
    code = [_file_checksum(path) for path in sorted(FOLDER.rglob("*")) if path.suffix in (".py", ".jinja")]
    what = [code, [installed(package) for package in PACKAGES], plain(list(records)), list(complaints)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def write_cache(folder: Path, key: str, figures: Sequence[Described], page: Path) -> None:
    """Write the figures and the page that were drawn, with their checksums.

    key: the checksum of the records.
    """
    paths = [page, *(path for _, _, drawn in figures for path in drawn)]
    content = {
        "records": key,
        "figures": [[title, missing, [_name(folder, path) for path in drawn]] for title, missing, drawn in figures],
        "files": {_name(folder, path): _file_checksum(path) for path in paths},
    }
    with whole_file(folder / "figures" / NAME) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_cache(folder: Path, key: str) -> list[Described] | None:
    """Return the figures that were drawn for the records of `key`, or None.

    Return None if a file is missing or has changed.
    """
    try:
        content = json.loads((folder / "figures" / NAME).read_text(encoding="utf-8"))
        whole = content["records"] == key and all(
            _file_checksum(folder / name) == known for name, known in content["files"].items()
        )
        figures = [(title, missing, [folder / name for name in names]) for title, missing, names in content["figures"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # the file is missing or damaged: everything is drawn again
    return figures if whole else None


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _file_checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
