"""Records of several folders as those of one."""

from collections.abc import Sequence
from pathlib import Path

from convexnn_bench.errors import InputError
from convexnn_bench.records.lock import RecordsLock
from convexnn_bench.records.records import BAD_STATUSES, Record, RecordFile, to_json, to_parquet, whole_file


def merge(folders: Sequence[str | Path], out: str | Path) -> tuple[list[Record], list[str]]:
    """(records of all folders, what to tell), one record a key, written to `out`/records.jsonl and records.parquet.

    Of several records of one cell a definite one goes before one that crashed or failed, and then the one started last.
    Records in `out` take part. Raises InputError for a folder without records, OSError when `out` cannot be written.
    """
    out = Path(out)
    with RecordsLock(out / "records.jsonl"):
        return _merge(folders, out)


def _merge(folders: Sequence[str | Path], out: Path) -> tuple[list[Record], list[str]]:
    merged: dict[str, Record] = {}
    complaints: list[str] = []
    number = 0
    for folder in dict.fromkeys([*map(Path, folders), out]):
        file = RecordFile(folder / "records.jsonl")
        if not file.path.is_file():
            if folder == out:
                continue
            raise InputError(f"{file.path} does not exist: give folders that a campaign wrote its records to")
        records, complained = file.read()
        complaints += complained
        number += len(records)
        for key, record in records.items():
            if key not in merged or _standing(record) > _standing(merged[key]):
                merged[key] = record
    if number > len(merged):
        complaints.append(
            f"of {number} records {number - len(merged)} were of cells that have another one: kept is one that neither "
            "crashed nor failed, then the one started last"
        )
    found = sorted(merged.values(), key=lambda record: record["started"])
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(out / "records.jsonl") as partial, partial.open("w", encoding="utf-8") as stream:
        stream.writelines(to_json(record) + "\n" for record in found)
    to_parquet(found, out / "records.parquet")
    return found, complaints


def _standing(record: Record) -> tuple[bool, str]:
    return record["status"] not in BAD_STATUSES, record["started"]
