"""How the proven gap of two ordinary torch networks shrinks while they are trained.

    python benchmarks/certify_training.py [--steps 2000]

breast_cancer: 569 x 30 standardised, 20 hidden neurons, biases, binary cross-entropy (summed), weight decay 5.
digits: three classes, 537 x 16 (2 x 2 averages of the 8 x 8 images), 20 hidden neurons, biases, cross-entropy (summed),
weight decay 2. Both: Adam(lr=0.01, weight_decay=...) on all parameters, full batch, float64, one thread, learning rate
divided by ten after half and after three quarters of the steps.

best bound: the largest lower bound so far. All of them bound the same optimum, so that its gap is proven as well.
"""

import argparse
import time

import numpy as np
import torch

import convexnn_bench as cnn

COLUMNS = {
    "step": 6,
    "objective": 9,
    "lower bound": 11,
    "gap": 8,
    "best bound": 10,
    "its gap": 8,
    "norm/beta": 18,
    "seconds": 7,
}


def breast_cancer() -> tuple[np.ndarray, np.ndarray, str, float]:
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    X = (source.data - source.data.mean(axis=0)) / source.data.std(axis=0)
    return X, source.target[:, None], "logistic", 5.0


def digits() -> tuple[np.ndarray, np.ndarray, str, float]:
    from sklearn.datasets import load_digits

    source = load_digits(n_class=3)
    X = source.images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16) / 16
    return X, source.target, "cross_entropy", 2.0


def train(name: str, X: np.ndarray, Y: np.ndarray, loss: str, weight_decay: float, steps: int) -> None:
    """Train one network and print its certificate at growing numbers of steps."""
    torch.manual_seed(0)
    given = cnn.LOSSES.make(loss)
    rows = torch.as_tensor(given.prepare_targets(2.0 * Y - 1.0 if loss == "logistic" else Y))
    hidden = torch.nn.Linear(X.shape[1], 20)
    module = torch.nn.Sequential(hidden, torch.nn.ReLU(), torch.nn.Linear(20, rows.shape[1])).double()
    inputs = torch.as_tensor(X)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [steps // 2, 3 * steps // 4])
    shown = [0, 20, 100, steps // 4, steps // 2, steps]
    print(f"\n{name}: n={len(X)}, d={X.shape[1]}, {loss}, weight decay {weight_decay:g}")
    print("  ".join(f"{title:>{width}}" for title, width in COLUMNS.items()))
    best = 0.0
    for step in range(steps + 1):
        if step in shown:
            started = time.perf_counter()
            report = cnn.certify_module(module, X, Y, loss, weight_decay)
            seconds = time.perf_counter() - started
            certificate = report.certificate
            norm = f"{certificate.dual_norm_lower / report.beta:.4f} .. {certificate.max_dual_norm / report.beta:.4f}"
            best = max(best, report.dual)
            values = f"{report.primal:9.4f}  {report.dual:11.4f}  {100 * report.gap:6.1f} %"
            values += f"  {best:10.4f}  {100 * (report.primal / best - 1):6.1f} %"
            print(f"{step:6d}  {values}  {norm:>18}  {seconds:7.2f}", flush=True)
        optimiser.zero_grad()
        given.value(module(inputs), rows).backward()
        optimiser.step()
        schedule.step()
    print(report.certificate.dual_norm_method)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="of Adam")
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    train("breast_cancer", *breast_cancer(), steps)
    train("digits, three classes", *digits(), steps)


if __name__ == "__main__":
    main()
