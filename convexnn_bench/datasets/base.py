"""The interface of a data set: arrays X and Y, and the problem that they are meant for.

Nothing is normalised silently. Every transformation of the data is a named parameter of the data set, with a
default that is recorded with the results. If a part of the samples is held out, transformations use the means and
deviations of the training part.
"""

import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from convexnn_bench.datasets._split import held_out_rows
from convexnn_bench.errors import InputError
from convexnn_bench.plugins import LOSSES, YES_OR_NO, Choice, Number, Whole, check_names, importable

if TYPE_CHECKING:
    from convexnn_bench.losses import BaseLoss

TARGETS = ("one_hot", "signs", "binary")


@dataclass(frozen=True)
class Data:
    """Samples, targets and the problem that they are meant for.

    X: n x d samples. Y: n or n x c targets, as the default loss expects them. defaults: keyword arguments of `Problem`
    (loss, activation, beta_fraction, patterns, ...) for those that the caller leaves out. classes: the labels in the
    order of the outputs, where Y was made from labels. notes: what was decided when the data were read.

    standardize, standardize_targets: whether the columns of X, or of Y, will be standardised to mean 0 and standard
    deviation 1. bias: whether X will get a last column of ones after that. `BaseDataset.data` and `BaseDataset.split`
    do both. `split` uses the means and deviations of the training part alone.
    """

    X: np.ndarray
    Y: np.ndarray
    defaults: dict[str, Any] = field(default_factory=dict)
    classes: tuple[Any, ...] | None = None
    notes: tuple[str, ...] = ()
    standardize: bool = False
    standardize_targets: bool = False
    bias: bool = False

    def __post_init__(self) -> None:
        for name in ("standardize", "standardize_targets", "bias"):
            YES_OR_NO.check(name, getattr(self, name))


@dataclass(frozen=True)
class Samples:
    """Samples X (n x d or n x ..., float64), targets y, and notes.

    Targets are as in their source: numbers or words, n or n x c.
    """

    X: np.ndarray
    y: np.ndarray
    notes: tuple[str, ...]


class BaseDataset:
    """One data set.

    A subclass defines `name` and `load`, with a default for every parameter.

    Every data set can be split: `make_problem` takes `test`, the share of the samples that is held out. `load` does not
    split. It returns all samples without changes, and asks by `Data(standardize=True, bias=True)` for changes that are
    made after the split. A `load` that standardises by itself would let the held-out samples influence the training.

    Parameters
    ----------
    **given
        Values for names in `parameters`; every other name keeps its default.

    Attributes
    ----------
    name : str
        Registered name.
    summary : str
        One line for `convexnn-bench list`.
    parameters : dict
        Parameter -> default, read off the signature of `load` unless the class declares it.
    requires : tuple of str, optional
        Import name of a package that is no dependency, and how to install it.

    Raises
    ------
    InputError
        A parameter is unknown.
    """

    name: str
    summary: str = ""
    parameters: dict[str, Any] = {}
    requires: tuple[str, str] | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        # The signature of `load` is the only place where names and defaults stand. Its first parameter is self.
        if "parameters" not in vars(cls) and "load" in vars(cls):
            signature = list(inspect.signature(cls.load).parameters.values())[1:]
            cls.parameters = {
                p.name: (None if p.default is p.empty else p.default)
                for p in signature
                if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            }

    def __init__(self, **given: Any):
        check_names(f"data set {self.name!r}", given, self.parameters)
        self.given = given

    @classmethod
    def unavailable(cls) -> str | None:
        """Return what is missing on this machine, or None.

        The words are such that a user can act on them.
        """
        if cls.requires is not None and not importable(cls.requires[0]):
            return f"needs the package {cls.requires[0]}: {cls.requires[1]}"
        return None

    def load(self, *_: Any, **parameters: Any) -> Data:
        """Return the data for these parameters.

        Raise InputError for a value that is not allowed.
        """
        raise TypeError(f"{type(self).__name__} must define load")

    def data(self) -> Data:
        """Return what `load` returns for the constructor's parameters.

        Raise InputError if the data set is missing.
        """
        return self._prepared(self._loaded())

    def split(self, test: float, seed: int = 0, loss: "str | BaseLoss | None" = None) -> tuple[Data, Data]:
        """Return the training part and the held-out part of the data.

        Parameters
        ----------
        test : float
            Share of the samples that is held out, between 0 and 1.
        seed : int
            Seed of the split. Other draws with the same seed do not change the split.
        loss : str or BaseLoss, optional
            The loss of the targets, by default that of the data set. It decides whether a column contains labels.

        Raises
        ------
        InputError
            The data set is missing, or too small for this split.

        Notes
        -----
        If the targets are classes, every class keeps its share in both parts, and occurs in the training part.
        """
        data = self._loaded()
        n = data.X.shape[0]
        if n != len(data.Y):
            raise InputError(
                f"test={test!r} needs targets with one index for each of {n} samples in the first axis, got "
                f"shape {data.Y.shape}"
            )
        labels = LOSSES.make(data.defaults.get("loss", "squared") if loss is None else loss).labels
        rows, how = held_out_rows(data.Y, test, seed, labels is not None)
        if data.standardize or data.standardize_targets:
            how = f"{how} Means and standard deviations are those of the training samples."
        defaults = dict(data.defaults)
        if defaults.get("sample_weight") is not None:
            defaults["sample_weight"] = np.asarray(defaults["sample_weight"])[~rows]
        notes = (*data.notes, how)
        training = replace(data, X=data.X[~rows], Y=data.Y[~rows], defaults=defaults, notes=notes)
        rest = replace(training, X=data.X[rows], Y=data.Y[rows])
        return self._prepared(training), self._prepared(rest, training)

    def _loaded(self) -> Data:
        missing = self.unavailable()
        if missing:
            raise InputError(f"data set {self.name!r} is not available: {missing}")
        return self.load(**{**self.parameters, **self.given})

    @staticmethod
    def _prepared(data: Data, training: Data | None = None) -> Data:
        """Return the data with the changes that they ask for, by means and deviations of the training data."""
        by = data if training is None else training
        if (data.standardize or data.bias) and not isinstance(data.X, np.ndarray):
            raise InputError(f"standardize and bias need X as a dense array, got a {type(data.X).__name__}")
        X = standard_columns(data.X, by.X) if data.standardize else data.X
        Y = standard_columns(data.Y, by.Y) if data.standardize_targets else data.Y
        return Data(with_bias(X) if data.bias else X, Y, data.defaults, data.classes, data.notes)

    def samples(self) -> Samples:
        """Return the samples, with targets that may not be encoded for a loss yet."""
        data = self.data()
        return Samples(data.X, data.Y, data.notes)

    def fingerprint(self) -> str | None:
        """Return a hash of data outside the package, None for a built-in data set.

        Data outside the package may change.
        """
        return None


def whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return `value` as int.

    Raise InputError unless it is a whole number from `low` to `high`.
    """
    checked: int = Whole(low, high=high).check(name, value)
    return checked


def number(name: str, value: Any, low: float = -np.inf) -> float:
    """Return `value` as float.

    Raise InputError unless it is a finite number, at least `low`.
    """
    checked: float = Number(low, closed=True).check(name, value)
    return checked


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """Return `value`. Raise InputError unless it is one of `allowed`."""
    return Choice(allowed).check(name, value)


def generator(seed: Any) -> np.random.Generator:
    """Return numpy's default generator.

    Raise InputError for a seed that is no whole number >= 0.
    """
    return np.random.default_rng(whole("seed", seed, 0))


def subset(n: Any, available: int, seed: Any) -> np.ndarray:
    """Return the indices of n random samples in random order; of all samples, in their order, for n=None."""
    if n is None:
        return np.arange(available)
    # All samples are permuted whatever n is, so that a smaller subset begins a larger one of the same seed.
    return generator(seed).permutation(available)[: whole("n", n, 2, available)]


def class_targets(labels: np.ndarray, targets: str, positive: int = 0) -> tuple[np.ndarray, str]:
    """Return targets (n x c) and the loss that fits, from class numbers 0..c-1.

    "one_hot": 0/1 columns, cross_entropy. "signs": the same with -1/1 (one class against the rest), logistic.
    "binary": one column, +1 for class `positive` and -1 for all others, logistic.
    """
    one_of("targets", targets, TARGETS)
    if targets == "binary":
        return np.where(labels == positive, 1.0, -1.0)[:, None], "logistic"
    # Every number up to the largest gets a column, also a class that the subset happens to miss.
    one_hot = np.eye(int(labels.max()) + 1)[labels]
    return (one_hot, "cross_entropy") if targets == "one_hot" else (2 * one_hot - 1, "logistic")


def standard_columns(X: Float[np.ndarray, "n d"], by: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n d"]:
    """Return (X - mean) / deviation with the columns' numbers of `by`.

    A deviation of 0 counts as 1.
    """
    spread = by.std(axis=0)
    standard: np.ndarray = (X - by.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return standard


def with_bias(X: Float[np.ndarray, "n d"]) -> np.ndarray:
    """Return X with a last column of ones, so that the first layer has a bias."""
    return np.hstack([X, np.ones((X.shape[0], 1))])


def table(features: np.ndarray, n: Any, seed: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of n random samples as float64, and the samples' indices."""
    kept = subset(n, len(features), seed)
    return np.asarray(features[kept], dtype=np.float64), kept


def average_pool(images: Float[np.ndarray, "n side side"], pool: int) -> np.ndarray:
    """Return means over pool x pool squares, n x (side / pool)^2, row by row."""
    n, side, _ = images.shape
    # Axes 2 and 4 run within a square, axes 1 and 3 over the squares.
    small: np.ndarray = images.reshape(n, side // pool, pool, side // pool, pool).mean(axis=(2, 4))
    return small.reshape(n, -1)
