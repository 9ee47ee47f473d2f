"""Executors: the same cells give the same records wherever they run, and a worker that dies costs one cell."""

import json
import re
import signal
import subprocess
import sys
import time
import types

import fake_slurm
import psutil
import pytest
from harness_fixtures import solvers_from
from test_campaign import Watcher
from typer.testing import CliRunner

import convexnn_bench as cnn
from convexnn_bench.cli import app
from convexnn_bench.harness.campaign import Campaign
from convexnn_bench.harness.execute import run_campaign
from convexnn_bench.harness.executors import base
from convexnn_bench.harness.executors import dask as dask_executor
from convexnn_bench.harness.executors.dask import DaskExecutor
from convexnn_bench.harness.executors.local import LocalExecutor
from convexnn_bench.harness.executors.slurm import SlurmExecutor
from convexnn_bench.plugins.registry import EXECUTORS
from convexnn_bench.records.records import RecordFile, keep_late

pytestmark = pytest.mark.process

pytest.importorskip("distributed", reason="the dask executor needs it: pip install distributed")
pytest.importorskip("submitit", reason="the SLURM executor needs it: pip install submitit")


def campaign(*solvers, **changes):
    asked = {"datasets": ["spiral[n=[9,12]]"], "solvers": list(solvers), "time_limit": 20.0, "gap": 1e-4}
    return Campaign(**{**asked, **changes})


def outcome(records):
    """What must not depend on where a cell ran. When a point is scored depends on the clock, and so the point at which
    an iterative solver is stopped; that of bm_newton, which asks for every score, and of Clarabel does not."""
    exact = ("bm_newton", "cvxpy_clarabel", "raises", "exits")
    found = [(r["problem_name"], r["solver_name"], r["seed"], r["status"]) for r in records]
    return found, [(r["objective"], r["gap"]) for r in records if r["solver"] in exact]


def _wait_until(true, seconds=300.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


def lines(out):
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def test_two_dask_workers_give_what_one_process_after_the_other_gives(tmp_path):
    with solvers_from(tmp_path / "bad", "raises", "exits") as folder:
        asked = campaign("bm_newton", "cvxpy_clarabel", "fista", "raises", "exits", seeds=2, solvers_dir=folder)
        alone = run_campaign(asked, tmp_path / "alone", Watcher())
        watcher = Watcher()
        both = run_campaign(asked, tmp_path / "both", watcher, executor=DaskExecutor(workers=2))
    assert outcome(both.records) == outcome(alone.records)
    for one, other in zip(both.records, alone.records, strict=True):
        assert one["status"] != "gap_reached" or one["lower_bound"] <= other["objective"]
        assert one["status"] != "gap_reached" or abs(one["objective"] / other["objective"] - 1) <= 1e-4
    assert [record["key"] for record in both.records] == [record["key"] for record in alone.records]
    assert len(lines(tmp_path / "both")) == len(watcher.records) == 20
    assert {record["status"] for record in both.records} == {"gap_reached", "failed", "crashed"}


def test_a_dask_worker_that_dies_costs_one_cell(tmp_path, monkeypatch):
    """Whoever killed a worker is not known, so that its cell runs again; one that loses several workers is to blame."""
    monkeypatch.setattr(base, "RUNS", 2)
    with solvers_from(tmp_path / "bad", "kills_what_watches_it", "zero") as folder:
        asked = campaign("kills_what_watches_it", "zero", datasets=["spiral[n=9]"], solvers_dir=folder)
        done = run_campaign(asked, tmp_path / "out", Watcher(), executor=DaskExecutor(workers=2))
        runs = (tmp_path / "bad" / "runs").read_text().splitlines()
    lost, zero = sorted(done.records, key=lambda record: record["solver"])
    assert len(lines(tmp_path / "out")) == 2
    assert (lost["status"], zero["status"]) == ("crashed", "stalled")
    assert re.fullmatch(r"the dask worker \S+ is gone \(as 1 before\)", lost["reason"])
    assert len(runs) == 2
    assert not (tmp_path / "out" / "dask").exists()


def test_a_scheduler_that_is_killed_is_one_error(tmp_path, capfd):
    from distributed import Client

    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host", "127.0.0.1"]
    scheduler = subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True)
    try:
        address = next(found[0] for line in scheduler.stderr if (found := re.search(r"tcp://127[.:\d]+", line)))
        place = DaskExecutor(address=address)
        dask_executor._silence()
        place._client = Client(address, timeout=60)
        place._addresses, place._last_look = [], 0.0
        assert place._alive() == []
        future = place.client.submit(abs, -1)
        place._where[future] = "tcp://nowhere"
        scheduler.kill()
        scheduler.wait()
        _wait_until(lambda: future.cancelled())
        for ask in (place._alive, lambda: place.ended([future])):
            with pytest.raises(cnn.errors.ExecutorError, match=f"the dask scheduler at {address} is gone or does not"):
                ask()
        place.close()
    finally:
        scheduler.kill()
        scheduler.wait()
        scheduler.stderr.close()
    assert "Traceback" not in capfd.readouterr().err


def test_a_worker_that_is_silent_for_long_counts_as_gone(monkeypatch):
    now, heard = [0.0], {"a": 5.0, "b": 7.0}
    place = DaskExecutor()
    place._client = types.SimpleNamespace(
        scheduler=types.SimpleNamespace(identity=None),
        sync=lambda function, callback_timeout: {"workers": {name: {"last_seen": at} for name, at in heard.items()}},
    )
    monkeypatch.setattr(dask_executor.time, "monotonic", lambda: now[0])
    assert place._alive() == ["a", "b"]
    now[0], heard["a"] = 29.0, 6.0
    assert place._alive() == ["a", "b"]
    now[0] = 31.0
    assert place._alive() == ["a"]
    now[0], heard["b"] = 40.0, 8.0
    assert place._alive() == ["a", "b"]


def test_a_worker_of_this_machine_that_was_stopped_goes_on():
    child = psutil.Popen(["sleep", "600"])
    try:
        child.send_signal(signal.SIGSTOP)
        _wait_until(lambda: child.status() == psutil.STATUS_STOPPED)
        dask_executor._wake_children()
        _wait_until(lambda: child.status() != psutil.STATUS_STOPPED)
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def cluster(request):
    """The address of a scheduler in this process with one worker."""
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.worker.daemon": request.param}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit=0) as found,
    ):
        yield found.scheduler_address


@pytest.mark.parametrize("cluster", [False], indirect=True)
def test_a_cluster_that_is_running_already(tmp_path, cluster, monkeypatch):
    place = EXECUTORS.make(f"dask[address={cluster}]", workers=None)
    done = run_campaign(campaign("fista"), tmp_path / "out", Watcher(), executor=place)
    assert [record["status"] for record in done.records] == ["gap_reached"] * 2
    monkeypatch.setattr(dask_executor, "code_version", lambda: "0.0.0+other")
    with pytest.raises(cnn.InputError, match=r"has convexnn-bench .*, this is 0.0.0\+other: install the same version"):
        run_campaign(campaign("fista"), tmp_path / "other", Watcher(), executor=DaskExecutor(address=cluster))


@pytest.mark.parametrize("cluster", [True], indirect=True)
def test_a_worker_that_may_not_start_processes_is_named(tmp_path, cluster):
    with pytest.raises(cnn.InputError, match=r"may not start processes.*DASK_DISTRIBUTED__WORKER__DAEMON=False"):
        run_campaign(campaign("fista"), tmp_path / "out", Watcher(), executor=DaskExecutor(address=cluster))


def test_a_cluster_whose_workers_are_all_gone(tmp_path, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(DaskExecutor, "patience", 1.0)
    with (
        solvers_from(tmp_path / "bad", "kills_what_watches_it", "zero") as folder,
        LocalCluster(n_workers=0, dashboard_address=None) as cluster,
    ):
        # without a nanny, which would start another one
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--no-nanny"]
        worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_until(lambda: cluster.scheduler_info["workers"])
        asked = campaign("kills_what_watches_it", "zero", datasets=["spiral[n=9]"], solvers_dir=folder)
        place = DaskExecutor(address=cluster.scheduler_address)
        with pytest.raises(cnn.errors.ExecutorError, match="all dask workers are gone"):
            run_campaign(asked, tmp_path / "out", Watcher(), executor=place)
        assert worker.wait(timeout=120) == -9
    assert lines(tmp_path / "out") == []  # none is to blame yet; the same command goes on


def test_jobs_of_submitits_local_executor(tmp_path):
    with solvers_from(tmp_path / "bad", "exits") as folder:
        asked = campaign("bm_newton", "exits", datasets=["spiral[n=9]"], solvers_dir=folder)
        alone = run_campaign(asked, tmp_path / "alone", Watcher())
        out = tmp_path / "out"
        jobs = run_campaign(asked, out, Watcher(), executor=SlurmExecutor(cluster="local"))
    assert outcome(jobs.records) == outcome(alone.records)
    assert sorted(path.name for path in out.iterdir()) == ["finished.json", "records.jsonl", "records.parquet"]


def test_a_job_that_dies_costs_one_cell_and_leaves_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "RUNS", 1)
    with solvers_from(tmp_path / "bad", "kills_what_watches_it", "zero") as folder:
        asked = campaign("kills_what_watches_it", "zero", datasets=["spiral[n=9]"], solvers_dir=folder)
        done = run_campaign(asked, tmp_path / "out", Watcher(), executor=SlurmExecutor(cluster="local"))
    assert [record["status"] for record in done.records] == ["crashed", "stalled"]
    assert done.records[0]["reason"].startswith("job ")
    assert list((tmp_path / "out" / "jobs").glob("*_log.err"))


def test_jobs_of_a_slurm_cluster_ask_for_what_their_limits_say(tmp_path, monkeypatch):
    kept = fake_slurm.install(tmp_path / "slurm", monkeypatch)
    asked = campaign("fista", datasets=["spiral[n=9]"], time_limit=50.0, memory_gb=3.5, threads=1)
    place = EXECUTORS.make("slurm[partition=short,account=me]", workers=4)
    done = run_campaign(asked, tmp_path / "out", Watcher(), executor=place)
    assert [record["status"] for record in done.records] == ["gap_reached"]
    script = (kept / "1.sh").read_text()
    for option in ("partition=short", "account=me", "time=4", "mem=6GB", "cpus-per-task=1"):
        assert f"#SBATCH --{option}\n" in script
    with pytest.raises(cnn.errors.ExecutorError, match=r"could not be submitted.*invalid partition"):
        run_campaign(
            asked, tmp_path / "none", Watcher(), executor=EXECUTORS.make("slurm[partition=nowhere]", workers=None)
        )


def test_a_record_that_came_after_the_campaign_was_stopped_is_found(tmp_path):
    out = tmp_path / "out"
    done = run_campaign(campaign("fista"), out, Watcher())
    file = RecordFile(out / "records.jsonl")
    first, second = file.path.read_bytes().splitlines(keepends=True)
    file.path.write_bytes(first)
    for record in done.records:  # the first one was kept and its job's file not removed yet
        keep_late(record, out)
    watcher = Watcher()
    again = run_campaign(campaign("fista"), out, watcher)
    assert (watcher.ran, again.records) == ([], done.records)
    assert sorted(file.path.read_bytes().splitlines(keepends=True)) == sorted([first, second])
    assert not (out / "jobs").exists()


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        ("slum", "unknown executor 'slum': did you mean 'slurm'"),
        ("dask[adress=x]", "executor 'dask' has no parameter 'adress'; it has: workers, address"),
        ("dask[address=host]", "address must be that of a dask scheduler, as tcp://host:8786, got 'host'"),
        ("slurm[cluster=pbs]", 'cluster must be "slurm" or "local", got \'pbs\''),
        ("slurm", "there is no sbatch here: use a login node, or slurm[cluster=local]"),
    ],
)
def test_executors_that_cannot_be_are_refused(tmp_path, executor, words, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = ["run", "--dataset", "spiral[n=9]", "--solver", "fista", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*asked, "--executor", executor])
    assert (done.exit_code, words in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_workers_and_an_address_that_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(cnn.InputError, match="the local executor runs one cell at a time, got workers=2"):
        LocalExecutor(workers=2)
    for workers in (0, -1, True):
        with pytest.raises(cnn.InputError, match="workers must be a whole number, at least 1"):
            DaskExecutor(workers=workers)
    monkeypatch.setattr(dask_executor, "CONNECT_SECONDS", 0.5)
    with pytest.raises(cnn.InputError, match=r"no dask scheduler answers at tcp://127.0.0.1:9"):
        run_campaign(campaign("fista"), tmp_path / "out", Watcher(), executor=DaskExecutor(address="tcp://127.0.0.1:9"))
    monkeypatch.setattr(DaskExecutor, "requires", ("no_such_package",))
    with pytest.raises(cnn.InputError, match="executor 'dask': package no_such_package is not installed: pip install"):
        DaskExecutor()
