"""The images and targets of a layerwise run, checked."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from convexnn_bench.checks import check_array, check_scale
from convexnn_bench.errors import InputError
from convexnn_bench.labels import Targets
from convexnn_bench.layerwise.stage import Maps
from convexnn_bench.losses import BaseLoss, read_targets


@dataclass
class ImageData:
    """Images X, n x channels x height x width, float32, and targets Y, n x c.

    Targets are float64. test: another pair.
    """

    X: Maps
    Y: torch.Tensor
    test: tuple[Maps, torch.Tensor] | None = None

    def digest(self) -> str:
        """Return the SHA-256 of all numbers."""
        # A checkpoint stores this digest in place of the data, and refuses to go on with others.
        digest = hashlib.sha256()
        for tensor in (self.X, self.Y, *(self.test or ())):
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()


def check_data(loss: BaseLoss, X: Any, Y: Any, test: Any, device: str) -> ImageData:
    """Return the data on the device.

    Raise InputError for what are no images, and for shapes that do not fit.
    """
    images = _images("X", X)
    targets = read_targets(loss, Y)
    data = ImageData(_tensor(images, device), _target_rows("Y", targets, images).to(device))
    if test is not None:
        data.test = _test(loss, test, data, targets, device)
    return data


def _tensor(images: np.ndarray, device: str) -> Maps:
    return torch.as_tensor(images, dtype=torch.float32, device=device)


def _images(name: str, X: Any) -> np.ndarray:
    images = check_array(name, X)
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(f"{name} must be images, n x channels x height x width, got shape {images.shape}")
    check_scale(name, images)
    return images


def _target_rows(name: str, targets: Targets, images: np.ndarray) -> torch.Tensor:
    if len(targets.rows) != len(images):
        raise InputError(f"{name} must have a row for each of the {len(images)} images, got {len(targets.rows)}")
    return torch.as_tensor(targets.rows)


def _test(loss: BaseLoss, test: Any, data: ImageData, trained: Targets, device: str) -> tuple[Maps, torch.Tensor]:
    if not isinstance(test, tuple | list) or len(test) != 2:
        raise InputError("test must be a pair (X, Y)")
    images = _images("test X", test[0])
    if images.shape[1:] != data.X.shape[1:]:
        raise InputError(f"test X must have images of {tuple(data.X.shape[1:])}, got {images.shape[1:]}")
    # The labels of the test images belong to the outputs that the training labels have.
    read = read_targets(loss, test[1], outputs=data.Y.shape[1], classes=trained.classes)
    targets = _target_rows("test Y", read, images)
    if targets.shape[1] != data.Y.shape[1]:
        raise InputError(f"test Y must have {data.Y.shape[1]} outputs as Y has, got {targets.shape[1]}")
    return _tensor(images, device), targets.to(device)


def accuracy(z: torch.Tensor, Y: torch.Tensor) -> float:
    """Return the share of samples whose largest prediction (with one output: whose sign) is the target's."""
    # A single output has targets of two signs, and several outputs have the target's one at its class.
    right = (z > 0) == (Y > 0) if Y.shape[1] == 1 else z.argmax(dim=1) == Y.argmax(dim=1)
    return float(right.double().mean())
