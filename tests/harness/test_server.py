"""The process server: stopped, killed, silent, or unable to load, it costs no cell its record."""

import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import psutil
import pytest
import targets
from command import wait_until

import convexnn_bench as cnn
from convexnn_bench.harness import forking, process
from convexnn_bench.harness.cell import Limits
from convexnn_bench.harness.cell_run import _death
from convexnn_bench.harness.child import pack_request
from convexnn_bench.harness.process import RUNS, ProcessOutcome, run_process

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server(monkeypatch):
    """A server that loads nothing, in the place of the one that cells are forked from."""
    monkeypatch.setattr(forking, "MODULES", ())
    monkeypatch.setattr(forking, "_server", None)
    yield lambda: forking.running_server(1)
    if forking._server is not None:
        forking._server.close()


def words(target, *arguments, deadline=600.0):
    return run_process(target, arguments, 1, deadline).messages


@pytest.mark.parametrize(
    ("then", "messages", "exit_code"), [("answers", [("word", "done")], None), ("exits", [], 7), ("crashes", [], -11)]
)
def test_a_stopped_server_costs_nothing(server, then, messages, exit_code):
    before = server()
    outcome = run_process(targets.stop_server, (then,), 1, 600.0)
    assert (outcome.stopped, outcome.messages) == (None, messages)
    assert exit_code in (None, outcome.exit_code)
    assert words(targets.say, "next") == [("word", "next")]
    assert server() is before


def test_a_deadline_holds_where_the_server_is_stopped(server):
    outcome = run_process(targets.stop_server, ("hangs",), 1, 0.5)
    assert (outcome.stopped, outcome.exit_code, outcome.suspended) == ("deadline", -9, False)
    assert run_process(targets.stop_oneself, (), 1, 0.5).suspended


def test_a_server_that_dies_under_a_process_is_replaced_and_the_process_run_again(server, tmp_path):
    outcome = run_process(targets.kill_server, (str(tmp_path / "once"), 1), 1, 600.0)
    assert (outcome.stopped, outcome.messages) == (None, [("word", "done")])
    outcome = run_process(targets.kill_server, (str(tmp_path / "ever"), 99), 1, 600.0)
    assert (outcome.stopped, outcome.messages, (tmp_path / "ever").read_text()) == ("lost", [], "x" * RUNS)
    assert words(targets.say, "next") == [("word", "next")]


def test_the_record_of_a_cell_that_kills_every_server():
    status, reason = _death(ProcessOutcome(stopped="lost"), Limits())
    assert (status, reason) == (
        "crashed",
        f"the process server died under this cell {RUNS} times, so that the cell may have killed it",
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_died_between_two_processes_is_replaced(server, number):
    words(targets.say, "first")
    server().process.send_signal(number)
    assert words(targets.say, "next") == [("word", "next")]


def test_a_server_that_does_not_answer_is_replaced(server, monkeypatch):
    words(targets.say, "first")
    before = server()
    before.process.send_signal(signal.SIGSTOP)
    with monkeypatch.context() as silent:
        silent.setattr(before, "wake", lambda: None)
        silent.setattr(forking, "ANSWER_SECONDS", 0.2)
        silent.setattr(forking, "CLOSE_SECONDS", 0.2)
        with pytest.raises(forking.LostServerError, match=r"it did not answer within 0\.2 s"):
            before.fork(pack_request(targets.say, 1, ("none",)), (0, 1))
        before.close()
    assert before.process.wait(60) == -9
    assert words(targets.say, "next") == [("word", "next")]


LOADS = {
    "is_killed": ("os.kill(os.getpid(), 9)", r"it was ended by signal 9 \(SIGKILL\) .*, while it loaded its modules"),
    "raises": ("raise OSError('libgomp.so.1: no such file')", "it ended while it loaded .*: OSError: libgomp.so.1: no"),
    "exits": ("sys.exit('no licence')", "it ended while it loaded its modules: no licence"),
}


@pytest.mark.parametrize("case", LOADS)
def test_a_server_that_cannot_load_says_why(server, tmp_path, monkeypatch, case):
    body, message = LOADS[case]
    (tmp_path / "loads_badly.py").write_text(
        f"import os, sys\nopen({str(tmp_path / 'runs')!r}, 'a').write('x')\n{body}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(forking, "MODULES", ("loads_badly",))
    with pytest.raises(cnn.errors.ExecutorError, match=f"the process server, .*, is lost: {message}"):
        words(targets.say, "never")
    assert len((tmp_path / "runs").read_text()) == (3 if case == "is_killed" else 1)


def test_a_server_that_is_stopped_and_killed_while_it_loads_is_replaced(server, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    (tmp_path / "loads_late.py").write_text(
        f"import os, pathlib\nmark = pathlib.Path({str(mark)!r})\n"
        "if not mark.exists():\n    mark.touch()\n    os.kill(os.getpid(), 19)\n    os.kill(os.getpid(), 9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(forking, "MODULES", ("loads_late",))
    assert words(targets.say, "word") == [("word", "word")]
    assert mark.exists()


def test_a_daemon_dies_with_a_process_that_crashes_at_once(server):
    outcome = run_process(targets.leave_daemon, (), 1, 600.0)
    assert outcome.exit_code == 3
    wait_until(lambda: not [p for p in psutil.process_iter(["cmdline"]) if "615.75" in (p.info["cmdline"] or [])])


def test_a_server_ends_with_its_command_even_if_it_is_stopped(tmp_path):
    code = (
        "import os, signal, sys; from convexnn_bench.harness import forking; forking.MODULES = (); "
        "server = forking.running_server(1); server._wait_until_loaded(); print(server.process.pid, flush=True); "
        "os.kill(server.process.pid, signal.SIGSTOP); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == -9
    wait_until(lambda: not psutil.pid_exists(int(done.stdout)))


def test_requests_of_any_size_from_several_threads(server):
    found = []
    sizes = [0, 10**7, 3 * 10**6, 10]
    threads = [
        threading.Thread(target=lambda size=size: found.append(words(targets.measure, "x" * size))) for size in sizes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(messages[0][1] for messages in found) == sorted(sizes)


def test_time_in_which_nobody_looked_is_not_charged(server, monkeypatch):
    """As after Ctrl-Z in the terminal: a process whose output nobody takes may have stood still."""
    ahead = 0.0

    def stand_still(kind, content):
        nonlocal ahead
        ahead += 1e6

    monkeypatch.setattr(process, "time", types.SimpleNamespace(perf_counter=lambda: time.perf_counter() + ahead))
    outcome = run_process(targets.pause, (), 1, 1e5, on_message=stand_still)
    assert (outcome.stopped, outcome.messages) == (None, [("word", "before"), ("word", "after")])


def test_a_function_of_the_main_module_is_refused():
    def here(link, threads):
        pass

    here.__module__ = "__main__"
    with pytest.raises(cnn.InputError, match=r"target must be found by its name .*: write 'SCRIPT:here'"):
        run_process(here, (), 1, None)
