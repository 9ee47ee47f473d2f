"""Names with parameters in brackets: ``bm_lbfgs[m=[1,2],history=20]``."""

import ast
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convexnn_bench.errors import InputError

_PLAIN = re.compile(r"^[\w./~:+-]+$")
_SPEC = re.compile(r"^\s*([A-Za-z_][\w-]*)\s*(?:\[(.*)\])?\s*$", re.DOTALL)


def _split(text: str) -> list[str]:
    """Split at commas outside brackets and quotes."""
    # A list as a value has commas of its own, and so may a quoted word: only those at depth 0 separate.
    parts, depth, quote, current = [], 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if character == "," and depth == 0 and not quote:
            parts.append(current)
            current = ""
        else:
            current += character
    if depth or quote:
        raise InputError(f"cannot read {text!r}: a bracket or quote in it is not closed")
    return [part for part in [*parts, current] if part.strip()]


def _literal(text: str) -> Any:
    """Return a Python literal, a list of literals, or the bare word as a string."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return [_literal(part) for part in _split(text[1:-1])]
    # These words count in any case: true is what most users type, and True what Python prints.
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    try:
        # This reads literals alone and runs no code.
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_spec(text: str) -> tuple[str, dict[str, Any]]:
    """Return (name, {key: value}) for "name[key=value,...]".

    Raise InputError where the text is not of that form, or where a key stands twice.
    """
    match = _SPEC.match(text)
    if not match:
        is_path = "[" not in text and bool(Path(text).suffix)
        hint = f"; a file of data is file[path={_text(text)}]" if is_path else ""
        raise InputError(f"cannot read {text!r}: expected name or name[key=value,key=[value,value]]{hint}")
    name, inside = match.groups()
    parameters: dict[str, Any] = {}
    for part in _split(inside or ""):
        key, sign, value = part.partition("=")
        key = key.strip()
        if not sign or not key.isidentifier() or not value.strip():
            raise InputError(f"cannot read {part.strip()!r} in {text!r}: expected key=value")
        if key in parameters:
            raise InputError(f"{key!r} stands twice in {text!r}")
        parameters[key] = _literal(value)
    return name, parameters


def expand_grid(parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every combination of the values that are lists.

    Each has the other values as they are.
    """
    for key, value in parameters.items():
        if isinstance(value, list) and not value:
            raise InputError(f"{key}=[] sweeps over nothing: give at least one value")
    # A single value counts as a list of one, so that the product runs over all keys alike.
    values = [value if isinstance(value, list) else [value] for value in parameters.values()]
    return [dict(zip(parameters, combination, strict=True)) for combination in itertools.product(*values)]


def format_spec(name: str, parameters: Mapping[str, Any]) -> str:
    """Return the text that `parse_spec` reads, with keys in alphabetical order."""
    if not parameters:
        return name
    # The order of the keys is fixed, so that equal parameters always give the same text.
    inside = ",".join(f"{key}={_text(value)}" for key, value in sorted(parameters.items()))
    return f"{name}[{inside}]"


def _text(value: Any) -> str:
    """Return a value as text that `_literal` reads, with quotes where words need them."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, str):
        plain = _PLAIN.match(value) and _literal(value) == value
        return value if plain else repr(value)
    return str(value).replace(" ", "")
