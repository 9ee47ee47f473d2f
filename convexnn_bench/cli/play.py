"""The command `convexnn-bench play`: it opens the page "See it" in a browser."""

import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from convexnn_bench.cli.common import alone, plain_errors

TEXT_BROWSERS = ("www-browser", "links", "elinks", "lynx", "w3m")  # they run no scripts


def play(
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the page to this file, and open nothing.")
    ] = None,
) -> None:
    """Open a page to play with: activation patterns, the landscape of one neuron, and the staircase.

    The page is one file, and needs no connection. Its address is printed, so that it can be opened by hand too.
    """
    alone("play")
    with plain_errors():
        from convexnn_bench.playground import write_page

        if out is not None:
            typer.echo(f"written: {write_page(out)}")
            return
        # The browser reads the file after this command has ended, so that it is not removed.
        path = write_page(Path(tempfile.mkdtemp(prefix="convexnn-bench-")) / "see_it.html")
        typer.echo(path.as_uri())
        if not _open(path.as_uri()):
            typer.echo(
                "no browser could be started: open this address in one, or write a copy with --out FILE", err=True
            )


def _open(address: str) -> bool:
    """Open an address in a browser with a window; return False if there is none."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    if getattr(browser, "basename", "") in TEXT_BROWSERS:
        return False
    return browser.open(address)
