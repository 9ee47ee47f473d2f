"""What the commands share: errors in one line, one process that speaks, and how a table is printed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

SolversDir = Annotated[str | None, typer.Option(metavar="DIR", help="Folder with solver files of your own.")]


def speaks() -> bool:
    """Whether this process is the one that tells things, of those that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) <= 1 or os.environ.get("RANK", "0") == "0"


def alone(command: str) -> None:
    """Refuse a command that torchrun would run in every process, on the same files; the first of them says so."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if speaks():
            told = f"{command} is one process, and torchrun has started {os.environ['WORLD_SIZE']} (WORLD_SIZE)"
            typer.echo(f"error: {told}: run it alone; what processes share is cnn.solve in a script", err=True)
        raise typer.Exit(2)


@contextmanager
def plain_errors() -> Iterator[None]:
    """What a user can act on is one line on stderr and exit code 2 (1 when a campaign could not go on)."""
    from convexnn_bench.errors import ConvexNNError, ExecutorError

    try:
        yield
    except ConvexNNError as error:
        if speaks():
            typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1 if isinstance(error, ExecutorError) else 2) from error
    except OSError as error:
        typer.echo(f"error: {words(error)}", err=True)
        raise typer.Exit(1) from error


def words(error: OSError) -> str:
    """What went wrong, and with which file."""
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


@contextmanager
def terminated_is_interrupted() -> Iterator[None]:
    """SIGTERM ends a campaign as Ctrl-C does, inside the block."""
    import signal

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wide_console(width: int = 110) -> "Console":
    """For stdout; at least so wide when piped."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, width)
    return console
