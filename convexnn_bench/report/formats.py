"""How numbers are written in tables, figures and pages."""

import math
from collections.abc import Callable

Quantity = int | float | None  # a number of a record; None if it is not known
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def counted(number: int, what: str) -> str:
    """Return "1 cell" or "2 cells"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def finite(value: Quantity) -> float:
    """Return `value` as float, nan for None."""
    return math.nan if value is None else float(value)


def format_gap(value: Quantity, superscript: bool = False) -> str:
    """Write a relative gap as two digits and a power of ten, such as "3.1e-07"."""
    gap = finite(value)
    if math.isnan(gap):
        return "-"
    if gap <= 0:
        return "0"
    if math.isinf(gap):
        return "inf"
    digit, power = f"{gap:.1e}".split("e")
    return f"{digit}×10{str(int(power)).translate(_SUPERSCRIPT)}" if superscript else f"{digit}e{power}"


def format_target(gap: float) -> str:
    """Write the target of a gap with all of its digits: "1e-02", "2.5e-03"."""
    mantissa, power = f"{gap:.6e}".split("e")
    return f"{float(mantissa):g}e{power}"


def format_value(value: Quantity) -> str:
    """Write an objective or a bound to seven digits."""
    number = finite(value)
    return "-" if math.isnan(number) else "0" if number == 0 else f"{number:#.7g}".rstrip(".")


def format_seconds(value: Quantity) -> str:
    """Write seconds to three digits or so."""
    seconds = finite(value)
    if math.isnan(seconds):
        return "-"
    return f"{seconds:.3f}" if seconds < 0.995 else f"{seconds:.2f}" if seconds < 99.5 else f"{seconds:.0f}"


def format_memory(value: Quantity) -> str:
    """Write MiB as a whole number."""
    return "-" if math.isnan(finite(value)) else f"{value:.0f}"


def format_share(value: Quantity) -> str:
    """Write a fraction or R2 with four decimals."""
    number = finite(value)
    return "-" if math.isnan(number) else f"{number:.4f}"


# How the numbers of a cell are written.
FORMATS: dict[str, Callable[[Quantity], str]] = {
    "objective": format_value,
    "lower_bound": format_value,
    "gap": format_gap,
    "test_loss": format_value,
    "test_accuracy": format_share,
    "test_r2": format_share,
    "setup_seconds": format_seconds,
    "solve_seconds": format_seconds,
    "peak_memory_mb": format_memory,
}
