"""Write and read the records of cells.

They are one JSON object a line while a campaign runs, and a Parquet file at its end.

`records.fields` says what each field holds.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convexnn_bench.records.fields import KINDS
from convexnn_bench.records.reading import UnreadableError, parsed
from convexnn_bench.storage import whole_file

Record = dict[str, Any]


def make_key(description: Mapping[str, Any]) -> str:
    """Return the sha256 of a description of a cell.

    The order of its keys does not matter.
    """
    return hashlib.sha256(json.dumps(plain(description), sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """Return a value as JSON holds it.

    Numbers that are not finite become None, numpy scalars become Python numbers.

    Text without a UTF-8 form (lone surrogates) becomes text with escapes.
    """
    if isinstance(value, str):
        # JSON files are UTF-8. A message may hold bytes of another encoding as lone surrogates, which UTF-8 refuses.
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
    """Return True if the value survives JSON unchanged.

    Records and keys then distinguish it from any other.
    """
    if isinstance(value, list | tuple):
        return all(map(storable, value))
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def one_line(text: str) -> str:
    """Return the first 400 characters as one line, with escapes in place of control characters."""
    # An exception may carry megabytes of text, so that only its beginning is looked at.
    words = " ".join(plain(text[:4000]).split())[:400]
    return words if words.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)


def to_json(record: Mapping[str, Any]) -> str:
    """Return the record as one line of valid JSON."""
    return json.dumps(plain(record), allow_nan=False, ensure_ascii=False)


class RecordFile:
    """A file of JSON lines that only grows.

    A record survives a loss of power once `append` has returned.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write the whole record and flush it to the disk, or write nothing.

        Raises OSError when the disk is full or the folder is read-only.
        """
        # The whole line is made before the file is opened: an error in it leaves no trace.
        line = to_json(record).encode() + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(descriptor).st_size
        try:
            if not _ends_line(descriptor):
                line = b"\n" + line  # the rest of an interrupted write stays a line by itself
            while line:  # a disk that is nearly full takes a part and raises an error for the rest
                line = line[os.write(descriptor, line) :]
            # The caller shows the record only afterwards: whatever a user has seen survives a loss of power.
            os.fsync(descriptor)
        except BaseException as error:
            # A part of a line may be in the file, also after an interrupt. The old length makes the file whole again.
            os.ftruncate(descriptor, size)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            raise
        finally:
            os.close(descriptor)

    def read(self) -> tuple[dict[str, Record], list[str]]:
        """Return {key: record} in the order of the file, and complaints.

        There is a complaint about each line that is invalid or unreadable.

        Of two records with one key the last counts. A process that is killed may leave a line cut short.
        """
        records: dict[str, Record] = {}
        complaints: list[str] = []
        for line in self.lines():
            if line.record is not None:
                records[line.record["key"]] = line.record
            if line.complaint:
                complaints.append(line.complaint if line.record is not None else f"{line.complaint}, left out")
        return records, complaints

    def lines(self) -> Iterator["Line"]:
        """Yield the lines of the file that are not blank. A missing file has no lines."""
        if not self.path.exists():
            return
        # Lines are split as bytes, because a line that was cut short may end within a character.
        for number, text in enumerate(self.path.read_bytes().split(b"\n"), start=1):
            if not text.strip():
                continue
            where = f"{self.path}, line {number}"
            try:
                record, faults = parsed(text)
            except UnreadableError as error:
                yield Line(text, None, f"{where}: {error}")
            else:
                yield Line(text, record, f"{where}: {'; '.join(faults)}" if faults else "")


@dataclass(frozen=True)
class Line:
    """A line of the file: its bytes, its record or None, and a complaint.

    The complaint is empty for a valid record.
    """

    text: bytes
    record: Record | None
    complaint: str


def _ends_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


JOBS = "jobs"  # subfolder of a campaign's folder, where jobs on other machines write


def keep_late(record: Mapping[str, Any], out: Path) -> None:
    """Write a record to a file of its own below `out`, in one step.

    Its campaign may have been stopped meanwhile.
    """
    target = _late(out, record["key"])
    target.parent.mkdir(exist_ok=True)
    partial = target.with_suffix(".partial")
    # A reader sees a file with the suffix .record only when it is complete.
    partial.write_text(to_json(record), encoding="utf-8")
    os.replace(partial, target)


def drop_late(key: str, out: Path) -> None:
    """Remove the file that `keep_late` wrote for a cell, and the subfolder when it is empty."""
    _late(out, key).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the subfolder does not exist or is not empty
        (out / JOBS).rmdir()


def late_records(out: Path) -> list[Record]:
    """Return the records that jobs have written since their campaign was stopped."""
    return [parsed(path.read_bytes())[0] for path in sorted((out / JOBS).glob("*.record"))]


def _late(out: Path, key: str) -> Path:
    return out / JOBS / f"{key}.record"


def beta_fraction(record: Mapping[str, Any]) -> float:
    """Return beta as a fraction of beta_max, or nan if it is not known.

    It is the parameter of that name, or else the quotient.
    """
    given, about = record.get("problem_parameters"), record.get("problem")
    asked = given.get("beta_fraction") if isinstance(given, Mapping) else None
    beta, largest = (about.get("beta"), about.get("beta_max")) if isinstance(about, Mapping) else (None, None)
    if isinstance(asked, int | float):
        return float(asked)
    return (
        beta / largest if isinstance(beta, int | float) and isinstance(largest, int | float) and largest else math.nan
    )


def flat(record: Mapping[str, Any]) -> Record:
    """Return one row of a table: parameters as JSON text, the members of groups as columns with a prefix."""
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
            # The column has the same type in every file, also where no cell has a value or all values are whole.
            row[name] = math.nan if value is None else float(value)
        else:
            row[name] = value
        if name == "problem_parameters":
            # Most tables are sorted by the weight decay.
            row["beta_fraction"] = beta_fraction(record)
    return row


def to_parquet(records: list[Record], path: str | Path) -> Path:
    """Write all records to one Parquet file, in one step.

    Raises OSError when it cannot be written.
    """
    import pandas as pd

    with whole_file(path) as partial:
        pd.DataFrame([flat(record) for record in records]).to_parquet(partial, index=False)
    return Path(path)
