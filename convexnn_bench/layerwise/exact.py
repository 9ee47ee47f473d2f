"""How far minibatch training stops from the optimum: the first stage on a part of the data, solved exactly too."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from convexnn_bench.layerwise.plans import StagePlan, Training
from convexnn_bench.layerwise.run import train_layerwise
from convexnn_bench.running import solve

GAP, TIME_LIMIT = 1e-4, 120.0  # of the exact solver


def exact_stage(
    X: np.ndarray,
    Y: np.ndarray,
    plan: StagePlan,
    training: Training,
    beta_fraction: float,
    images: int,
    seed: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """One stage on `images` images drawn with the seed: trained in minibatches, and solved by `semismooth_newton`.

    Both are the same convex program: gates, scale and beta = beta_fraction times its beta_max. Training takes about as
    many steps as a stage does on all the data. Returns n, beta, the exact objective, lower_bound, gap, status and
    seconds, and of training trained_objective, trained_gap (its own certificate's), trained_seconds and above: the
    relative distance of its objective to the best proven lower bound.
    """
    chosen = np.random.default_rng(seed).permutation(len(X))[:images]
    n = len(chosen)
    epochs = max(1, round(training.epochs * -(-len(X) // training.batch) / -(-n // training.batch)))
    how = replace(training, epochs=epochs, certify_every=epochs, augment="none", form="factors")
    result = train_layerwise(
        X[chosen], Y[chosen], [plan], how, beta_fraction=beta_fraction, seed=seed, device=device, show_progress=False
    )
    told, stage = result.stages[0], result.network.stages[0]
    maps = torch.as_tensor(X[chosen], dtype=torch.float32, device=stage.gates.device)  # as training reads them
    started = time.perf_counter()
    problem = stage.problem(maps, Y[chosen], "cross_entropy", told["beta"])
    found = solve(problem, "semismooth_newton", gap=GAP, time_limit=TIME_LIMIT)
    certificate = found.certificate
    assert certificate is not None
    low = max(certificate.dual, told["lower_bound"])
    return {
        "n": n, "beta": told["beta"], "objective": certificate.primal, "lower_bound": certificate.dual,
        "gap": certificate.gap, "status": found.status, "seconds": time.perf_counter() - started,
        "trained_objective": told["objective"], "trained_gap": told["gap"], "trained_seconds": told["seconds"],
        "above": told["objective"] / low - 1 if low > 0 else None,
    }  # fmt: skip
