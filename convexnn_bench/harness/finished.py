"""Recognise a finished campaign without loading its solvers.

Planning a campaign loads every solver and data set, and torch with them, which takes seconds. If all cells of a
campaign have records, the file finished.json is therefore written beside them. It has the cells and their keys, with a
checksum of everything that the keys depend on. If a data set reads files, the campaign is planned every time.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from convexnn_bench.harness.campaign import Campaign, Source
from convexnn_bench.harness.cell import Cell, Limits
from convexnn_bench.plugins import ACTIVATIONS, ARCHITECTURES, DATASETS, LOSSES, SOLVERS
from convexnn_bench.records import code_version
from convexnn_bench.storage import whole_file

NAME = "finished.json"
REGISTRIES = (ACTIVATIONS, ARCHITECTURES, DATASETS, LOSSES, SOLVERS)


def remember(campaign: Campaign, source: Source, cells: Sequence[Cell], out: Path) -> None:
    """Write the cells of a finished campaign to a file, unless their keys depend on data files."""
    # A data set with the fingerprint of the base class reads no file.
    built_in = DATASETS.base.fingerprint
    if any(DATASETS.get(cell.dataset).fingerprint is not built_in for cell in cells):
        return
    content = {"campaign": _checksum(campaign, source), "cells": [_to_plain(cell) for cell in cells]}
    # The file only saves time: where it cannot be written, the campaign is planned again.
    with suppress(OSError), whole_file(out / NAME) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")


def recall(campaign: Campaign, source: Source, out: Path) -> list[Cell] | None:
    """Return the cells of the campaign with their keys, as `plan` would.

    Return None if no valid file has them.
    """
    try:
        content = json.loads((out / NAME).read_text(encoding="utf-8"))
        if content["campaign"] != _checksum(campaign, source):
            return None
        return [_from_plain(each) for each in content["cells"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # the file is missing or damaged: the campaign is planned


def _checksum(campaign: Campaign, source: Source) -> str:
    """Return a checksum of the campaign, of the package and of all folders of plug-ins."""
    named = [Path(folder) for folder in (campaign.solvers_dir, campaign.plugins_dir) if folder is not None]
    folders = [*named, *(folder for registry in REGISTRIES for folder in registry.folders)]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    code = [(str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    what = [asdict(campaign), sorted(source.replaced), code_version(), code]
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=repr).encode()).hexdigest()


def _to_plain(cell: Cell) -> dict[str, object]:
    return {"key": cell.key, "fields": {**asdict(cell), "label": cell.problem_name}}


def _from_plain(plain: dict[str, dict[str, object]]) -> Cell:
    fields = dict(plain["fields"])
    limits = Limits(**fields.pop("limits"))  # type: ignore[arg-type]
    cell = Cell(**fields, limits=limits)  # type: ignore[arg-type]
    vars(cell)["key"] = plain["key"]  # the place of the cached property
    return cell
