"""What the commands share: errors in one line, and the width of tables."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

SolversDir = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder with your solver files, which are run as code.")
]
PluginsDir = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder with your plug-ins in the subfolders solvers, datasets, losses, activations and architectures. "
        "Their files are run as code.",
    ),
]


def speaks() -> bool:
    """Return whether this process is the one that prints, of those that torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) <= 1 or os.environ.get("RANK", "0") == "0"


def alone(command: str) -> None:
    """Refuse a command that torchrun would run on the same files in every process.

    The first process says so.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if speaks():
            started = os.environ["WORLD_SIZE"]
            why = f"{command} runs in one process, but torchrun has started {started} (WORLD_SIZE)"
            typer.echo(f"error: {why}: run it without torchrun; processes can share cnn.solve in a script", err=True)
        raise typer.Exit(2)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print an error that a user can act on as one line, with exit code 2.

    The exit code is 1 if a campaign could not go on.

    Ctrl-C is one line as well, with exit code 130.
    """
    from convexnn_bench.errors import ConvexNNError, ExecutorError

    try:
        yield
    except ConvexNNError as error:
        if speaks():
            typer.echo(f"error: {error}", err=True)
        # 2 means that the command line or a file must change. 1 means that a campaign could not go on, and may when it
        # is run again.
        raise typer.Exit(1 if isinstance(error, ExecutorError) else 2) from error
    except OSError as error:
        typer.echo(f"error: {words(error)}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        if speaks():
            typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


def words(error: OSError) -> str:
    """Say what went wrong, and with which file."""
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block with KeyboardInterrupt, whatever the block makes of it."""
    import signal

    came = False

    def stop(number: int, frame: Any) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    # SIGTERM would end Python at once. As an interrupt it lets `run_process` kill the cell and the command say what is
    # kept. A shell lets what it starts in the background ignore Ctrl-C, which stays so.
    numbers = [signal.SIGTERM] + [signal.SIGINT] * (signal.getsignal(signal.SIGINT) != signal.SIG_IGN)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
        if came:  # something has taken it for an error of its own and has gone on
            raise KeyboardInterrupt
    except Exception as error:
        # In the middle of an import a library may turn it into an ImportError.
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wide_console(width: int = 110) -> "Console":
    """Return a console for stdout, at least so wide if the output is piped."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        # A pipe has no width, and the usual 80 characters would fold the tables.
        console.width = max(console.width, width)
    return console
