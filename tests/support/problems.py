"""Random small problems, of every loss and activation."""

import numpy as np

import convexnn_bench as cnn

LOSS_NAMES = ("squared", "cross_entropy", "logistic", "squared_hinge", "huber")


def targets(loss: str, n: int, c: int, rng: np.random.Generator) -> np.ndarray:
    """Random targets that fit a loss; cross-entropy gets at least two classes."""
    if loss == "cross_entropy":
        return np.eye(max(c, 2))[rng.integers(max(c, 2), size=n)]
    if loss in ("logistic", "squared_hinge"):
        return rng.choice([-1.0, 1.0], size=(n, c))
    return rng.standard_normal((n, c)) * 2


def random_problem(
    seed: int = 0,
    loss: str = "squared",
    activation: str = "gated_relu",
    n: int = 9,
    d: int = 3,
    c: int = 2,
    beta_fraction: float = 0.1,
    patterns=4,
) -> "cnn.Problem":
    """A small problem with Gaussian data. Scalar outputs for ReLU where the loss allows."""
    rng = np.random.default_rng(seed)
    c = 1 if activation == "relu" else c
    Y = targets(loss, n, c, rng)
    return cnn.Problem(
        rng.standard_normal((n, d)),
        Y,
        activation=activation,
        loss=loss,
        beta_fraction=beta_fraction,
        patterns=patterns,
        seed=seed,
    )


def combinations() -> list[tuple[str, str]]:
    """Every loss with every activation that this version covers (cross-entropy has vector outputs)."""
    return [
        (loss, activation)
        for loss in LOSS_NAMES
        for activation in ("linear", "gated_relu", "relu")
        if not (activation == "relu" and loss == "cross_entropy")
    ]
