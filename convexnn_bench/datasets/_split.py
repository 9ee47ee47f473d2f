"""Choose the held-out samples of a data set.

Every class keeps its share in both parts.
"""

import numpy as np

from convexnn_bench.errors import InputError
from convexnn_bench.labels import class_numbers, index_labels
from convexnn_bench.plugins import SEED, Number

SHARE = Number(low=0.0, high=1.0)  # share of the samples that are held out
STREAM = 1  # with the seed, it names a stream of random numbers from which no data set draws


def held_out_rows(Y: np.ndarray, test: float, seed: int, loss_takes_labels: bool) -> tuple[np.ndarray, str]:
    """Return a mask of the held-out samples, and a sentence that says how they were chosen.

    Parameters
    ----------
    Y : array, n x ...
        The targets, as the data set has them.
    test : float
        Share of the samples, between 0 and 1.
    seed : int
        Seed of the choice.
    loss_takes_labels : bool
        Whether one column of targets holds labels of any kind, and not numbers.

    Raises
    ------
    InputError
        The share or the seed is not allowed, a part would have no sample, or a class would have no training sample.

    Notes
    -----
    round(test n) samples are held out. If each target states a class, test m of the m samples of a class are held out,
    rounded down or up and at most m - 1, so that every class of the data occurs in the training part.
    """
    SHARE.check("test", test)
    SEED.check("test_seed", seed)
    n = len(Y)
    wanted = round(test * n)
    if not 0 < wanted < n:
        part = "held-out" if wanted <= 0 else "training"
        raise InputError(
            f"test={test!r} of {n} samples leaves no {part} sample: change the share, or take more samples"
        )
    strata = _classes(Y, loss_takes_labels)
    sizes = np.bincount(strata)
    most = int((sizes - 1).sum())
    if wanted > most:
        raise InputError(
            f"test={test!r} of {n} samples in {len(sizes)} classes would leave a class without a training sample: at "
            f"most {most} samples can be held out, which is a share of {most / n:.3g}"
        )
    # 1. Number the samples of each class in random order. The order does not depend on the share.
    order = np.random.default_rng((seed, STREAM)).permutation(n)
    # 2. Take the first ones of each class.
    rows = np.zeros(n, dtype=bool)
    for number, taken in enumerate(_shares(sizes, test, wanted)):
        rows[order[strata[order] == number][:taken]] = True
    kept = ", so that every class keeps its share" if len(sizes) > 1 else ""
    return rows, f"{wanted} of {n} samples, drawn with seed {seed}{kept}, are held out for test scores."


def _classes(Y: np.ndarray, loss_takes_labels: bool) -> np.ndarray:
    """Return the class number of each sample; 0 for all samples that state no class."""
    columns = Y[:, None] if Y.ndim == 1 else Y
    numbers = class_numbers(columns) if columns.ndim == 2 else None
    if numbers is None and loss_takes_labels and columns.ndim == 2 and columns.shape[1] == 1:
        labels, numbers = index_labels(columns[:, 0])
        # If no label repeats, they are measured values, which the problem refuses.
        numbers = numbers if len(labels) < len(Y) else None
    if numbers is None:
        return np.zeros(len(Y), dtype=np.int64)
    # Renumber the classes, because a column of a one-hot matrix may have no sample.
    return np.unique(numbers, return_inverse=True)[1].reshape(-1)


def _shares(sizes: np.ndarray, test: float, wanted: int) -> np.ndarray:
    """Return the number of held-out samples of each class, `wanted` in total, by largest remainders."""
    exact = sizes * test
    taken = np.minimum(np.floor(exact).astype(np.int64), sizes - 1)
    # In each step, one more sample is held out of the class that is furthest below its share and has one to spare.
    while taken.sum() < wanted:
        short = np.where(taken < sizes - 1, exact - taken, -np.inf)
        taken[int(np.argmax(short))] += 1
    return taken
