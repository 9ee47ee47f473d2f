"""What several benchmarks share: problems, timing, the machine's own peaks, and where results are written."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import convexnn_bench as cnn
from convexnn_bench.records import describe_machine
from convexnn_bench.report import write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convexnn_bench.solver import BaseSolver


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """With --out, the folder for the CSV file and the figure."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=Path("results") / name, help="folder for the CSV file and figures")
    return made


def write(out: Path, name: str, rows: Sequence[dict[str, Any]], figure: "Figure") -> None:
    """NAME.csv, NAME.png and NAME.svg."""
    out.mkdir(parents=True, exist_ok=True)
    written = [write_csv(rows, out / f"{name}.csv"), *save_figure(figure, out / name)]
    print(f"written: {', '.join(map(str, written))}")


def save_figure(figure: "Figure", path: Path) -> list[Path]:
    """Save the figure as PNG and as SVG, and return both paths."""
    paths = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for target in paths:
        figure.savefig(target, dpi=130)
    return paths


def print_machine(device: str) -> None:
    about = describe_machine()
    kind = f", {torch.cuda.get_device_name(device)}" if torch.device(device).type == "cuda" else ""
    print(f"{about['processor']}{kind}, torch {about['torch']}, {torch.get_num_threads()} thread(s), {about['commit']}")


def registered(names: Sequence[str]) -> list[str]:
    """Those of the solvers that are here and can be used; a line says which are not, and why."""
    found = []
    for name in names:
        missing = (
            cnn.SOLVERS.get(name).unavailable() if name in cnn.SOLVERS.names() else "there is no solver of this name"
        )
        if missing:
            print(f"left out: {name}: {missing}")
        else:
            found.append(name)
    return found


def prepared(name: str, problem: "cnn.Problem", seed: int, device: str = "cpu", **parameters: Any) -> "BaseSolver":
    """A solver with its problem set and no limit of its own. Raises InputError where it skips the problem."""
    solver = cnn.SOLVERS.make(name, **parameters)
    solver.seed, solver.device, solver.time_limit, solver.gap = seed, device, None, None
    reason = solver.skip(problem)
    if reason:
        raise cnn.InputError(f"{name}: {reason}")
    solver.load_packages()
    solver.set_problem(problem)
    return solver


def synchronise(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(call: Callable[[], Any], device: str = "cpu", repetitions: int = 9, warm_up: int = 2) -> float:
    """Of several calls after the first ones, the device waited for at both ends."""
    times = []
    for _ in range(warm_up + repetitions):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return float(np.median(times[warm_up:]))


def gemm_peak(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of one large square matrix product."""
    size = 8192 if torch.device(device).type == "cuda" else 2048
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / median_seconds(lambda: torch.mm(a, b, out=out), device, 5)


def copy_peak(device: str) -> float:
    """Bytes a second, read and written, of a copy that fits no cache."""
    source = torch.zeros(2**27 if torch.device(device).type == "cuda" else 2**25, dtype=torch.float64, device=device)
    target = torch.ones_like(source)
    return 16 * source.numel() / median_seconds(lambda: target.copy_(source), device, 5)


def teacher(n: int, d: int, P: int, c: int, seed: int = 0) -> "cnn.Problem":
    """Gaussian samples labelled by a ReLU network, squared loss, P sampled gates, beta = 0.01 beta_max."""
    return cnn.make_problem("teacher", n=n, d=d, c=c, patterns=P, seed=seed)
