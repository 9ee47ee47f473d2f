"""Run cells as jobs of a SLURM cluster, through submitit.

The local executor of submitit runs the same jobs on this machine.
"""

import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convexnn_bench.errors import ExecutorError, InputError
from convexnn_bench.harness.executors.base import Job, LostError, PoolExecutor, run_remote
from convexnn_bench.records import JOBS, Record, keep_late

if TYPE_CHECKING:
    import submitit

START_SECONDS = 120.0  # added to a job's time, to import everything from a slow file system
WATCHER_MEMORY_GB = 2.0  # added to a job's memory, for the process that watches the cell


def run_and_keep(job: Job, out: Path) -> Record:
    """Run a cell, and write its record to `out` as well.

    A campaign that was stopped meanwhile finds it there.
    """
    record = run_remote(job)
    keep_late(record, out)
    return record


class SlurmExecutor(PoolExecutor):
    """Runs one job for each cell.

    A job asks for time and memory according to the limits of its cell. It writes to the campaign's folder, which all
    machines must see under the same path, and the package as well. The log of a job that left no record stays in the
    subfolder jobs/.

    Parameters
    ----------
    workers
        Number of jobs that are queued or running at any time; by default 16, or 2 with cluster="local".
    cluster
        "slurm", or "local" for processes of this machine, to try it out.
    partition, account, qos, constraint, gres
        The options of sbatch with these names.
    """

    name = "slurm"
    summary = "one job per cell on SLURM, slurm[partition=...,account=...]; slurm[cluster=local] to try it out"
    requires = ("submitit",)

    def __init__(
        self,
        workers: int | None = None,
        cluster: str = "slurm",
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        gres: str | None = None,
    ):
        super().__init__(workers)
        if cluster not in ("slurm", "local"):
            raise InputError(f'cluster must be "slurm" or "local", got {cluster!r}')
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise InputError("executor 'slurm': there is no sbatch here: use a login node, or slurm[cluster=local]")
        self.cluster, self.here = cluster, cluster == "local"
        self.title = "SLURM" if cluster == "slurm" else "submitit's local executor"
        self.window = workers or (16 if cluster == "slurm" else 2)
        options = {"partition": partition, "account": account, "qos": qos, "constraint": constraint, "gres": gres}
        self._running: dict[submitit.Job[Record], None] = {}
        self.options = {f"slurm_{key}": value for key, value in options.items() if value is not None}

    def open(self, out: Path, threads: int) -> None:
        # The path travels with each job, which may start in another directory.
        self.out = out.absolute()

    def close(self) -> None:
        for job in self._running:
            job.cancel()

    def room(self, running: int) -> int:
        return self.window - running

    def submit(self, job: Job) -> "submitit.Job[Record]":
        import submitit

        # The job may take more than its cell, so that the cell's own limits act first. SLURM would kill the process
        # that watches the cell as well, and no record would be left.
        limits = job.cell.limits
        memory = {} if limits.memory_gb is None else {"mem_gb": math.ceil(limits.memory_gb + WATCHER_MEMORY_GB)}
        executor = submitit.AutoExecutor(self.out / JOBS, cluster=self.cluster)
        executor.update_parameters(
            name="convexnn",
            timeout_min=math.ceil((limits.wall_seconds + START_SECONDS) / 60),
            cpus_per_task=limits.threads,
            **memory,
            **self.options,
        )
        try:
            submitted = executor.submit(run_and_keep, job, self.out)
        except Exception as error:  # sbatch refused it: a wrong partition, a full queue
            raise ExecutorError(f"the job could not be submitted: {error}") from error
        self._running[submitted] = None
        return submitted

    def ended(self, handles: Sequence[Any]) -> list[Any]:
        done = [job for job in handles if job.done()]
        if not done:
            time.sleep(self.poll_seconds)
        return done

    def collect(self, handle: "submitit.Job[Record]") -> Record:
        del self._running[handle]
        error = handle.exception()
        if error is not None:
            lines = str(error).strip().splitlines()
            raise LostError(f"job {handle.job_id} left no record: {lines[-1] if lines else type(error).__name__}")
        record = handle.result()
        # The log of a job with a record is not needed. That of a lost job stays, because it may say why.
        for path in self.out.joinpath(JOBS).glob(f"{handle.job_id}_*"):
            path.unlink(missing_ok=True)
        return record
