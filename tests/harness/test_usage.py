"""The usage of a cell: memory of every kind, each page counted once, and the CPU seconds of all its processes."""

import os
import sys

import pytest
import targets
from harness_fixtures import solvers_from, spiral_cell

from convexnn_bench.harness import affinity, forking, usage
from convexnn_bench.harness.cell_run import run_cell
from convexnn_bench.harness.process import run_process

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="what processes use is read from /proc"),
]


@pytest.fixture(autouse=True)
def server(monkeypatch):
    """A server that loads nothing, in the place of the one that cells are forked from."""
    with monkeypatch.context() as patched:
        patched.setattr(forking, "MODULES", ())
        patched.setattr(forking, "_server", None)
        yield
        if forking._server is not None:
            forking._server.close()


@pytest.mark.parametrize("kind", ["memfd", "shm", "closed shm"])
def test_files_in_memory_count(kind):
    outcome = run_process(targets.hold_memory, (kind, 128), 1, 600.0, memory_gb=0.1)
    assert (outcome.stopped, outcome.messages) == ("memory", [])
    assert 0.1 * 1024 < outcome.peak_mb < 250
    for name in os.listdir("/dev/shm"):
        if name.startswith("convexnn-bench-test-"):
            os.remove(f"/dev/shm/{name}")


def test_pages_that_forks_share_count_once():
    """Five processes with 60 MiB each, which are the same 60 MiB."""
    outcome = run_process(targets.hold_memory, ("forks", 60), 1, 600.0, memory_gb=0.1)
    assert (outcome.stopped, outcome.messages) == (None, [("word", "done")])
    assert 60 < outcome.peak_mb < 0.1 * 1024


def test_exact_looks_take_a_small_share_of_the_time(monkeypatch):
    """The clock of the test advances only with exact measurements, which take a second each."""
    now, exact = [0.0], []

    def slow(pid):
        if pid != os.getpid():  # what other tests have started
            return 0.0, 0.0
        now[0] += 1.0
        exact.append(now[0])
        return 1.0, 0.0

    monkeypatch.setattr(usage.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(usage, "proportional_mb", slow)
    here = usage.Usage(os.getpid())
    for _ in range(1000):
        assert not here.look(limit_mb=2.0)  # the resident memory is above, the exact one below
        now[0] += 0.05
    assert len(exact) <= 1 + usage.URGENT_SHARE * now[0]
    assert len(exact) >= 0.8 * usage.URGENT_SHARE * now[0]


def test_cpu_seconds_of_a_process_and_its_children():
    outcome = run_process(targets.spin, (0.4,), 1, 600.0)
    assert 0.8 <= outcome.cpu_seconds < 2.0  # an interpreter starts as well
    idle = run_process(targets.pause, (), 1, 600.0)
    assert idle.cpu_seconds < 0.2


def test_cores_go_to_one_cell_at_a_time_as_long_as_there_are_some(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {100_001, 100_002, 100_003})
    with affinity.reserved_cores(2) as two, affinity.reserved_cores(1) as one:
        assert sorted(two + one) == [100_001, 100_002, 100_003]
        with affinity.reserved_cores(1) as shared:
            assert shared[0] in (100_001, 100_002, 100_003)
        with affinity.reserved_cores(9) as everything:
            assert everything == [100_001, 100_002, 100_003]
    with affinity.reserved_cores(1) as again:
        assert len(again) == 1


def test_a_record_tells_what_threads_in_the_background_do(tmp_path, monkeypatch):
    monkeypatch.undo()  # a cell needs the server with its modules
    with solvers_from(tmp_path / "bad", "works_in_the_background") as folder:
        record = run_cell(spiral_cell("works_in_the_background", folder))
    assert record["status"] == "stalled", record["reason"]
    assert record["reason"].endswith("said: cores 1")
    assert record["solve_seconds"] < record["cpu_seconds"]
    assert record["cpu_seconds"] >= 0.5
