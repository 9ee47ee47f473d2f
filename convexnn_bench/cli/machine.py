"""The commands `convexnn-bench list` and `doctor`: what is installed here, and whether it works."""

import typer

from convexnn_bench.cli.common import SolversDir, alone, plain_errors, wide_console


def list_all() -> None:
    """List solvers, data sets, losses, activations and architectures, and why some cannot be used here."""
    with plain_errors():
        from convexnn_bench.cli.listing import print_listing

        print_listing(wide_console())


def doctor(solvers_dir: SolversDir = None) -> None:
    """Examine this machine: versions, threads, BLAS, GPU, and whether each solver solves a tiny problem.

    Missing packages are named with the command that installs them. The exit code is 0, or 1 if an installed solver
    fails.
    """
    alone("doctor")
    with plain_errors():
        from convexnn_bench.cli.doctor import print_doctor
        from convexnn_bench.harness import start_server
        from convexnn_bench.plugins import SOLVERS

        if solvers_dir is not None:
            SOLVERS.add_folder(solvers_dir)
        # The server loads its modules while this process describes the machine.
        start_server(1)
        sound = print_doctor(wide_console(), solvers_dir)
    raise typer.Exit(0 if sound else 1)
