"""Merge the records of several folders into one folder."""

from collections.abc import Sequence
from pathlib import Path

from convexnn_bench.errors import InputError
from convexnn_bench.records.folder import RecordsLock
from convexnn_bench.records.records import Record, RecordFile, to_json, to_parquet
from convexnn_bench.statuses import BAD_STATUSES
from convexnn_bench.storage import whole_file


def merge(folders: Sequence[str | Path], out: str | Path) -> tuple[list[Record], list[str]]:
    """Write one record for each cell of all folders to `out`; return the records and lines for a person to read.

    Of several records of one cell, a definite status wins over "crashed" and "failed", and then the latest start wins.
    Records in `out` are merged too. Raises InputError for a folder without records, OSError when `out` cannot be
    written.
    """
    out = Path(out)
    merged: dict[str, Record] = {}
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
            records, broken_lines = file.read()
            complaints += broken_lines
            number += len(records)
            for key, record in records.items():
                if key not in merged or _standing(record) > _standing(merged[key]):
                    merged[key] = record
        if number > len(merged):
            complaints.append(
                f"{number - len(merged)} of {number} records were left out, because their cells have another record "
                "that did not crash or fail, or that started later"
            )
        kept = sorted(merged.values(), key=lambda record: record["started"])
        out.mkdir(parents=True, exist_ok=True)
        # The file is replaced in one step. A merge that is interrupted leaves the records that `out` had.
        with whole_file(out / "records.jsonl") as partial, partial.open("w", encoding="utf-8") as stream:
            stream.writelines(to_json(record) + "\n" for record in kept)
        to_parquet(kept, out / "records.parquet")
    return kept, complaints


def _standing(record: Record) -> tuple[bool, str]:
    # The first member outweighs the second. Times are ISO 8601 in UTC, whose order as text is their order in time.
    return record["status"] not in BAD_STATUSES, record["started"]
