"""The parts a campaign is made safe with: pipes that nobody waits on, the lock, whole files, and what the page says."""

import errno
import fcntl
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import types
from multiprocessing import Pipe
from pathlib import Path

import bad_solvers
import pytest
import worse_solvers
from harness_fixtures import solvers_from, spiral_cell
from test_campaign import Watcher

import convexnn_bench as cnn
from convexnn_bench.harness import forking, process
from convexnn_bench.harness.campaign import Campaign
from convexnn_bench.harness.cell_run import blank_record
from convexnn_bench.harness.execute import run_campaign
from convexnn_bench.harness.plan import plan
from convexnn_bench.harness.streams import Messages, Tail
from convexnn_bench.records import records as records_module
from convexnn_bench.records.folder import RecordsLock
from convexnn_bench.records.merging import merge
from convexnn_bench.records.records import RecordFile, one_line, storable
from convexnn_bench.statuses import STATUSES
from convexnn_bench.storage import whole_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pipe():
    receiver, sender = Pipe(duplex=False)
    yield receiver, sender
    receiver.close()
    sender.close()


def test_messages_come_whole_and_in_order_however_they_are_cut(pipe):
    receiver, sender = pipe
    found = Messages(receiver.fileno())
    body = pickle.dumps(("point", [1.5, None]))
    framed = struct.pack("!i", len(body)) + body
    for byte in framed:
        assert found.read() == []
        os.write(sender.fileno(), bytes([byte]))
    assert found.read() == [("point", [1.5, None])]
    sender.send(("a", 1))
    sender.send(("b", "x" * 20_000))  # head and body are two writes
    assert found.read() == [("a", 1), ("b", "x" * 20_000)]
    os.write(sender.fileno(), struct.pack("!iQ", -1, len(body)) + body)  # as messages above 2 GiB begin
    assert found.read() == [("point", [1.5, None])]
    os.write(sender.fileno(), framed[:10])  # the rest never comes
    assert (found.read(), found.garbled, found.open) == ([], False, True)
    sender.close()
    assert (found.read(), found.garbled, found.open) == ([], False, False)


@pytest.mark.parametrize("garbage", [b"\xfe" * 64, b"\x7f" * 64, struct.pack("!i", 4) + b"none", b"\xff" * 12])
def test_what_is_no_message_is_told_and_nobody_waits_for_its_rest(pipe, garbage):
    receiver, sender = pipe
    found = Messages(receiver.fileno())
    sender.send(("a", 1))
    os.write(sender.fileno(), garbage)
    assert (found.read(), found.garbled) == ([("a", 1)], True)
    assert found.read() == []


def test_a_tail_keeps_the_end(pipe):
    receiver, sender = pipe
    tail = Tail(receiver.fileno(), keep=5)
    tail.read()
    assert (tail.text(), tail.open) == ("", True)
    os.write(sender.fileno(), b"0123456789\xff")
    sender.close()
    tail.read()
    assert (tail.text(), tail.open) == ("6789\N{REPLACEMENT CHARACTER}", False)


def test_a_lock_is_for_one_and_ends_with_it(tmp_path):
    path = tmp_path / "records.jsonl"
    with RecordsLock(path) as first:
        assert not path.exists()  # nothing is made before the campaign is known to be possible
        first.take()
        with pytest.raises(cnn.InputError, match="another campaign is writing to"), RecordsLock(path):
            pass
        with pytest.raises(cnn.InputError, match="another campaign is writing to"):
            merge([tmp_path], tmp_path)
    with RecordsLock(path) as again:
        again.take()
    held = [RecordsLock(path) for _ in range(2)]
    path.unlink()
    with held[0], held[1]:
        held[0].take()
        with pytest.raises(cnn.InputError, match="another campaign is writing to"):
            held[1].take()


def test_records_that_came_before_the_lock_are_not_passed_over(tmp_path):
    path = tmp_path / "records.jsonl"
    with RecordsLock(path) as late:
        RecordFile(path).append({"key": "a"})  # another campaign, from its start to its end
        with pytest.raises(cnn.InputError, match="has just written records here; run again to go on"):
            late.take()


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    def unsupported(descriptor, flags):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with RecordsLock(tmp_path / "records.jsonl") as lock:
        lock.take()
    assert (tmp_path / "records.jsonl").exists()


def record(key):
    return {**blank_record(spiral_cell("fista")), "key": key}


@pytest.mark.parametrize("trouble", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["write", "fsync"])
def test_a_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch, trouble, moment):
    file = RecordFile(tmp_path / "records.jsonl")
    file.append(record("a"))
    whole, write, calls = file.path.read_bytes(), os.write, []

    def half(descriptor, data):
        calls.append(len(data))
        if len(calls) == 2:
            raise trouble
        return write(descriptor, data[: len(data) // 2])

    def unsure(descriptor):
        raise trouble

    monkeypatch.setattr(records_module.os, moment, half if moment == "write" else unsure)
    with pytest.raises(type(trouble)) as caught:
        file.append(record("b"))
    monkeypatch.undo()
    assert file.path.read_bytes() == whole
    if isinstance(trouble, OSError):
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(file.path))
    file.append(record("b"))
    assert (list(file.read()[0]), file.read()[1]) == (["a", "b"], [])


def test_a_file_takes_its_place_whole_or_not_at_all(tmp_path):
    target = tmp_path / "figure.png"
    target.write_text("before")

    def stopped_by(error):
        with whole_file(target) as partial:
            assert partial.suffix == ".png"
            partial.write_text("half")
            raise error

    with pytest.raises(OSError, match="No space left") as caught:
        stopped_by(OSError(errno.ENOSPC, "No space left on device", "some other name"))
    assert caught.value.filename == str(target)
    with pytest.raises(KeyboardInterrupt):
        stopped_by(KeyboardInterrupt())
    assert ([path.name for path in tmp_path.iterdir()], target.read_text()) == (["figure.png"], "before")
    with whole_file(target) as partial:
        partial.write_text("after")
    assert ([path.name for path in tmp_path.iterdir()], target.read_text()) == (["figure.png"], "after")


@pytest.mark.process
def test_a_folder_that_goes_away_ends_the_campaign_and_it_goes_on_later(tmp_path):
    out = tmp_path / "out"
    campaign = Campaign(datasets=["spiral[n=[9,12]]"], solvers=["fista"], time_limit=60.0)

    class Careless(Watcher):
        def started(self, cell):
            super().started(cell)
            if len(self.ran) == 2:
                shutil.rmtree(out)

    with pytest.raises(OSError, match="No such file or directory") as caught:
        run_campaign(campaign, out, Careless())
    assert caught.value.filename == str(out / "records.jsonl")
    done = run_campaign(campaign, out, Watcher())
    assert [record["status"] for record in done.records] == ["gap_reached"] * 2
    assert len(RecordFile(out / "records.jsonl").read()[0]) == 2


@pytest.mark.parametrize("value", ["lambda: 0", "float('inf')", "{1, 2}", "[1, object()]", "np.zeros(2)", "1j"])
def test_a_parameter_that_no_record_can_hold_is_refused(tmp_path, value):
    (tmp_path / "odd.py").write_text(worse_solvers.HEAD + f"\n    name = 'odd'\n    parameters = {{'a': [{value}]}}\n")
    with (
        solvers_from(tmp_path / "bad", "zero"),
        pytest.raises(cnn.InputError, match=r"solver 'odd': a is .*, which no record can hold: parameters are numbers"),
    ):
        plan(Campaign(datasets=["spiral[n=9]"], solvers=["odd"], solvers_dir=str(tmp_path)))
    assert storable([1, 2.5, "a", None, True, (1, [2])])


def test_one_line_is_what_a_terminal_shows():
    assert one_line("a\n b\tc") == "a b c"
    assert one_line("\x1b[31mred\x07 \udcff zwölf") == r"\x1b[31mred\x07 \udcff zwölf"
    assert len(one_line("x" * 10**6)) == 400


@pytest.mark.process
def test_a_script_needs_no_main_guard_and_cells_do_not_run_it_again(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(
        "print('once', flush=True)\n"
        "from harness_fixtures import spiral_cell\n"
        "from convexnn_bench.harness.cell_run import run_cell\n"
        "record = run_cell(spiral_cell('fista'))\n"
        "print(record['status'], record['reason'])\n"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    once, told = done.stdout.splitlines()
    assert (once, told.split()[0], done.stderr) == ("once", "gap_reached", "")


def _send_word(link, threads):
    link.send(("word", threads))


@pytest.mark.process
def test_the_deadline_runs_from_the_start_of_the_process_not_of_its_server(monkeypatch):
    """What a server imports before it can fork, the first one or one that replaces it, is no time of a cell's."""
    ahead, fork = 0.0, process.fork

    def slow(*arguments):
        nonlocal ahead
        ahead += 1e6
        return fork(*arguments)

    clock = types.SimpleNamespace(perf_counter=lambda: time.perf_counter() + ahead)
    monkeypatch.setattr(process, "fork", slow)
    monkeypatch.setattr(process, "time", clock)
    outcome = process.run_process(_send_word, (), 1, deadline=1e5)
    assert (outcome.stopped, outcome.messages, ahead) == (None, [("word", 1)], 1e6)
    assert outcome.seconds < 1e5


@pytest.mark.process
def test_a_target_may_be_named_and_is_imported_in_the_new_process_only(tmp_path, monkeypatch):
    (tmp_path / "named_target.py").write_text("def say(link, threads, word):\n    link.send(('word', word))\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert process.run_process("named_target:say", ("here",), 1, deadline=None).messages == [("word", "here")]
    assert "named_target" not in sys.modules


@pytest.mark.process
def test_cells_need_no_place_for_temporary_files(monkeypatch):
    """Neither the first process nor one of a new server needs a file, so that no cell can take one away."""
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(forking, "MODULES", ())
    monkeypatch.setattr(forking, "_server", None)
    with pytest.raises(FileNotFoundError):
        tempfile.gettempdir()
    for _ in range(2):
        assert process.run_process(_send_word, (), 1, deadline=600.0).messages == [("word", 1)]
        forking._server.close()


def test_the_page_of_faults_names_tests_and_solvers_that_are_there():
    page = (ROOT / "docs" / "harness.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 15
    for row in rows[1:]:
        for file in re.findall(r"test_\w+", row[-1]):
            assert any((ROOT / "tests").rglob(f"{file}.py")), row
        for solver in re.findall(r"`(\w+)`", row[-1]):
            assert solver in {**bad_solvers.BODIES, **worse_solvers.BODIES, **worse_solvers.ENDS}, row
        for status in re.findall(r"^ `(\w+)`", row[1]):
            assert status in STATUSES, row
