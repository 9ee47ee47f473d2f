"""Gated ReLU networks as torch modules.

A gate g is a fixed direction. Its neuron is active on a row phi(x) if phi(x) g >= 0, and is then linear: it computes
1{phi(x) g >= 0} phi(x) u (Mishkin, Sahiner, Pilanci, ICML 2022). Gates are buffers: a state dict contains them, and no
optimiser changes them.
"""

from typing import Any

import torch

from convexnn_bench.modules.attention_block import AttentionBlock
from convexnn_bench.modules.pooling import pooling_layer


class GatedMLP(torch.nn.Module):
    """Two-layer gated ReLU network, f(x) = sum_j 1{x^T g_j >= 0} (x^T u_j) v_j + b.

    The vectors u_j are the rows of ``first.weight``, v_j the columns of ``second.weight``, and b is ``second.bias``.
    With hidden biases, x^T u_j + ``first.bias`` and x^T g_j + ``gate_biases`` take the places of x^T u_j and x^T g_j.

    Parameters
    ----------
    d : int
        Number of features.
    neurons : int
        Number of neurons. Neurons of one block of a problem have the same gate.
    c : int
        Number of outputs.
    bias : bool
        Whether the outputs have a bias b.
    hidden_bias : bool
        Whether neurons and gates have biases.

    Attributes
    ----------
    gates : buffer, neurons x d
        The fixed directions g_j, which are random until a state dict is loaded. The gates of `Result.to_torch` are
        those of the training problem's activation patterns. They decide which neurons are active, also on new data. A
        sample within rounding of a gate's hyperplane may have other active neurons in float32 than in float64.
    gate_biases : buffer, neurons, or None
        The biases of the gates.

    Examples
    --------
    >>> import torch
    >>> GatedMLP(d=3, neurons=4, c=2)(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    gates: torch.Tensor
    gate_biases: torch.Tensor | None

    def __init__(self, d: int, neurons: int, c: int, bias: bool = False, hidden_bias: bool = False):
        super().__init__()
        self.first = torch.nn.Linear(d, neurons, bias=hidden_bias)
        self.second = torch.nn.Linear(neurons, c, bias=bias)
        self.register_buffer("gates", torch.randn(neurons, d))
        self.register_buffer("gate_biases", torch.randn(neurons) if hidden_bias else None)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        active = torch.nn.functional.linear(X, self.gates, self.gate_biases) >= 0
        outputs: torch.Tensor = self.second(self.first(X) * active)
        return outputs


class GatedCNN(torch.nn.Module):
    """Gated ReLU convolution, linear pooling and a linear layer.

    Filter j is active on the patches on which gate j is >= 0.
    The parameters are those of the layers ``first`` (Conv2d) and ``second`` (Linear).

    Parameters
    ----------
    channels : int
        Channels of the images.
    neurons : int
        Number of filters.
    c : int
        Number of outputs.
    patch, stride, padding, pool, bias
        As for `CNN`. With `bias`, filters and gates have a bias.
    pooled : int
        The number a of pooled values of a filter: 1 for "global", g^2 for a grid, the number of patches for "identity".
    output_bias : bool
        Whether the outputs have a bias.

    Attributes
    ----------
    gates : buffer, neurons x channels x patch x patch
        The fixed filters of the gates. See `GatedMLP`.
    gate_biases : buffer, neurons, or None
        The biases of the gates.

    Examples
    --------
    >>> import torch
    >>> GatedCNN(channels=3, neurons=4, c=2, patch=3)(torch.zeros(5, 3, 8, 8)).shape
    torch.Size([5, 2])
    """

    gates: torch.Tensor
    gate_biases: torch.Tensor | None

    def __init__(
        self,
        channels: int,
        neurons: int,
        c: int,
        patch: int,
        stride: int = 1,
        padding: int = 0,
        pool: Any = "global",
        pooled: int = 1,
        bias: bool = False,
        output_bias: bool = False,
    ):
        super().__init__()
        self.first = torch.nn.Conv2d(channels, neurons, patch, stride, padding, bias=bias)
        self.pool = pooling_layer(pool)
        self.second = torch.nn.Linear(neurons * pooled, c, bias=output_bias)
        self.register_buffer("gates", torch.randn(neurons, channels, patch, patch))
        self.register_buffer("gate_biases", torch.randn(neurons) if bias else None)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        stride, padding = self.first.stride, self.first.padding
        active = torch.nn.functional.conv2d(X, self.gates, self.gate_biases, stride, padding) >= 0
        outputs: torch.Tensor = self.second(self.pool(self.first(X) * active).flatten(1))
        return outputs


class GatedAttention(AttentionBlock):
    """Gated self-attention without softmax.

    For tokens X (n x s x d) it computes sum_j (1{X G_j X^T >= 0} * X U_j X^T) X V_j. Its parameters are those of
    `AttentionBlock`: U (heads x d x d), V (heads x d x c) and, with `bias`, the output bias.

    Parameters
    ----------
    d, c, heads, output, bias
        As for `AttentionBlock`.

    Attributes
    ----------
    gates : buffer, heads x d x d
        The fixed matrices G_j. Head j is active on a pair of tokens if x_s^T G_j x_t >= 0. See `GatedMLP`.

    Examples
    --------
    >>> import torch
    >>> GatedAttention(d=3, c=2, heads=4)(torch.zeros(5, 6, 3)).shape
    torch.Size([5, 6, 2])
    """

    gates: torch.Tensor

    def __init__(self, d: int, c: int, heads: int, output: str = "tokens", bias: bool = False):
        super().__init__(d, c, heads, "linear", output, bias)
        self.register_buffer("gates", torch.randn(heads, d, d))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self._outputs(X, self._scores(X, self.U) * (self._scores(X, self.gates) >= 0))
