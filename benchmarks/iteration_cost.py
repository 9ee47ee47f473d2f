"""Time and memory of one iteration against n, P, m and d, the exponents fitted to them, and the floor beside them.

    OMP_NUM_THREADS=1 python benchmarks/iteration_cost.py [--device cuda] [--points 5] [--out DIR]

The problems are teacher problems (gated ReLU, squared loss, c outputs). One of n, P, m and d varies while the others
stay. Measured are an evaluation of the Burer-Monteiro objective with its gradient, one of the network of as many
neurons, a Hessian product of bm_newton with m neurons in all P blocks, the certificate of a point, and one step of each
first-order solver (the time from one callback to the next): medians after a warm-up. Memory is the rise of the peak of
a process of its own during one call, over what it held before with the problem and the point in memory; on a GPU that
of torch's allocator.

Floor: the larger of operations / peak of a large float64 matrix product and bytes / speed of a large copy, for the
cheaper of two ways. By neurons, with the hidden units D_k Phi U_k (n P m numbers), or by blocks, with Z_k = U_k V_k^T:
                           operations by neurons          by blocks
    objective + gradient   4 n d P m +  6 n P m c         4 n d P c +  6 P d m c
    Hessian product        4 n d P m + 12 n P m c         4 n d P c + 12 P d m c
    certificate            2 n d P (m + c) + 2 n P m c    4 n d P c +  2 P d m c
A network has no blocks, and its floor is that of the objective by neurons.
Bytes: Phi twice, the 0/1 masks twice, and each array once for every product that makes or takes it. Element-wise work
and the dual norms of the certificate (singular values of P blocks) are not in it.
"""

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    copy_peak,
    gemm_peak,
    median_seconds,
    parser,
    prepared,
    print_machine,
    registered,
    save_figure,
    synchronise,
    teacher,
    write,
)

import convexnn_bench as cnn
from convexnn_bench.algorithms.descent import BMObjective, NetworkObjective
from convexnn_bench.algorithms.newton import BlockNeurons, PointState, WorkingProblem
from convexnn_bench.harness import resident_mb, run_process
from convexnn_bench.report import fit_power_law, scaling_figure

BASE = {"n": 4000, "P": 100, "m": 4, "d": 50, "c": 4}
LOW = {"n": 1000, "P": 25, "m": 2, "d": 25}  # the smallest of each sweep; every next one doubles
SOLVERS = ("bm_gd", "bm_scaled_gd", "bm_adam", "bm_lbfgs", "network_gd", "network_adam", "network_lbfgs")
EVALUATION, PRODUCT, CERTIFICATE = "objective + gradient", "Hessian product", "certificate"
NETWORK = "network obj. + grad."
M_MMAP_THRESHOLD = -3  # malloc.h
STEPS, FIRST = 24, 8  # steps of a solver, and how many of them are not timed
Sizes = dict[str, int]


def operations(sizes: Sizes, device: str) -> dict[str, Callable[[], Any]]:
    """What is called, with problem and point made already."""
    problem = teacher(sizes["n"], sizes["d"], sizes["P"], sizes["c"])
    objective = BMObjective(problem, sizes["m"], 0, device)
    network = NetworkObjective(problem, sizes["P"] * sizes["m"], 0, device)
    x, point = objective.start, objective.point(objective.start)
    calls: dict[str, Callable[[], Any]] = {
        EVALUATION: lambda: objective(x),
        NETWORK: lambda: network(network.start),
        CERTIFICATE: lambda: cnn.certify(problem, point),
    }
    newton, step = newton_point(problem, sizes["m"], device)
    calls[PRODUCT] = lambda: newton.hessian_product(step)
    return calls


def newton_point(problem: "cnn.Problem", m: int, device: str) -> tuple[PointState, torch.Tensor]:
    """A point of bm_newton with m neurons in every block, its gradient computed, and a step from it."""
    working = WorkingProblem(problem, device)
    blocks = torch.arange(problem.P, device=working.operator.device).repeat_interleave(m)
    W, Y = (torch.randn(rows, len(blocks)).to(working.targets) for rows in (problem.p, problem.q))
    newton = PointState(working, BlockNeurons(blocks, W, Y / torch.linalg.vector_norm(Y, dim=0)))
    return newton, torch.randn_like(newton.gradient)


def ways(what: str, n: int, P: int, m: int, d: int, c: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(operations, bytes in float64) of one call by neurons and by blocks, as the text above counts them."""
    fixed = 8 * 2 * n * d + 2 * n * P
    hidden, outputs, blocks = n * P * m, n * P * c, P * d * c
    factors = P * m * (d + c)
    if what in (EVALUATION, NETWORK):
        neurons = 4 * n * d * P * m + 6 * hidden * c, fixed + 8 * (2 * factors + P * m * c + 5 * hidden)
        if what == NETWORK:
            return neurons, neurons
        return neurons, (4 * n * d * P * c + 6 * blocks * m, fixed + 8 * (3 * factors + 5 * blocks + 4 * outputs))
    if what == PRODUCT:
        neurons = 4 * n * d * P * m + 12 * hidden * c, fixed + 8 * (2 * factors + 3 * P * m * c + 7 * hidden)
        return neurons, (4 * n * d * P * c + 12 * blocks * m, fixed + 8 * (5 * factors + 8 * blocks + 4 * outputs))
    neurons = 2 * n * d * P * (m + c) + 2 * hidden * c, fixed + 8 * (factors + 2 * hidden + 2 * outputs + blocks)
    return neurons, (4 * n * d * P * c + 2 * blocks * m, fixed + 8 * (factors + 3 * blocks + 4 * outputs))


def step_seconds(name: str, sizes: Sizes, device: str) -> float:
    """Median time from one callback of a solver to the next."""
    columns = {"m": sizes["m"]} if name.startswith("bm_") else {"width": sizes["P"] * sizes["m"]}
    problem = teacher(sizes["n"], sizes["d"], sizes["P"], sizes["c"])
    solver = prepared(name, problem, 0, device, **columns)
    moments: list[float] = []

    def callback() -> bool:
        synchronise(device)
        moments.append(time.perf_counter())
        return len(moments) <= STEPS

    solver.run(callback)
    if len(moments) <= STEPS:
        raise RuntimeError(f"{name} ended by itself after {len(moments)} of {STEPS} steps: {solver.message}")
    return float(np.median(np.diff(moments)[FIRST:]))


def _peak_target(link: Any, threads: int, what: str, sizes: Sizes) -> None:
    """In a process of its own: libraries warmed up on a small problem, then the rise of the peak during one call."""
    torch.set_num_threads(threads)
    for call in operations({**sizes, "n": 500, "P": 10}, "cpu").values():
        call()
    call = operations(sizes, "cpu")[what]
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc: freed arrays go back to the system, so that none is used again unseen
        library.mallopt(M_MMAP_THRESHOLD, 2**16)
        library.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = resident_mb(os.getpid())[1]
    call()
    link.send(("mb", resident_mb(os.getpid())[0] - before))


def memory_mb(what: str, sizes: Sizes, device: str) -> float:
    """MiB that one call needs on top of problem and point; nan where it cannot be measured."""
    if torch.device(device).type == "cuda":
        call = operations(sizes, device)[what]
        call()
        synchronise(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        synchronise(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    outcome = run_process("iteration_cost:_peak_target", (what, sizes), 1, 300.0)
    found = [content for kind, content in outcome.messages if kind == "mb"]
    if not found:
        raise RuntimeError(f"{what} at {sizes} left no answer: {outcome.output}")
    return float(found[0])


def measure(size: str, sizes: Sizes, device: str, solvers: list[str], peaks: tuple[float, float]) -> list[dict]:
    """All rows for one choice of sizes."""
    rows = []
    for what, call in operations(sizes, device).items():
        floor, flops, moved = min((max(f / peaks[0], b / peaks[1]), f, b) for f, b in ways(what, **sizes))
        taken = median_seconds(call, device)
        rows.append(
            {"varied": size, **sizes, "what": what, "seconds": taken, "memory_mb": memory_mb(what, sizes, device)}
            | {"operations": flops, "bytes": moved, "floor_seconds": floor, "fraction_of_floor": floor / taken}
        )
    for name in solvers:
        empty = dict.fromkeys(("memory_mb", "operations", "bytes", "floor_seconds", "fraction_of_floor"))
        taken = step_seconds(name, sizes, device)
        rows.append({"varied": size, **sizes, "what": f"{name} step", "seconds": taken, **empty})
    for row in rows:
        told = (
            f"{row['memory_mb']:9.1f} {1e3 * row['floor_seconds']:9.2f} {row['fraction_of_floor']:9.2f}"
            if row["floor_seconds"]
            else ""
        )
        print(f"{size}={sizes[size]:<7} {row['what']:<22} {1e3 * row['seconds']:9.2f} {told}", flush=True)
    return rows


def panels(rows: list[dict], value: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """{size: {what: [(value of the size, cost), ...]}}, costs that could not be seen left out."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row[value] is not None and row[value] > 0:
            series = found.setdefault(row["varied"], {})
            series.setdefault(row["what"], []).append((row[row["varied"]], row[value]))
    return {size: {what: p for what, p in series.items() if len(p) >= 3} for size, series in found.items()}


def main() -> None:
    arguments = parser(__doc__, "iteration_cost")
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--points", type=int, default=5, help="of each sweep, at least 3; each doubles the size")
    arguments.add_argument("--scale", type=float, default=1.0, help="factor on the number of samples")
    arguments.add_argument("--solvers", nargs="*", default=list(SOLVERS))
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print_machine(given.device)
    peak = {dtype: gemm_peak(given.device, dtype) for dtype in (torch.float64, torch.float32)}
    speed = copy_peak(given.device)
    print(f"matrix product: float64 {peak[torch.float64] / 1e9:.1f}, float32 {peak[torch.float32] / 1e9:.1f} GFlop/s")
    print(f"copy: {speed / 1e9:.1f} GB/s (read and written)\n")
    solvers, rows = registered(given.solvers), []
    print(f"{'size':<9} {'what':<22} {'ms':>9} {'MiB':>9} {'floor ms':>9} {'fraction':>9}")
    for size, low in LOW.items():
        for doubling in range(given.points):
            sizes = {**BASE, size: low * 2**doubling}
            sizes["n"] = max(50, round(given.scale * sizes["n"]))
            rows += measure(size, sizes, given.device, solvers, (peak[torch.float64], speed))
    for value, unit in (("seconds", "seconds"), ("memory_mb", "MiB")):
        print(f"\nexponents of {unit} ± standard error, [95 % interval]")
        for size, series in panels(rows, value).items():
            for what, points in series.items():
                law = fit_power_law(*zip(*points, strict=True))
                print(f"  {size}  {what:<22} {law}  [{law.low:.2f}, {law.high:.2f}]")
    write(given.out, "iteration_cost", rows, scaling_figure(panels(rows, "seconds"), "seconds"))
    if panels(rows, "memory_mb"):
        save_figure(scaling_figure(panels(rows, "memory_mb"), "MiB on top of the data"), given.out / "iteration_memory")


if __name__ == "__main__":
    main()
