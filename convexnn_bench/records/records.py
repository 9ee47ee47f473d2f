"""Records: what every cell leaves behind, one JSON object a line while a campaign runs, Parquet at its end.

`records.fields` says what each field holds.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from convexnn_bench.records.fields import KINDS, SCHEMA

STATUSES = (
    "gap_reached",
    "solved",
    "stalled",
    "time_limit",
    "memory_limit",
    "crashed",
    "diverged",
    "skipped",
    "failed",
)
BAD_STATUSES = ("crashed", "failed")  # these make the command exit with 1
Record = dict[str, Any]


def make_key(description: Mapping[str, Any]) -> str:
    """sha256 of a description of a cell; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(plain(description), sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """`value` as JSON holds it: numbers that are not finite become None, numpy scalars Python numbers.

    Text that has no UTF-8 form (lone surrogates) keeps its escapes.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int | bool):
        return value
    return plain(str(value))


def storable(value: Any) -> bool:
    """Whether `plain` keeps a value as it is: two that differ are told apart in a record, and in its key."""
    if isinstance(value, list | tuple):
        return all(map(storable, value))
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def one_line(text: str) -> str:
    """The first 400 characters as one line that a terminal shows as it is: no control characters."""
    words = " ".join(plain(text[:4000]).split())[:400]
    return words if words.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)


def to_json(record: Mapping[str, Any]) -> str:
    """One line of valid JSON."""
    return json.dumps(plain(record), allow_nan=False, ensure_ascii=False)


class RecordFile:
    """Append-only JSON lines; a record that `append` has returned from survives a loss of power."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """The whole record, flushed to the disk, or nothing of it.

        Raises OSError when the disk is full or the folder read-only.
        """
        line = to_json(record).encode() + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(descriptor).st_size
        try:
            if not _ends_line(descriptor):
                line = b"\n" + line  # what a write cut short left behind stays a line of its own
            while line:  # a disk that is nearly full takes a part, and tells why with the rest
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        except BaseException as error:
            os.ftruncate(descriptor, size)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            raise
        finally:
            os.close(descriptor)

    def read(self) -> tuple[dict[str, Record], list[str]]:
        """({key: record}, complaints), in the order of the file; of two records of one key the last counts.

        A line cut short by a kill is left out and named among the complaints.
        """
        records: dict[str, Record] = {}
        complaints: list[str] = []
        if not self.path.exists():
            return records, complaints
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                if record.get("schema", 1) > SCHEMA:
                    schema = f"schema {record['schema']}, this version reads up to {SCHEMA}"
                    complaints.append(f"{self.path}, line {number}: of a later version ({schema}), left out")
                    continue
                records[record["key"]] = record
            except (ValueError, KeyError, TypeError, AttributeError):
                complaints.append(f"{self.path}, line {number}: not a whole record ({len(line)} bytes), left out")
        return records, complaints


def _ends_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


JOBS = "jobs"  # subfolder of a campaign's folder: what jobs on other machines leave there


def keep_late(record: Mapping[str, Any], out: Path) -> None:
    """Write a record to a file of its own in `out`, in one step, for a campaign that may be gone by now."""
    target = _late(out, record["key"])
    target.parent.mkdir(exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_text(to_json(record), encoding="utf-8")
    os.replace(partial, target)


def drop_late(key: str, out: Path) -> None:
    """Remove what `keep_late` wrote of a cell, and the subfolder with the last of it."""
    _late(out, key).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there is none, or something is left in it
        (out / JOBS).rmdir()


def late_records(out: Path) -> list[Record]:
    """The records that jobs have left since their campaign was stopped."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / JOBS).glob("*.record"))]


def _late(out: Path, key: str) -> Path:
    return out / JOBS / f"{key}.record"


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to, of the same suffix, which takes the place of `path` when the block ends without an error."""
    target = Path(path)
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, target)
    except OSError as error:
        full = error.strerror or str(error)
        raise OSError(error.errno, full, str(target)) from error
    finally:
        partial.unlink(missing_ok=True)


def flat(record: Mapping[str, Any]) -> Record:
    """One row of a table: parameters as JSON text; problem, limits and machine as columns with a prefix."""
    row: Record = {}
    for name, value in record.items():
        kind = KINDS.get(name)
        if kind == "parameters":
            row[name] = json.dumps(plain(value), sort_keys=True)
        elif kind == "group":
            row.update({f"{name}_{inner}": content for inner, content in (value or {}).items()})
        elif kind == "curve":
            row[name] = [[math.nan if x is None else float(x) for x in point] for point in value or []]
        elif kind == "number":
            row[name] = math.nan if value is None else float(value)
        else:
            row[name] = value
    return row


def to_parquet(records: list[Record], path: str | Path) -> Path:
    """All records as one Parquet file, put in place in one step. Raises OSError when it cannot be written."""
    import pandas as pd

    with whole_file(path) as partial:
        pd.DataFrame([flat(record) for record in records]).to_parquet(partial, index=False)
    return Path(path)
