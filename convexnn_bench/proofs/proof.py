"""A proof: a tree of integers and decimals that is written as compressed JSON."""

import gzip
import json
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from convexnn_bench.storage import whole_file

SCHEMA, VERSION = "convexnn-bench proof", 1
DIGITS = 30  # significant digits of the bound, the objective and the gap, rounded outwards


@dataclass(frozen=True, repr=False)
class Proof:
    """A lower bound on the optimum, with everything that is needed to verify it in exact arithmetic.

    Attributes
    ----------
    content : dict
        What `save` writes, as docs/proofs.md describes it.
    scope : {"complete", "sampled"}
        The program that the bound is about, as in `Certificate`.
    """

    content: dict[str, Any]
    scope: str

    @property
    def bound(self) -> Fraction:
        """The proven lower bound, a rational number. ``float(proof.bound)`` rounds it."""
        return Fraction(self.content["bound"])

    @property
    def primal(self) -> Fraction | None:
        """An upper bound on the objective of the point, or None for a proof without a point."""
        return None if self.content["primal"] is None else Fraction(self.content["primal"])

    @property
    def gap(self) -> Fraction | None:
        """An upper bound on (primal - bound) / |bound|, or None for a proof without a point."""
        return None if self.content["gap"] is None else Fraction(self.content["gap"])

    def save(self, path: str | Path) -> Path:
        """Write the proof as compressed JSON, in one step, and return the file.

        Parameters
        ----------
        path : str or Path
            The file, such as "proof.json.gz". It is replaced if it exists.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        with whole_file(path) as partial:
            partial.write_bytes(self.to_bytes())
        return Path(path)

    def to_bytes(self) -> bytes:
        """Return what `save` writes. Equal proofs have equal bytes."""
        return gzip.compress(self.to_text().encode(), mtime=0)

    def to_text(self) -> str:
        """Return the content as JSON."""
        return json.dumps(self.content, separators=(",", ":"), allow_nan=False)

    def __repr__(self) -> str:
        gap = "" if self.gap is None else f", gap={float(self.gap):.3g}"
        return f"{type(self).__name__}(bound={float(self.bound):.12g}{gap}, scope={self.scope!r})"


def decimal(value: Fraction, rounding: str) -> str:
    """Return a rational number as a decimal of DIGITS digits. rounding: a mode of `decimal`, such as ROUND_FLOOR."""
    return str(Context(DIGITS, rounding).divide(Decimal(value.numerator), Decimal(value.denominator)))
