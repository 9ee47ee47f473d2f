"""The commands `convexnn-bench list` and `doctor`, about this installation."""

from typing import Annotated

import typer

from convexnn_bench.cli.common import PluginsDir, SolversDir, alone, plain_errors, wide_console


def list_all(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND|NAME]...",
            help="Kinds (solvers, datasets, losses, activations, architectures, executors, campaigns) and parts of "
            "names, such as 'bm_'; everything if not given.",
            show_default=False,
        ),
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="Leave out what cannot be used on this machine.")] = False,
    solvers_dir: SolversDir = None,
    plugins_dir: PluginsDir = None,
) -> None:
    """List solvers, data sets, losses, activations and architectures, and why some cannot be used here."""
    with plain_errors():
        from convexnn_bench.cli.listing import print_listing
        from convexnn_bench.plugins import add_plugins

        add_plugins(solvers_dir, plugins_dir)
        print_listing(wide_console(), what or [], here)


def doctor(solvers_dir: SolversDir = None, plugins_dir: PluginsDir = None) -> None:
    """Examine this machine: versions, threads, BLAS, GPU, and whether each solver solves a tiny problem.

    Missing packages are named with the command that installs them. The exit code is 0, or 1 if an installed solver
    fails.
    """
    alone("doctor")
    with plain_errors():
        from convexnn_bench.cli.doctor import print_doctor
        from convexnn_bench.harness import start_server
        from convexnn_bench.plugins import add_plugins

        add_plugins(solvers_dir, plugins_dir)
        # The server loads its modules while this process describes the machine.
        start_server(1)
        sound = print_doctor(wide_console(), solvers_dir, plugins_dir)
    raise typer.Exit(0 if sound else 1)
