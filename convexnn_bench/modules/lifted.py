"""A torch module for any architecture and activation.

It uses the maps that the architecture defines.
"""

import numpy as np
import torch

from convexnn_bench.activations import BaseActivation
from convexnn_bench.architectures import BaseArchitecture


class ArchitectureNetwork(torch.nn.Module):
    """The network C(sigma(Phi W1) W2^T) + b of any architecture.

    It serves architectures and activations that have no layers of torch. Its parameters are W1 (p x neurons), W2
    (q x neurons) and, with an output bias, `bias` (c).

    Parameters
    ----------
    architecture : BaseArchitecture
        It makes Phi and C of each batch. For an export, its maps must use torch alone.
    activation : BaseActivation
        The activation sigma.
    p, q, neurons : int
        Columns of Phi, length of a second-layer vector, and number of neurons.
    sample_shape : tuple
        The shape of a sample's outputs, (c,) or (s, c).
    bias : bool
        Whether the outputs have a bias.

    Attributes
    ----------
    gates : buffer, p x neurons, or None
        The fixed gate of each neuron, if the activation has gates. See `GatedMLP`.

    Examples
    --------
    >>> import torch
    >>> import convexnn_bench as cnn
    >>> ArchitectureNetwork(cnn.MLP(), cnn.ReLU(), p=3, q=2, neurons=4, sample_shape=(2,))(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    gates: torch.Tensor | None

    def __init__(
        self,
        architecture: BaseArchitecture,
        activation: BaseActivation,
        p: int,
        q: int,
        neurons: int,
        sample_shape: tuple[int, ...],
        bias: bool = False,
    ):
        super().__init__()
        self.architecture, self.activation, self.sample_shape = architecture, activation, tuple(sample_shape)
        self.W1 = torch.nn.Parameter(torch.randn(p, neurons) / float(np.sqrt(p)))
        self.W2 = torch.nn.Parameter(torch.randn(q, neurons) / float(np.sqrt(neurons)))
        self.bias = torch.nn.Parameter(torch.zeros(sample_shape[-1])) if bias else None
        self.register_buffer("gates", torch.randn(p, neurons) if activation.has_gates else None)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        H = self.architecture.first_layer(self.W1, X)
        masks = H[:, :0]
        if self.gates is not None:
            masks = (self.architecture.first_layer(self.gates, X) >= 0).to(H.dtype)
        outputs = self.architecture.combine(self.activation.apply(H, masks), self.W2, X, self.sample_shape[-1])
        outputs = outputs if self.bias is None else outputs + self.bias
        return outputs.reshape(-1, *self.sample_shape)
