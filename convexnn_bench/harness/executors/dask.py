"""Run cells on the workers of a dask cluster.

The cluster is started here, or is running already.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from convexnn_bench.errors import ExecutorError, InputError
from convexnn_bench.harness.executors.base import Job, LostError, PoolExecutor, run_remote
from convexnn_bench.harness.tree import ENDED_ERRORS, children
from convexnn_bench.records import Record, code_version, cores

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 20.0  # wait for the answer of a scheduler
LOOK_SECONDS = 1.0  # between two looks at which workers are alive
SILENT_SECONDS = 30.0  # without an answer, after which a scheduler or a worker counts as gone
SCRATCH = "dask"  # subfolder of a campaign's folder for the temporary files of workers that are started here


def _look() -> tuple[str, bool]:
    """Return the code version and whether this process may start others; runs in each worker."""
    return code_version(), not multiprocessing.current_process().daemon


class DaskExecutor(PoolExecutor):
    """Runs one cell at a time on each worker.

    The cell of a worker that dies runs again, a limited number of times.

    Parameters
    ----------
    workers
        Number of workers of the cluster started here, by default one for every `threads` cores. With an address: how
        many of its workers to use, by default all.
    address
        A running scheduler, as "tcp://host:8786", whose workers see this package, the folder of solvers and the data
        under the same paths.
    """

    name = "dask"
    summary = (
        "several cells at a time on a dask cluster of this machine, or on the one at dask[address=tcp://host:port]"
    )
    requires = ("distributed",)
    patience = 60.0  # seconds without any worker before giving up

    def __init__(self, workers: int | None = None, address: str | None = None):
        super().__init__(workers)
        if address is not None and "://" not in str(address):
            raise InputError(f"address must be that of a dask scheduler, as tcp://host:8786, got {address!r}")
        self.address, self.here = address, address is None
        self.title = "dask workers on this machine" if address is None else f"the dask scheduler at {address}"
        self._settings = contextlib.ExitStack()
        self._cluster: Any = None
        self._client: Client | None = None
        self._where: dict[Future, str] = {}  # the worker of each running cell
        self._heard: dict[str, tuple[float, float]] = {}  # when the scheduler, and this process, last heard of a worker
        self._scratch: Path | None = None

    def open(self, out: Path, threads: int) -> None:
        import dask
        from distributed import Client, LocalCluster

        _silence()
        if self.address is None:
            # A killed command leaves the folder, which the same command uses and removes when it is started again.
            self._scratch = out / SCRATCH
            # Every worker runs one cell at a time, and a cell takes `threads` cores.
            number = self.workers or max(1, cores() // threads)
            # a worker starts a process for every cell; so does one that replaces a dead worker
            settings = {"distributed.worker.daemon": False, "temporary-directory": str(self._scratch)}
            self._settings.enter_context(dask.config.set(settings))
            self._cluster = LocalCluster(
                n_workers=number,
                threads_per_worker=1,
                dashboard_address=None,
                memory_limit=0,  # the limits are those of the cells
                local_directory=str(self._scratch),
                silence_logs=logging.CRITICAL,
            )
        try:
            self._client = Client(self._cluster or self.address, timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(f"no dask scheduler answers at {self.address}: {error}") from error
        self._addresses = self._alive()
        self._last_look = time.monotonic()
        self._check_workers()

    def _check_workers(self) -> None:
        if not self._addresses:
            raise InputError(f"the dask cluster at {self.address} has no workers: start some with `dask worker`")
        for address, (version, may_start) in self.client.run(_look).items():
            if version != code_version():
                raise InputError(
                    f"dask worker {address} has convexnn-bench {version}, this is {code_version()}: install the same "
                    "version there, and start the worker anew"
                )
            if not may_start:
                raise InputError(
                    f"dask worker {address} may not start processes, but every cell is a process: start it with "
                    "DASK_DISTRIBUTED__WORKER__DAEMON=False in its environment, or with --no-nanny"
                )

    @property
    def client(self) -> "Client":
        """The connection that `open` has made."""
        assert self._client is not None
        return self._client

    def close(self) -> None:
        _wake_children()
        # Errors are ignored: all records are written by now, and a lost scheduler need not be closed.
        for future in self._where:
            with contextlib.suppress(Exception, asyncio.CancelledError):
                future.cancel()
        for end in (self._client, self._cluster):
            if end is not None:
                with contextlib.suppress(Exception, asyncio.CancelledError):
                    end.close(timeout=CONNECT_SECONDS)
        self._settings.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _alive(self) -> list[str]:
        """Return the addresses of the workers that the scheduler has heard of within SILENT_SECONDS."""
        _wake_children()
        try:
            found = self.client.sync(self.client.scheduler.identity, callback_timeout=SILENT_SECONDS)["workers"]
        except (Exception, asyncio.CancelledError) as error:  # its connection may break in any way
            raise self._lost() from error
        now = time.monotonic()
        for address, about in found.items():
            # The scheduler may have another clock, so that the time since its answer last changed is measured instead.
            if self._heard.get(address, (None, 0.0))[0] != about["last_seen"]:
                self._heard[address] = about["last_seen"], now
        return [address for address in found if now - self._heard[address][1] < SILENT_SECONDS]

    def _lost(self) -> ExecutorError:
        return ExecutorError(f"the dask scheduler at {self.address or 'this machine'} is gone or does not answer")

    def _free(self) -> list[str]:
        busy = set(self._where.values())
        return [address for address in self._addresses if address not in busy]

    def room(self, running: int) -> int:
        if not running:
            self._wait_for_workers()
        free = len(self._free())
        return free if self.workers is None else min(free, self.workers - running)

    def _wait_for_workers(self) -> None:
        """Give a cluster that has lost all its workers some time to replace them."""
        # This is called only while no cell runs: a running cell will free its worker by itself.
        until = time.monotonic() + self.patience
        while not self._free():
            if time.monotonic() > until:
                raise ExecutorError(f"all dask workers are gone, and none came back within {self.patience:g} s")
            time.sleep(self.poll_seconds)
            self._addresses = self._alive()

    def submit(self, job: Job) -> "Future":
        address = self._free()[0]
        # A cell is bound to one worker, and dask never repeats it, since it may be what kills its workers. With `pure`
        # dask would take equal calls for one call.
        try:
            future = self.client.submit(
                run_remote, job, pure=False, retries=0, workers=[address], allow_other_workers=False
            )
        except (Exception, asyncio.CancelledError) as error:
            raise self._lost() from error
        self._where[future] = address
        return future

    def ended(self, handles: Sequence[Any]) -> list[Any]:
        from distributed import wait

        try:
            done = list(wait(handles, timeout=self.poll_seconds, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            done = []
        except (Exception, asyncio.CancelledError) as error:  # dask cancels all cells of a lost scheduler
            raise self._lost() from error
        # dask keeps a task whose only worker has died in its queue, so its future does not end. Only the list of living
        # workers shows the loss. It is read when nothing has ended, and otherwise once in LOOK_SECONDS.
        if not done or time.monotonic() - self._last_look > LOOK_SECONDS:
            self._addresses, self._last_look = self._alive(), time.monotonic()
        gone = [future for future in handles if future not in done and self._where[future] not in self._addresses]
        return done + gone

    def collect(self, handle: "Future") -> Record:
        address = self._where.pop(handle)
        if not handle.done():
            handle.cancel()
            raise LostError(f"the dask worker {address} is gone")
        try:
            error = handle.exception(timeout=SILENT_SECONDS)
            if error is None:
                record: Record = handle.result(timeout=SILENT_SECONDS)
                handle.release()
                return record
        except (Exception, asyncio.CancelledError) as lost:
            raise LostError(f"the record of the cell cannot be fetched from the dask worker {address}") from lost
        raise LostError(f"the dask worker {address} left no record: {type(error).__name__}: {error}")


def _silence() -> None:
    """Switch off the log of dask, since records and errors of this executor say what was lost."""
    for name in list(logging.root.manager.loggerDict):
        # dask sets the level of each of its loggers, so that the level of their parent does not count.
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _wake_children() -> None:
    """Continue workers of this process that a signal has stopped."""
    for pid in children(os.getpid()):
        with contextlib.suppress(*ENDED_ERRORS):
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_STOPPED:
                process.send_signal(signal.SIGCONT)
