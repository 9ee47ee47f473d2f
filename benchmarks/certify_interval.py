"""How narrow the interval of the optimum becomes that `certify_module` proves for ordinary torch networks.

    python benchmarks/certify_interval.py [--seconds 5 20 60] [--only breast_cancer] [--runs 1]

breast_cancer and digits: the networks of benchmarks/certify_training.py after 2000 steps of Adam. teacher: n = 1000,
d = 20, three classes of a random network's outputs, width 64, mean cross-entropy, weight decay 1e-3. noise: 800 x 16,
three classes, half of the labels random, width 48, 1500 steps of Adam, weight decay 2e-3 on the mean. cnn: 8 x 8 images
of four digits, eight filters. head: 512 random ReLU features of breast_cancer, 200 samples.

width: (high - low) / low of `report.optimum`, in the first line the gap of the single bound, without a time limit. The
part of the width before that is the network's is the excess, "at least above".
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import certify_training
import numpy as np
import torch
from torch import nn

import convexnn_bench as cnn
from convexnn_bench.deadline import deadline

LONGEST = 50.0  # seconds of the clock for each second of the processor


@dataclass
class Case:
    """A module with its training data and objective."""

    module: nn.Module
    X: np.ndarray
    Y: np.ndarray
    loss: str
    decay: float
    reduction: str = "sum"


def trained(case: Case, steps: int, rate: float = 0.01) -> Case:
    """Train the module by Adam with weight decay on all parameters, the rate divided by ten twice."""
    given = cnn.LOSSES.make(case.loss)
    Y = 2.0 * case.Y - 1.0 if case.loss == "logistic" else case.Y
    rows, inputs = torch.as_tensor(given.prepare_targets(Y)), torch.as_tensor(case.X)
    divisor = len(inputs) if case.reduction == "mean" else 1
    optimiser = torch.optim.Adam(case.module.parameters(), lr=rate, weight_decay=case.decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [steps // 2, 3 * steps // 4])
    for _ in range(steps):
        optimiser.zero_grad()
        (given.value(case.module(inputs).reshape(rows.shape), rows) / divisor).backward()
        optimiser.step()
        schedule.step()
    return case


def mlp(d: int, width: int, c: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, width), nn.ReLU(), nn.Linear(width, c)).double()


def of_the_readme(data: Callable[[], tuple[np.ndarray, np.ndarray, str, float]]) -> Case:
    X, Y, loss, decay = data()
    c = 1 if loss == "logistic" else int(Y.max()) + 1
    return trained(Case(mlp(X.shape[1], 20, c), X, Y, loss, decay), 2000)


def teacher() -> Case:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1000, 20))
    scores = np.maximum(X @ rng.standard_normal((20, 10)), 0) @ rng.standard_normal((10, 3))
    return trained(Case(mlp(20, 64, 3), X, scores.argmax(axis=1), "cross_entropy", 1e-3, "mean"), 1500)


def noise() -> Case:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((800, 16))
    labels = np.where(rng.random(800) < 0.5, X[:, :3].argmax(axis=1), rng.integers(3, size=800))
    return trained(Case(mlp(16, 48, 3), X, labels, "cross_entropy", 2e-3, "mean"), 1500)


def small_cnn() -> Case:
    from sklearn.datasets import load_digits

    source = load_digits(n_class=4)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(8, 4)).double()
    X, Y = source.images[:200, None] / 16, source.target[:200]
    return trained(Case(module, X, Y, "cross_entropy", 1.0), 1000)


def head() -> Case:
    X, Y, loss, _ = certify_training.breast_cancer()
    rng = np.random.default_rng(0)
    features = np.maximum(X[:200] @ rng.standard_normal((X.shape[1], 512)) / X.shape[1] ** 0.5, 0)
    return trained(Case(mlp(512, 32, 1), features, Y[:200], loss, 2.0), 1000)


CASES: dict[str, Callable[[], Case]] = {
    "breast_cancer": lambda: of_the_readme(certify_training.breast_cancer),
    "digits": lambda: of_the_readme(certify_training.digits),
    "teacher": teacher,
    "noise": noise,
    "cnn": small_cnn,
    "head": head,
}


def report_of(case: Case, seconds: float | None, of_processor: bool = False) -> tuple[cnn.ModuleReport, float, float]:
    """Return the report, and the seconds of the clock and of the processor that it took."""
    clock, processor = time.perf_counter(), time.process_time()
    limited = seconds is not None and of_processor
    limit = LONGEST * seconds if seconds is not None and limited else seconds
    with deadline(seconds if limited else None, time.process_time):
        report = cnn.certify_module(
            case.module, case.X, case.Y, case.loss, case.decay, reduction=case.reduction, time_limit=limit
        )
    return report, time.perf_counter() - clock, time.process_time() - processor


def measure(name: str, budgets: list[float], runs: int, of_processor: bool) -> None:
    """Print a line for the single bound and one for each budget, and the same as JSON."""
    case = CASES[name]()
    single, clock, processor = report_of(case, None)
    print(f"\n{name}: {single.network}; objective {single.primal:.6g}")
    print("  seconds  processor     low      high    width  at least above  at most above  neurons")
    ends = f"{single.dual:8.4f}  {single.primal:8.4f}"
    print(f"{clock:9.1f}  {processor:9.1f}  {ends}  {100 * single.gap:5.1f} %  (single bound)")
    for seconds in budgets:
        reports = [report_of(case, seconds, of_processor) for _ in range(runs)]
        width = statistics.median(each[0].width for each in reports)
        report, clock, processor = min(reports, key=lambda each: abs(each[0].width - width))
        low, high = report.optimum
        print(
            f"{clock:9.1f}  {processor:9.1f}  {low:8.4f}  {high:8.4f}  {100 * report.width:5.1f} %  "
            f"{100 * report.excess:12.2f} %  {100 * report.gap:11.2f} %  {report.better_neurons}",
            flush=True,
        )
        values = {"case": name, "limit": seconds, "clock": clock, "processor": processor, "single_gap": single.gap}
        print(json.dumps({**values, "low": low, "high": high, "width": report.width, "excess": report.excess}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 20.0, 60.0], help="time limits")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="cases")
    parser.add_argument("--runs", type=int, default=1, help="of which the median is taken")
    parser.add_argument(
        "--processor", action="store_true", help="limits are seconds of the processor, on a busy machine"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.only:
        measure(name, given.seconds, given.runs, given.processor)


if __name__ == "__main__":
    main()
