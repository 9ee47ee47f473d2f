"""Show progress to a person who waits, and put counts, sizes and times into words.

The bar is shown on a terminal and in a notebook, and is silent when stderr is piped.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[..., None]


@contextmanager
def progress(description: str, total: int | float | None = None, show: bool = True) -> Iterator[Update]:
    """A bar that is removed when the work ends. Yields update(done=None, text=None).

    total: what `done` counts up to; None for a bar without an end. show=False keeps it silent, and so does
    CONVEXNN_PROGRESS=off in the environment.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    # A pipe or a file would keep every stage of the bar, so that it is drawn for a person only.
    shown = show and os.environ.get("CONVEXNN_PROGRESS") != "off" and (console.is_terminal or console.is_jupyter)
    columns = (TimeElapsedColumn(), BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(description, total=total)

        def update(done: int | float | None = None, text: str | None = None) -> None:
            bar.update(task, completed=done, description=description if text is None else f"{description}: {text}")

        yield update


def in_words(value: int) -> str:
    """Return a count such as "12,500", or its power of ten from 10^12 on."""
    # Numbers of patterns grow like n^rank and may have hundreds of digits, which nobody would read.
    return f"{value:,}" if value < 10**12 else f"10^{math.floor(math.log10(value))}"


def in_bytes(value: int) -> str:
    """Return a number of bytes in the unit that suits it, such as "3.5 MiB"."""
    if value >= 2**60:
        return f"10^{math.floor(math.log10(value))} bytes"
    size = float(value)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"


def in_time(seconds: float) -> str:
    """Return a duration in words, such as "45 seconds" or "2 hours"."""
    if seconds < 1:
        return "less than a second"
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 3600:.2g} hours" if seconds < 1e9 else "more than a lifetime"
