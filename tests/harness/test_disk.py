"""A disk that is full, a folder that may not be written to: one clear line, and nothing that was computed is lost."""

import contextlib
import json
import os
import resource
import shutil
import subprocess

import pytest
from command import run

from convexnn_bench.records.records import RecordFile

pytestmark = pytest.mark.process

CELLS = ("--dataset", "spiral[n=9]", "--solver", "bm_newton", "--solver", "fista", "--seeds", 3, "--time-limit", 90)
ASKED = ("run", *CELLS, "--gap", 1e-3)


def whole_records(out):
    """All lines, each of which must be a record; one a key."""
    text = (out / "records.jsonl").read_text() if (out / "records.jsonl").exists() else ""
    assert text == "" or text.endswith("\n")
    records = [json.loads(line) for line in text.splitlines()]
    assert len({record["key"] for record in records}) == len(records)
    return records


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(its folder, bytes of its largest record) of the campaign left alone."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    code, _, _ = run(*ASKED, "--out", out)
    assert code == 0
    assert len(whole_records(out)) == 6
    return out, max(map(len, (out / "records.jsonl").read_bytes().splitlines(keepends=True)))


def limited(size):
    """No file of the command, nor of what it starts, may grow beyond so many bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def finished_after(out, undisturbed):
    """The same campaign without the trouble: it goes on, and ends as one that had none."""
    before = whole_records(out)
    code, _, stderr = run(*ASKED, "--out", out)
    assert code == 0, stderr
    assert whole_records(out)[: len(before)] == before
    kept, _ = RecordFile(undisturbed[0] / "records.jsonl").read()
    found, complaints = RecordFile(out / "records.jsonl").read()
    assert complaints == []
    assert {key: r["status"] for key, r in found.items()} == {key: r["status"] for key, r in kept.items()}
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in undisturbed[0].iterdir())
    return before


def test_a_file_that_may_not_grow_stops_the_campaign_and_it_goes_on_later(tmp_path, undisturbed):
    out = tmp_path / "out"
    code, _, stderr = run(*ASKED, "--out", out, preexec_fn=limited(int(2.5 * undisturbed[1])))
    assert code == 1
    assert stderr.splitlines()[-1].startswith(
        f"error: File too large: {out / 'records.jsonl'}; finished cells are kept"
    )
    assert "Traceback" not in stderr
    assert 1 <= len(finished_after(out, undisturbed)) < 6


@pytest.mark.parametrize("file", ["records.parquet", "gap_against_time.png"])
def test_no_room_for_the_table_or_the_figure_costs_no_record(tmp_path, undisturbed, file):
    # The records are there already: how long their curves are, and so their file, depends on the machine.
    out = tmp_path / "out"
    shutil.copytree(undisturbed[0], out)
    table, figure = ((out / name).stat().st_size for name in ("records.parquet", "gap_against_time.png"))
    assert table < figure
    room = table // 2 if file == "records.parquet" else (table + figure) // 2
    for name in ("records.parquet", "gap_against_time.png"):
        (out / name).unlink()
    code, _, stderr = run(*ASKED, "--out", out, preexec_fn=limited(room))
    assert code == 1
    assert stderr.splitlines()[-1].startswith("error: ")
    assert "File too large" in stderr.splitlines()[-1]
    assert str(out / file) in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert file not in [path.name for path in out.iterdir()]
    assert len(finished_after(out, undisturbed)) == 6


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system in memory; needs to be root, and to be allowed to mount."""
    if os.geteuid() != 0:
        pytest.skip("a file system of some kilobytes can only be mounted by root")
    with contextlib.ExitStack() as after:

        def mount(name, options):
            folder = tmp_path / name
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"this machine does not let a file system be mounted: {done.stderr.strip()}")
            after.callback(subprocess.run, ["umount", str(folder)], check=False)
            return folder

        yield mount


def test_a_full_disk(small_disk, undisturbed):
    disk = small_disk("full", f"size={5 * os.sysconf('SC_PAGE_SIZE')}")
    out = disk / "out"
    (disk / "ballast").write_bytes(b"x" * (3 * os.sysconf("SC_PAGE_SIZE")))
    code, _, stderr = run(*ASKED, "--out", out)
    assert code == 1
    assert stderr.splitlines()[-1].startswith(f"error: No space left on device: {out}")
    assert "Traceback" not in stderr
    whole_records(out)
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)  # somebody made room
    finished_after(out, undisturbed)


def test_a_read_only_file_system_is_refused_before_anything_runs(small_disk):
    disk = small_disk("read_only", "ro")
    code, stdout, stderr = run(*ASKED, "--out", disk / "out")
    assert (code, stdout) == (2, "")
    assert stderr == (
        f"error: --out: '{disk / 'out'}' cannot be the folder for the records: {disk} may not be written to\n"
    )


def test_a_folder_without_permission_is_refused_before_anything_runs(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write to every folder; the read-only file system above stands for it")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    code, stdout, stderr = run(*ASKED, "--out", folder / "out")
    assert (code, stdout) == (2, "")
    assert f"cannot be the folder for the records: {folder} may not be written to" in stderr
    assert stderr.count("\n") == 1


def test_what_stands_where_the_records_should_be(tmp_path):
    (tmp_path / "records.jsonl").mkdir()
    code, stdout, stderr = run(*ASKED, "--out", tmp_path)
    assert (code, stdout) == (2, "")
    assert f"error: {tmp_path / 'records.jsonl'} cannot be written: Is a directory" in stderr


def test_no_folder_for_temporary_files_is_needed(tmp_path, undisturbed):
    environment = {"TMPDIR": str(tmp_path / "nowhere"), "HOME": str(tmp_path / "nowhere")}
    code, _, stderr = run(*ASKED, "--out", tmp_path / "out", environment=environment)
    assert code == 0, stderr
    assert len(whole_records(tmp_path / "out")) == 6
