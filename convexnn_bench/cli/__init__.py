"""The command `convexnn-bench`.

Everything heavy is imported inside the commands, so that --help is quick.
"""

from typing import Annotated

import typer

from convexnn_bench.cli import certify, layerwise, machine, play, proofs, records, regularisation, run

app = typer.Typer(
    name="convexnn-bench",
    help="Train two-layer networks three ways - exact convex program, Burer-Monteiro, original network - and "
    "certify how far each result is from the global optimum.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> bool:
    if wanted:
        from convexnn_bench import __version__

        typer.echo(f"convexnn-bench {__version__}")
        raise typer.Exit()
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Options before the command."""


# Each command is a function whose signature is its options. Its module imports typer alone until it is called.
app.command()(run.run)
app.command()(records.report)
app.command("list")(machine.list_all)
app.command()(machine.doctor)
app.command()(records.merge)
app.command()(certify.certify)
app.command()(regularisation.path)
app.command()(proofs.prove)
app.command()(proofs.verify)
app.command()(layerwise.layerwise)
app.command()(play.play)


def main() -> None:
    """Entry point of the command."""
    app()
