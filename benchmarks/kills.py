"""Kill and stop every kind of process of a campaign at random, and show what becomes of the records.

    python benchmarks/kills.py [--kills 100] [--seed 0] [--cells 40] [--executor local --executor dask] [--out DIR]

Campaigns of tiny cells, each of which starts a child and sleeps for half a second, are run one after the other until
so many signals were sent: SIGKILL, or SIGSTOP, to a process drawn at random among the kinds that are there at that
moment. Seven of ten signals wait until a cell runs. The kinds are "command", "server" (the process that cells are
forked from, also while it still imports), "cell", "child" (what a cell has started), and with dask "worker" and
"helper" (Python's resource tracker). A command that was killed is started again; one that was stopped is continued
after a moment. Each campaign is then left alone to its end.

The table has a row for each kind and signal, with what became of the cells that ran at that moment. The exit code is 1,
with a line for each fault, if a record is lost, double or unreadable, if a cell that received no signal itself has
another record than one that was left alone, if a cell took more than 10 s beyond its deadline or nothing moved for so
long, or if a process, a file in the campaign's folder or a temporary file is left.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import textwrap
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from convexnn_bench.terminal import progress

MARK = "CONVEXNN_BENCH_KILLS"  # environment variable that all processes of a campaign inherit
DEADLINE = 5.0  # seconds that a cell may take; one that is left alone takes less than one, on an idle machine
GRACE = 10.0  # seconds beyond the deadline after which a cell, or the end of a command, counts as hanging
LOADING = 120.0  # seconds in which a server loads its modules on a busy machine
FILES = {"records.jsonl", "records.parquet", "gap_against_time.png", "finished.json"}
CACHES = ("torchinductor_",)  # folders that torch makes for temporary files when it is imported, one for each user
WHILE_RUNNING = 0.7  # share of the signals that wait for a running cell

SOLVER = """
import os, subprocess, time
import numpy as np
from convexnn_bench.formulations.point import Point
from convexnn_bench.solver import BaseSolver


class Solver(BaseSolver):
    name = "sleeper"
    formulation = "convex"

    def set_problem(self, problem):
        with open({log!r}, "a") as file:  # which cell this process is
            file.write(f"{{os.getpid()}} {{self.seed}}\\n")
        self.Z = np.zeros((problem.P, problem.p, problem.q))

    def run(self, callback):
        subprocess.Popen(["sleep", "600"])
        callback()
        time.sleep(0.5)

    def get_result(self):
        return Point(blocks=self.Z)
"""


@dataclass
class Hit:
    """A signal that was sent to a process of some kind. running: seeds of the cells that ran then. seed: of a cell."""

    kind: str
    action: str
    executor: str
    running: list[int] = field(default_factory=list)
    seed: int | None = None
    outcome: str = ""


class Campaign:
    """One campaign in a folder of its own, with the processes that belong to it."""

    def __init__(self, folder: Path, cells: int, executor: str):
        self.folder, self.cells, self.executor = folder, cells, executor
        self.out, self.log, self.temporary = folder / "out", folder / "log", folder / "tmp"
        for made in (folder / "solvers", self.temporary):
            made.mkdir(parents=True)
        (folder / "solvers" / "sleeper.py").write_text(SOLVER.format(log=str(self.log)))
        (folder / "kills.toml").write_text(
            textwrap.dedent(f"""
                datasets = ["spiral[n=9]"]
                solvers = ["sleeper"]
                solvers_dir = "{folder / "solvers"}"
                seeds = {cells}
                time_limit = {DEADLINE}
                deadline = {DEADLINE}
            """)
        )
        self.mark = f"{MARK}={uuid.uuid4()}".encode()
        self.hits: list[Hit] = []
        self.faults: list[str] = []
        self.command: psutil.Popen | None = None

    def start(self) -> None:
        name, value = self.mark.decode().split("=")
        words = [sys.executable, "-m", "convexnn_bench", "run", str(self.folder / "kills.toml"), "--out", str(self.out)]
        words += [] if self.executor == "local" else ["--executor", self.executor, "--workers", "2"]
        with (self.folder / "output").open("a") as output:
            self.command = psutil.Popen(
                words,
                stdout=output,
                stderr=output,
                env={**os.environ, name: value, "TMPDIR": str(self.temporary)},
            )

    def running(self) -> bool:
        return self.command is not None and self.command.poll() is None

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the campaign, also those that have lost their parents."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                marked = self.mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def by_kind(self) -> dict[str, list[psutil.Process]]:
        """Return the processes by their kind."""
        kinds: dict[str, list[psutil.Process]] = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                kinds.setdefault(self._kind(process), []).append(process)
        return kinds

    def _kind(self, process: psutil.Process) -> str:
        if self.command is not None and process.pid == self.command.pid:
            return "command"
        line, parent = " ".join(process.cmdline()), process.parent()
        if "harness.server import main" in line:
            # A cell is a fork of its server, and has its command line.
            forked = parent is not None and "harness.server import main" in " ".join(parent.cmdline())
            return "cell" if forked else "server"
        if "resource_tracker" in line:
            return "helper"
        return "worker" if "multiprocessing" in line else "child"

    def lines(self) -> list[dict[str, Any]]:
        path = self.out / "records.jsonl"
        whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        records = []
        for line in whole:
            try:
                records.append(json.loads(line))
            except ValueError:
                self.faults.append(f"a line of {len(line)} bytes is no record")
        return records

    def seeds(self) -> dict[int, int]:
        """Return the seed of the cell that each process was."""
        pairs = [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return {int(pid): int(seed) for pid, seed in pairs}

    def send(self, rng: random.Random, kind: str | None = None, action: str | None = None) -> bool:
        """Send a signal to a process of a kind, both drawn unless they are given; False where there is no process."""
        kinds, seeds = self.by_kind(), self.seeds()
        # A process that has not said yet which cell it is would leave open whose record may differ.
        kinds["cell"] = [cell for cell in kinds.get("cell", []) if cell.pid in seeds]
        cells = [seeds[cell.pid] for cell in kinds["cell"]]
        kinds = {name: found for name, found in kinds.items() if found and kind in (None, name)}
        if not kinds or not self.running():
            return False
        kind = rng.choice(sorted(kinds))
        process, action = rng.choice(kinds[kind]), action or rng.choice(["kill", "stop"])
        hit = Hit(kind, action, self.executor, cells, seeds.get(process.pid) if kind == "cell" else None)
        before = self.lines()
        try:
            process.send_signal(signal.SIGKILL if action == "kill" else signal.SIGSTOP)
        except psutil.Error:  # it has just ended
            return False
        self.hits.append(hit)
        if kind == "command":
            self._after(action, rng)
        if self.lines()[: len(before)] != before:
            self.faults.append(f"records were lost or changed when the {kind} was hit ({action})")
        return True

    def wait_for_cell(self) -> None:
        """Wait until a cell runs that has not been stopped, or until the command has ended."""
        until = time.monotonic() + LOADING
        while self.running() and time.monotonic() < until:
            with contextlib.suppress(psutil.Error):
                cells = self.by_kind().get("cell", [])
                if any(cell.status() != psutil.STATUS_STOPPED and cell.pid in self.seeds() for cell in cells):
                    return
            time.sleep(0.05)

    def _after(self, action: str, rng: random.Random) -> None:
        """Continue a command that was stopped; start one that was killed again, when all its processes are gone."""
        assert self.command is not None
        if action == "stop":
            time.sleep(rng.uniform(0.1, 2.0))
            self.command.send_signal(signal.SIGCONT)
            return
        self.command.wait()
        self._expect_gone()
        self.start()

    def _expect_gone(self) -> None:
        until = time.monotonic() + GRACE
        while left := self.processes():
            if time.monotonic() > until:
                names = [f"{self._kind(process)} {process.pid}" for process in left]
                self.faults.append(f"left behind {GRACE:g} s after the command: {', '.join(names)}")
                for process in left:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                return
            time.sleep(0.02)

    def finish(self) -> None:
        """Let the campaign run to its end without further signals, and check its records and files."""
        while True:
            self._wait_for_end()
            if len({record["key"] for record in self.lines()}) >= self.cells or self.faults:
                break
            self.start()  # the command had given up, and said so: the same command goes on
        self._expect_gone()
        self._judge()

    def _wait_for_end(self) -> None:
        """Wait for the end of the command. Something must move within a cell's deadline, or a server's imports."""
        number, since = -1, time.monotonic()
        while self.running():
            now = len(self.lines())
            if now != number:
                number, since = now, time.monotonic()
            if time.monotonic() - since > DEADLINE + GRACE + LOADING:
                self.faults.append(f"nothing has moved for {time.monotonic() - since:.0f} s")
                assert self.command is not None
                self.command.kill()
            time.sleep(0.05)

    def _judge(self) -> None:
        records = self.lines()
        twice = [key for key, number in Counter(record["key"] for record in records).items() if number > 1]
        if twice or len(records) != self.cells:
            self.faults.append(f"{len(records)} records of {self.cells} cells, {len(twice)} of them double")
        status = {record["seed"]: record for record in records}
        hit_itself = {hit.seed for hit in self.hits if hit.kind == "cell"}
        for seed, record in status.items():
            if record["status"] != "stalled" and seed not in hit_itself:
                self.faults.append(f"seed {seed} received no signal: {record['status']}, {record['reason']}")
            if record["wall_seconds"] > DEADLINE + GRACE:
                self.faults.append(f"seed {seed} took {record['wall_seconds']:.1f} s, its deadline was {DEADLINE:g} s")
        left = [path.name for path in self.out.iterdir() if path.name not in FILES]
        left += [path.name for path in self.temporary.iterdir() if not path.name.startswith(CACHES)]
        if left:
            self.faults.append(f"files are left: {', '.join(sorted(left))}")
        for hit in self.hits:
            if hit.seed is not None:
                outcomes = [_in_words(status[hit.seed])] if hit.seed in status else []
            else:
                others = [seed for seed in hit.running if seed in status]
                outcomes = ["hit by another signal" if s in hit_itself else _in_words(status[s]) for s in others]
            hit.outcome = ", ".join(outcomes) or "no cell ran"


def _in_words(record: dict[str, Any]) -> str:
    return "as left alone" if record["status"] == "stalled" else f"{record['status']} ({record['reason']})"


def kill_campaigns(
    kills: int, seed: int, cells: int, executors: list[str], folder: Path
) -> tuple[list[Hit], list[str]]:
    """Return every signal that was sent, and every fault that was found."""
    rng, hits, faults = random.Random(seed), list[Hit](), list[str]()
    index = 0
    with progress("signals", total=kills) as update:
        while len(hits) < kills:
            campaign = Campaign(folder / f"campaign{index}", cells, executors[index % len(executors)])
            index += 1
            campaign.start()
            # The last cells are left alone, so that every signal meets a campaign that still has some.
            while len(hits) + len(campaign.hits) < kills and len(campaign.lines()) < cells - 3:
                if not campaign.running():
                    campaign.start()  # it had given up, and said so
                if rng.random() < WHILE_RUNNING:
                    campaign.wait_for_cell()
                time.sleep(rng.uniform(0.1, 1.0))
                campaign.send(rng)
                update(len(hits) + len(campaign.hits), campaign.executor)
            campaign.finish()
            hits += campaign.hits
            faults += [f"{campaign.folder.name} ({campaign.executor}): {fault}" for fault in campaign.faults]
    return hits, faults


def table(hits: list[Hit]) -> str:
    """Return the table: the kind of process and signal, their number, and the results of the cells that ran then."""
    rows = ["| executor | process | signal | times | cells that ran then |", "|---|---|---|---|---|"]
    for key, number in sorted(Counter((hit.executor, hit.kind, hit.action) for hit in hits).items()):
        outcomes = Counter(hit.outcome for hit in hits if (hit.executor, hit.kind, hit.action) == key)
        words = "; ".join(f"{count} x {outcome}" for outcome, count in outcomes.most_common())
        rows.append(f"| {' | '.join(key)} | {number} | {words} |")
    return "\n".join(rows)


def main() -> None:
    """Send the signals and print the table and the faults."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--kills", type=int, default=100)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--cells", type=int, default=40, help="cells of each campaign")
    made.add_argument("--executor", action="append", help="repeatable; by default local, local and dask in turn")
    made.add_argument("--out", type=Path, help="folder for the campaigns, which is kept; by default a temporary one")
    given = made.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        executors = given.executor or ["local", "local", "dask"]
        hits, faults = kill_campaigns(given.kills, given.seed, given.cells, executors, folder)
    print(table(hits))
    print(f"{len(hits)} signals in {time.perf_counter() - started:.0f} s, {len(faults)} faults")
    for fault in faults:
        print(f"fault: {fault}")
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
