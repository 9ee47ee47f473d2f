"""Merge the records of several folders into one folder."""

from collections.abc import Sequence
from pathlib import Path

from convexnn_bench.errors import InputError
from convexnn_bench.records.folder import RecordsLock
from convexnn_bench.records.records import Line, Record, RecordFile, to_parquet
from convexnn_bench.statuses import BAD_STATUSES
from convexnn_bench.storage import whole_file


def merge(folders: Sequence[str | Path], out: str | Path) -> tuple[list[Record], list[str]]:
    """Write one record for each cell of all folders to `out`.

    Return the records and lines for a person to read.

    Of several records of one cell, a definite status wins over "crashed" and "failed", and then the latest start wins.
    Records in `out` are merged too, and lines that this version cannot read are kept as they are. Raises InputError for
    a folder without records, OSError when `out` cannot be written.
    """
    out = Path(out)
    merged: dict[str, Line] = {}
    unreadable: dict[bytes, None] = {}  # lines that this version cannot read, each once
    complaints: list[str] = []
    number = 0
    with RecordsLock(out / "records.jsonl"):
        # Each folder is read once, even if `out` is named among the folders.
        for folder in dict.fromkeys([*map(Path, folders), out]):
            file = RecordFile(folder / "records.jsonl")
            if not file.path.is_file():
                if folder == out:
                    continue
                raise InputError(f"{file.path} does not exist: give folders that a campaign wrote its records to")
            latest: dict[str, Line] = {}  # of two records with one key in a file, the last counts
            for line in file.lines():
                if line.complaint:
                    complaints.append(f"{line.complaint}, kept as it is")
                if line.record is None:
                    unreadable[line.text] = None
                else:
                    latest[line.record["key"]] = line
            number += len(latest)
            for key, line in latest.items():
                if key not in merged or _standing(line) > _standing(merged[key]):
                    merged[key] = line
        if number > len(merged):
            complaints.append(
                f"{number - len(merged)} of {number} records were left out, because their cells have another record "
                "that did not crash or fail, or that started later"
            )
        kept = sorted(merged.values(), key=lambda line: _record(line)["started"])
        out.mkdir(parents=True, exist_ok=True)
        # The file is replaced in one step, so that an interrupted merge keeps the records of `out`. Lines are written
        # as they were read, so that fields of later versions are preserved.
        with whole_file(out / "records.jsonl") as partial, partial.open("wb") as stream:
            stream.writelines(text + b"\n" for text in [*(line.text for line in kept), *unreadable])
        records = [_record(line) for line in kept]
        to_parquet(records, out / "records.parquet")
    return records, complaints


def _record(line: Line) -> Record:
    assert line.record is not None  # unreadable lines are not merged
    return line.record


def _standing(line: Line) -> tuple[bool, str]:
    # The first member outweighs the second. Times are ISO 8601 in UTC, whose order as text is their order in time.
    return _record(line)["status"] not in BAD_STATUSES, _record(line)["started"]
