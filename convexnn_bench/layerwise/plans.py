"""What a stage looks like and how it is trained; every value is checked when it is given."""

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
    """One stage.

    gates: P, fixed random convolutions, each a block of the convex program. m: columns of a block, trained maps a gate.
    kernel: odd side of the filters (zeros are padded, so that maps keep their sides). pool: a, the side of the grid
    that maps are averaged to, a divisor of their sides. downsample: an invertible space-to-depth before the stage,
    which halves the sides and takes four times the channels.
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
    """How every stage is trained: minibatches of F/n + beta/(2n) (||U||^2 + ||V||^2), weight decay in the objective.

    epochs: of each stage. batch: samples a step. rate: of the first step; falls linearly to `last_rate` times itself.
    momentum: of SGD. optimizer: "adam" or "sgd". augment: "none", "crop" (shifts by up to an eighth of the side) or
    "crop_flip" (and mirror images). precision: of training, "float32", "float64", or "bfloat16" for the
    convolutions alone; certificates are float64 whatever this says. certify_every: epochs from one certificate to the
    next; the last epoch always has one. form: "factors", or "blocks", the baseline that trains the matrices
    Z_k = U_k V_k^T themselves, from zero, with plain weight decay beta/(2n) ||Z||^2 in the place of the nuclear norm;
    bfloat16 leaves these in float32, for they have no convolution.
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
        """Of factors and maps."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def mixed(self) -> bool:
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
    """The plans as a tuple. Raises InputError where they do not fit images of this shape (channels, height, width)."""
    if isinstance(stages, StagePlan) or not all(isinstance(stage, StagePlan) for stage in stages) or not stages:
        raise InputError(f"stages must be a list of StagePlan, at least one, got {stages!r:.100}")
    _, height, width = shape
    for number_, stage in enumerate(stages, start=1):
        if stage.downsample:
            if height % 2 or width % 2:
                raise InputError(f"stage {number_}: downsample needs even sides, its maps are {height} x {width}")
            height, width = height // 2, width // 2
        if height % stage.pool or width % stage.pool:
            sides = f"{height} x {width}"
            raise InputError(f"stage {number_}: pool must divide the sides of its maps, {sides}, got {stage.pool}")
    return tuple(stages)
