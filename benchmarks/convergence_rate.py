"""How fast Burer-Monteiro methods converge near the optimum: excess over a certified reference, and the fitted rate.

    OMP_NUM_THREADS=1 python benchmarks/convergence_rate.py [--seconds 20] [--solvers bm_gd ...] [--problems ...]

The reference is the point of a reference solver, carried on by trust-region Newton where it has to be, and certified
to a relative gap of 1e-10; without one the run ends. Drawn is (f - f*) / f* of every iterate, f the Burer-Monteiro
objective, against iterations and against seconds of the solver's clock, which stands still while f is evaluated. An
iteration is what lies between two callbacks of a solver. The rate is the factor by which an iteration multiplies the
excess: least squares on log10 of the excess over the tail, where it lies between 1e-9 and 1e-3 of its start. A method
with no three iterates there has no rate.
"""

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import parser, prepared, print_machine, registered, write

import convexnn_bench as cnn
from convexnn_bench.formulations import burer_monteiro, convex
from convexnn_bench.house_style import GRID
from convexnn_bench.theorems import trust_region_newton

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOLVERS = ("bm_gd", "bm_scaled_gd", "bm_lbfgs", "bm_newton")
PROBLEMS = ("spiral[n=45]", "teacher[n=200,d=10,patterns=20]")
REFERENCES = ("bm_newton", "semismooth_newton", "cvxpy_clarabel[tolerance=1e-12]")
REFERENCE_GAP, FLOOR = 1e-10, 1e-12
TAIL = 1e-9, 1e-3  # of the first excess
Trace = list[tuple[int, float, float]]  # iteration, seconds, relative excess


def reference(problem: "cnn.Problem", seconds: float) -> tuple[float, float]:
    """(least objective, its gap to the best bound). Raises InputError where that is above REFERENCE_GAP."""
    least, bound = np.inf, -np.inf
    for spec in REFERENCES:
        if spec.partition("[")[0] not in cnn.SOLVERS.names():
            continue
        result = cnn.solve(problem, spec, gap=REFERENCE_GAP, time_limit=seconds, show_progress=False)
        if result.blocks is None:
            continue
        factors = convex.to_factors(problem, torch.as_tensor(result.blocks))
        polished = trust_region_newton(problem, *factors, tolerance=1e-13)
        for certificate in (result.certificate, cnn.certify(problem, (polished.U, polished.V))):
            least, bound = min(least, certificate.primal), max(bound, certificate.dual)
        if least - bound <= REFERENCE_GAP * abs(bound):
            return least, max(least - bound, 0.0) / abs(bound)
    raise cnn.InputError(
        f"the reference is certified to {(least - bound) / abs(bound):.1e} only, not {REFERENCE_GAP:g}"
    )


def objective(problem: "cnn.Problem", solver: Any) -> float:
    point = solver.get_result()
    if point.factors is not None:
        return burer_monteiro.objective(problem, *burer_monteiro.check_factors(problem, *point.factors))
    return problem.objective(point.blocks)


def trace(name: str, problem: "cnn.Problem", best: float, seconds: float) -> Trace:
    """Excess of the iterates; every one at first, then in geometric progression (one in fifty apart at most)."""
    solver = prepared(name, problem, seed=0)
    found: Trace = []
    stopped, count, start = 0.0, 0, time.perf_counter()

    def callback() -> bool:
        nonlocal stopped, count
        now = time.perf_counter()
        clock = now - start - stopped
        if not found or count >= 1.02 * found[-1][0] or clock >= seconds:
            found.append((count, clock, (objective(problem, solver) - best) / best))
        count += 1
        stopped += time.perf_counter() - now
        return clock < seconds and found[-1][2] > FLOOR

    solver.run(callback)
    found.append((count, time.perf_counter() - start - stopped, (objective(problem, solver) - best) / best))
    return found


def rate(found: Trace, column: int) -> tuple[float, float]:
    """Slope of log10(excess) in the tail and its standard error, over iterations (0) or seconds (1), or nan."""
    from scipy.stats import linregress

    low, high = (bound * found[0][2] for bound in TAIL)
    tail = [(point[column], np.log10(point[2])) for point in found if low <= point[2] <= high]
    if len({x for x, _ in tail}) < 3:
        return float("nan"), float("nan")
    fit = linregress(*zip(*tail, strict=True))
    return float(fit.slope), float(fit.stderr)


def draw(traces: dict[str, dict[str, Trace]]) -> "Figure":
    """A row a problem; excess against iterations and against seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4 * len(traces)), layout="constrained")
    axes = figure.subplots(len(traces), 2, squeeze=False)
    for row, (problem, by_solver) in zip(axes, traces.items(), strict=True):
        for column, (axis, label) in enumerate(zip(row, ("iterations", "seconds"), strict=True)):
            for name, found in by_solver.items():
                shown = [point for point in found if point[2] > 0]
                x = [max(point[column], 1e-4 if column else 0.5) for point in shown]
                look = cnn.solver_style(name) | {"markersize": 4, "markevery": 0.08}
                axis.plot(x, [point[2] for point in shown], label=name, **look)
            axis.set(xscale="log", yscale="log", xlabel=label, ylabel="(f - f*) / f*")
            axis.set_title(problem, loc="left", fontsize=10)
            axis.grid(True, which="major", color=GRID, linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0][1].legend(fontsize=9, frameon=False)
    return figure


def main() -> None:
    arguments = parser(__doc__, "convergence_rate")
    arguments.add_argument("--seconds", type=float, default=20.0, help="for each solver on each problem")
    arguments.add_argument("--solvers", nargs="+", default=list(SOLVERS))
    arguments.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print_machine("cpu")
    solvers, rows = registered(given.solvers), []
    traces: dict[str, dict[str, Trace]] = {}
    for label in given.problems:
        problem = cnn.make_problem(label)
        try:
            best, gap = reference(problem, 5 * given.seconds)
        except cnn.InputError as error:
            sys.exit(f"error: {label}: {error}")
        print(f"\n{label}: f* = {best:.10g}, certified to {gap:.1e}")
        print(f"{'solver':<14} {'iterations':>10} {'seconds':>8} {'excess':>8} {'factor a step':>20} {'digits/s':>9}")
        for name in solvers:
            found = traces.setdefault(label, {})[name] = trace(name, problem, best, given.seconds)
            (slope, error), (speed, _) = rate(found, 0), rate(found, 1)
            count, clock, excess = found[-1]
            fitted = f"{10**slope:.6f} ± {10**slope * np.log(10) * error:.6f}" if np.isfinite(slope) else "-"
            digits = f"{-speed:.3g}" if np.isfinite(speed) else "-"
            print(f"{name:<14} {count:>10} {clock:8.2f} {excess:8.1e} {fitted:>20} {digits:>9}", flush=True)
            rows += [
                {"problem": label, "solver": name, "iteration": i, "seconds": s, "relative_excess": e}
                | {"fitted_log10_factor": slope if np.isfinite(slope) else None, "fitted_error": error}
                for i, s, e in found
            ]
    write(given.out, "convergence_rate", rows, draw(traces))


if __name__ == "__main__":
    main()
