"""Check records from a file against the table of fields.

An invalid record then affects one row only.

Records are written by this package, but also by older versions, by scripts and by hand. A value of the wrong type is
replaced by the empty value of its field. The record then has status "failed" and no results, and its reason names the
invalid values.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from convexnn_bench.records.fields import FIELDS, MEMBERS, SCHEMA, TEST_FIELDS, Field, blank
from convexnn_bench.statuses import STATUSES

EPOCH = "1970-01-01T00:00:00.000+00:00"  # start time for a record without one
# The values of fields that every report needs, if the record has no valid value.
UNKNOWN: dict[str, Any] = {"text": "unknown", "integer": 0}
# The results, which are removed from an invalid record, since further values in it may be wrong.
RESULTS = ("objective", "lower_bound", "gap", "stationarity_bound", "active_blocks", "curve", *TEST_FIELDS)
# The members of a problem that reports show.
SHOWN_OF_PROBLEM = [member for member in MEMBERS["problem"] if member not in ("N", "beta_max", "notes")]
FAULTS_SHOWN = 3  # number of faults that the reason of an invalid record names


class UnreadableError(ValueError):
    """This version cannot read a line as a record; the message says why."""


def parsed(line: bytes) -> tuple[dict[str, Any], list[str]]:
    """Return the record of a line with a value of the right type in every field, and its faults.

    Raises
    ------
    UnreadableError
        If the line is no JSON object with a key, or belongs to a later version of the table.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"not a whole record ({len(line)} bytes)") from error
    if not isinstance(record, dict) or record.get("key") is None:
        raise UnreadableError(f"not a whole record ({len(line)} bytes)")
    schema = record.get("schema", 1)
    if _is_integer(schema) and schema > SCHEMA:
        raise UnreadableError(f"of a later version (schema {schema}, this version reads up to {SCHEMA})")
    return checked(record)


def checked(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the record with a value of the right type in every field, and its faults."""
    faults: list[str] = []
    empty = blank()
    sound = {**record, **empty}
    for field in FIELDS:
        if field.name in record:
            sound[field.name] = _value(field, record[field.name], faults)
        elif field.report:
            faults.append(f"{field.name} is missing")
            if field.kind == "group":  # with its members, all of them None
                sound[field.name] = _group(field.name, {}, faults)
        if sound[field.name] is None and field.report and field.kind in UNKNOWN:
            sound[field.name] = EPOCH if field.name == "started" else UNKNOWN[field.kind]
    if sound["status"] not in STATUSES:
        faults.append(f"{sound['status']!r} is no status")
    if faults:
        sound.update({name: empty[name] for name in RESULTS})
        sound.update(status="failed", reason=f"invalid record: {', '.join(faults[:FAULTS_SHOWN])}")
    return sound, faults


def _value(field: Field, value: Any, faults: list[str]) -> Any:
    """Return the value, or the empty value of the field if its type is wrong, which is added to `faults`."""
    if field.kind == "group":
        return _group(field.name, value, faults)
    if field.kind == "curve":
        return _curve(field.name, value, faults)
    if field.kind == "parameters":
        if not isinstance(value, dict):
            faults.append(_fault(field.name, "an object", value))
        return value if isinstance(value, dict) else {}
    if field.name == "key" and not isinstance(value, str):
        faults.append(_fault("key", "text", value))
        return str(value)
    return _scalar(field.name, field.kind, value, faults, needed=field.report)


def _scalar(name: str, kind: str, value: Any, faults: list[str], needed: bool = False) -> Any:
    """Return a text, an integer or a number, or None.

    needed: for a text or an integer, None is a fault.
    """
    if kind == "number":
        if value is None or _is_number(value):
            return value if value is not None and math.isfinite(value) else None
        faults.append(_fault(name, "a number", value))
        return None
    wanted, fits = ("text", isinstance(value, str)) if kind == "text" else ("a whole number", _is_integer(value))
    if fits or (value is None and not needed):
        return value
    faults.append(_fault(name, wanted, value))
    return None


def _group(name: str, value: Any, faults: list[str]) -> dict[str, Any]:
    members = MEMBERS.get(name, {})
    if not isinstance(value, dict):
        faults.append(_fault(name, "an object", value))
        value = {}
    # Limits always have all members, so that readers need not check for them.
    group: dict[str, Any] = dict.fromkeys(members) if name == "limits" else {}
    for member, inner in value.items():
        where = f"{name}.{member}"
        if member in members:
            group[member] = _scalar(where, members[member], inner, faults)
        elif inner is None or isinstance(inner, str | bool) or _is_number(inner):
            group[member] = inner
        else:
            faults.append(_fault(where, "text or a number", inner))
    # A problem is described as a whole or not at all, so that no reader has to ask which members are there.
    if name == "problem" and any(group.get(member) is None for member in SHOWN_OF_PROBLEM):
        return {}
    return group


def _curve(name: str, value: Any, faults: list[str]) -> list[list[float | None]]:
    points = value if isinstance(value, list) else []
    whole = [point for point in points if _is_point(point)]
    if not isinstance(value, list) or len(whole) < len(points):
        faults.append(f"{name} must be a list of [seconds, objective, gap]")
    return whole


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 3
        and _is_number(point[0])
        and all(number is None or _is_number(number) for number in point[1:])
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if not _is_integer(value):
        return isinstance(value, float)
    try:
        float(value)
    except OverflowError:  # hundreds of digits
        return False
    return True


def _fault(name: str, wanted: str, value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return f"{name} must be {wanted}, not {kinds.get(type(value), f'{value!r:.20}')}"
