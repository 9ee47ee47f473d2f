"""After Ctrl-C or SIGTERM at any moment, one line says how to continue, without traceback or remaining processes."""

import contextlib
import random
import signal
import time
from pathlib import Path

import pytest
import typer
from command import Command, wait_until

from convexnn_bench.cli.common import plain_errors, signals_interrupt
from convexnn_bench.cli.run import _resumable
from convexnn_bench.errors import ExecutorError


def swallow():
    """Raise ImportError for Ctrl-C, as a library does that takes every error for a missing package."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        raise ImportError("numpy._core.multiarray failed to import") from error


def go_on():
    """As an optional import does."""
    with contextlib.suppress(ImportError):
        swallow()


def terminate():
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("body", [swallow, go_on, terminate])
def test_an_interrupt_stays_one_whatever_becomes_of_it(body):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), signals_interrupt():
        body()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_interrupt():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("body", [swallow, go_on, terminate])
def test_an_interrupted_campaign_says_how_to_go_on(tmp_path, capsys, body):
    with pytest.raises(typer.Exit) as caught, _resumable(tmp_path):
        body()
    assert caught.value.exit_code == 130
    line = f"interrupted: finished cells are kept in {tmp_path}; the same command goes on\n"
    assert capsys.readouterr().err == line


def test_what_a_campaign_without_an_end_says(tmp_path, capsys):
    with pytest.raises(typer.Exit) as caught, _resumable(tmp_path / "none"):
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    with pytest.raises(typer.Exit) as caught, _resumable(tmp_path):
        raise ExecutorError("the process server is lost")
    assert caught.value.exit_code == 1
    with pytest.raises(typer.Exit) as caught, plain_errors():
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err.splitlines() == [
        "interrupted: no cell has ended yet; the same command goes on",
        f"error: the process server is lost; finished cells are kept in {tmp_path}, and the same command goes on",
        "interrupted",
    ]


@pytest.mark.process
@pytest.mark.parametrize("seed", range(3))
def test_ctrl_c_while_the_command_imports_plans_and_builds(tmp_path, seed):
    command = Command("run", "--dataset", "spiral[n=9]", "--solver", "fista", "--out", tmp_path / "my out")
    status = Path(f"/proc/{command.process.pid}/status")

    def answers():
        caught = int(status.read_text().partition("SigCgt:")[2].split()[0], 16)
        return caught >> (signal.SIGTERM - 1) & 1

    wait_until(answers)
    time.sleep(random.Random(seed).uniform(0.0, 2.0))
    command.process.send_signal(signal.SIGINT)
    code, shown, err = command.finish()
    assert code in (130, -signal.SIGINT), err  # Python ends itself by the signal that came in the middle of an import
    lines = [line for line in err.splitlines() if not line.startswith("building")]
    assert (shown, lines) == ("", ["interrupted: no cell has ended yet; the same command goes on"])
    assert command.gone(), command.left()
