"""Progress on stderr, for a person who waits: shown on a terminal and in a notebook, silent when piped."""

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
    shown = show and os.environ.get("CONVEXNN_PROGRESS") != "off" and (console.is_terminal or console.is_jupyter)
    columns = (TimeElapsedColumn(), BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(description, total=total)

        def update(done: int | float | None = None, text: str | None = None) -> None:
            bar.update(task, completed=done, description=description if text is None else f"{description}: {text}")

        yield update
