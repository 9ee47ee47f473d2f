"""`convexnn-bench list` and `doctor`: what is here, and whether it works."""

import typer

from convexnn_bench.cli.common import SolversDir, alone, plain_errors, wide_console


def list_all() -> None:
    """List solvers, data sets, losses, activations, architectures: what is here, what is missing and why."""
    with plain_errors():
        from convexnn_bench.cli.listing import print_listing

        print_listing(wide_console())


def doctor(solvers_dir: SolversDir = None) -> None:
    """Look at this machine: versions, threads, BLAS, GPU, and whether each solver really solves a tiny problem.

    Exit code: 0, or 1 when a solver that is here does not work; what is missing is named with what to install.
    """
    alone("doctor")
    with plain_errors():
        from convexnn_bench.cli.doctor import print_doctor
        from convexnn_bench.harness import start_server
        from convexnn_bench.plugins import SOLVERS

        if solvers_dir is not None:
            SOLVERS.add_folder(solvers_dir)
        start_server(1)
        sound = print_doctor(wide_console(), solvers_dir)
    raise typer.Exit(0 if sound else 1)
