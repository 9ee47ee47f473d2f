"""What a stage looks like and how it is trained.

A plan checks its values when it is made.
"""

from dataclasses import dataclass
from typing import Any

import torch

from convexnn_bench.datasets import number, one_of, whole
from convexnn_bench.errors import InputError

PRECISIONS = ("float32", "float64", "bfloat16")
FORMS = ("factors", "blocks")
AUGMENTATIONS = ("none", "crop", "crop_flip")


@dataclass(frozen=True)
class StagePlan:
    """One stage of the network.

    Parameters
    ----------
    gates : int
        P, the number of fixed random convolutions. Each is a block of the convex program.
    m : int
        Columns of a block, which are the trained maps of a gate.
    kernel : int
        Odd side of the filters. Zeros are padded, so that maps keep their sides.
    pool : int
        a, the side of the grid to which maps are averaged, a divisor of their sides.
    downsample : bool
        Whether an invertible space-to-depth comes before the stage. It halves the sides and takes four times the
        channels.
    """

    gates: int = 32
    m: int = 1
    kernel: int = 3
    pool: int = 4
    downsample: bool = False

    def __post_init__(self) -> None:
        for name in ("gates", "m", "kernel", "pool"):
            object.__setattr__(self, name, whole(f"stage: {name}", getattr(self, name), 1))
        if self.kernel % 2 == 0:
            raise InputError(f"stage: kernel must be odd, so that maps keep their sides, got {self.kernel}")
        one_of("stage: downsample", self.downsample, (True, False))


@dataclass(frozen=True)
class Training:
    """How every stage is trained: minibatch descent on F/n + beta/(2n) (||U||^2 + ||V||^2).

    Parameters
    ----------
    epochs : int
        Epochs of each stage.
    batch : int
        Samples in each step.
    rate, last_rate : float
        Step size of the first epoch; it falls linearly to `last_rate` times itself.
    momentum : float
        Momentum of SGD.
    optimizer : str
        "adam" or "sgd". Weight decay is part of the objective, not of the optimizer.
    augment : str
        "none", "crop" (shifts by up to an eighth of the side) or "crop_flip" (shifts and mirror images).
    precision : str
        "float32", "float64", or "bfloat16" for the convolutions alone. Certificates are always computed in float64.
    certify_every : int
        Epochs from one certificate to the next; the last epoch always has one.
    form : str
        "factors", or "blocks": the baseline that trains the matrices Z_k = U_k V_k^T themselves, from zero, with plain
        weight decay beta/(2n) ||Z||^2 in the place of the nuclear norm. "bfloat16" leaves blocks in float32, because
        they have no convolution.
    """

    epochs: int = 15
    batch: int = 100
    rate: float = 0.005
    last_rate: float = 0.01
    momentum: float = 0.9
    optimizer: str = "adam"
    augment: str = "none"
    precision: str = "float32"
    certify_every: int = 1
    form: str = "factors"

    @property
    def dtype(self) -> torch.dtype:
        """Precision of factors and maps."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def mixed(self) -> bool:
        """Whether convolutions run in bfloat16."""
        return self.precision == "bfloat16"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "certify_every"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1))
        for name in ("rate", "last_rate"):
            object.__setattr__(self, name, number(name, getattr(self, name), 1e-12))
        if not 0 <= number("momentum", self.momentum) < 1:
            raise InputError(f"momentum must be at least 0 and below 1, got {self.momentum}")
        one_of("optimizer", self.optimizer, ("adam", "sgd"))
        one_of("augment", self.augment, AUGMENTATIONS)
        one_of("precision", self.precision, PRECISIONS)
        one_of("form", self.form, FORMS)


def check_stages(stages: Any, shape: tuple[int, ...]) -> tuple[StagePlan, ...]:
    """Return the plans as a tuple.

    Raise InputError if they do not fit images of channels x height x width.
    """
    if isinstance(stages, StagePlan) or not all(isinstance(stage, StagePlan) for stage in stages) or not stages:
        raise InputError(f"stages must be a list of StagePlan, at least one, got {stages!r:.100}")
    # Kernels are odd and padded, so that only `downsample` changes the sides.
    _, height, width = shape
    for position, stage in enumerate(stages, start=1):
        if stage.downsample:
            if height % 2 or width % 2:
                raise InputError(f"stage {position}: downsample needs even sides, its maps are {height} x {width}")
            height, width = height // 2, width // 2
        if height % stage.pool or width % stage.pool:
            sides = f"{height} x {width}"
            raise InputError(f"stage {position}: pool must divide the sides of its maps, {sides}, got {stage.pool}")
    return tuple(stages)
