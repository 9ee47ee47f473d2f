"""How far from the optimum minibatch training stops.

The first stage is also solved exactly, on a part of the data.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from convexnn_bench.layerwise.plans import StagePlan, Training
from convexnn_bench.layerwise.run import train_layerwise
from convexnn_bench.running import solve

GAP, TIME_LIMIT = 1e-4, 120.0  # relative gap and seconds at which the exact solver stops


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
    """Train one stage on a few images in minibatches, and solve it by `semismooth_newton`.

    Both solve the same convex program, with the same gates, scale and beta = beta_fraction times its beta_max. Training
    takes about as many steps as a stage does on all the data.

    Parameters
    ----------
    X, Y : np.ndarray
        All images and labels, of which `images` are drawn with the seed.
    plan, training, beta_fraction, seed, device
        As in `train_layerwise`.
    images : int
        Number of images.

    Returns
    -------
    dict
        n, beta; the exact objective, lower_bound, gap, status and seconds; trained_objective, trained_seconds and
        trained_gap (by training's certificate); above, the relative distance of training's objective to the best bound.
    """
    chosen = np.random.default_rng(seed).permutation(len(X))[:images]
    n = len(chosen)
    # The number of steps stays about the same: epochs times the number of batches, which is rounded up, as in -(-a //
    # b).
    epochs = max(1, round(training.epochs * -(-len(X) // training.batch) / -(-n // training.batch)))
    # Both methods must solve the same program. Augmentation would change its samples, and blocks its objective.
    how = replace(training, epochs=epochs, certify_every=epochs, augment="none", form="factors")
    result = train_layerwise(
        X[chosen], Y[chosen], [plan], how, beta_fraction=beta_fraction, seed=seed, device=device, show_progress=False
    )
    trained, stage = result.stages[0], result.network.stages[0]
    maps = torch.as_tensor(X[chosen], dtype=torch.float32, device=stage.gates.device)  # in the precision of training
    started = time.perf_counter()
    problem = stage.problem(maps, Y[chosen], "cross_entropy", trained["beta"])
    exact = solve(problem, "semismooth_newton", gap=GAP, time_limit=TIME_LIMIT)
    certificate = exact.certificate
    assert certificate is not None
    # Both lower bounds are proven for the same program, so that the larger one holds.
    low = max(certificate.dual, trained["lower_bound"])
    return {
        "n": n, "beta": trained["beta"], "objective": certificate.primal, "lower_bound": certificate.dual,
        "gap": certificate.gap, "status": exact.status, "seconds": time.perf_counter() - started,
        "trained_objective": trained["objective"], "trained_gap": trained["gap"], "trained_seconds": trained["seconds"],
        "above": trained["objective"] / low - 1 if low > 0 else None,
    }  # fmt: skip
