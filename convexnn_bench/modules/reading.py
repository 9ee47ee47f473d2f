"""A torch module read as a two-layer network: architecture, activation, weights, biases."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from convexnn_bench.architectures import MLP, BaseArchitecture


@dataclass(frozen=True)
class Reading:
    """A module as a network of a problem.

    architecture, activation: those of the problem. W1 (p x M), W2 (q x M): the weights; with `first_bias` the last row
    of W1 is the biases of the first layer, which are weights of a constant feature. output_bias: that of the second
    layer (c), or None. sample: the shape that the module gives to each sample first, (-1,) where it flattens them, or
    None. words: a description for the user. head: "sigmoid" or "log_softmax" where the module ends in that function,
    which then belongs to its loss: W1 and W2 give the values before it. notes: what else a user should know.
    parameters: the names in the module of "first.weight", "first.bias", "second.weight" and "second.bias", as far as it
    has them; empty for TorchScript, whose layers are recognised by their sizes.
    """

    architecture: BaseArchitecture
    activation: str
    W1: np.ndarray
    W2: np.ndarray
    first_bias: bool
    output_bias: np.ndarray | None
    sample: tuple[int, ...] | None
    words: str
    head: str | None = None
    notes: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)

    def samples(self, X: np.ndarray) -> np.ndarray:
        """Return X in the shape that the module gives to it first."""
        return X if self.sample is None else X.reshape(len(X), *self.sample)

    def data(self, X: np.ndarray) -> np.ndarray:
        """Return X as the problem takes it.

        It is reshaped, and has the constant feature, where the module has them.
        """
        X = self.samples(X)
        if self.first_bias and isinstance(self.architecture, MLP):
            X = np.hstack([X, np.ones((len(X), 1))])
        return X

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the network that was read, n_out x c."""
        return self.outputs_of(self.data(X))

    def outputs_of(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs, n_out x c, for data as the problem takes them."""
        data = torch.as_tensor(inputs)
        H = self.architecture.first_layer(torch.as_tensor(self.W1), data)
        H = H.clamp_min(0) if self.activation == "relu" else H
        bias = 0.0 if self.output_bias is None else self.output_bias
        return self.architecture.combine(H, torch.as_tensor(self.W2), data, self._c(inputs)).numpy() + bias

    def outputs(self, X: np.ndarray) -> int:
        """Return c, the number of outputs in a row of the predictions."""
        return self._c(self.data(X))

    def _c(self, inputs: np.ndarray) -> int:
        return int(self.W2.shape[0] // self.architecture.width_out(inputs, 1))
