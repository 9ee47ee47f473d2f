"""Large counts, sizes and times in words, for messages."""

import math


def in_words(value: int) -> str:
    return f"{value:,}" if value < 10**12 else f"10^{math.floor(math.log10(value))}"


def in_bytes(value: int) -> str:
    if value >= 2**60:
        return f"10^{math.floor(math.log10(value))} bytes"
    size = float(value)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"


def in_time(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 3600:.2g} hours" if seconds < 1e9 else "more than a lifetime"
