"""A trainable self-attention block that `certify_module` can read."""

from typing import Any

import torch

from convexnn_bench.errors import InputError


class AttentionBlock(torch.nn.Module):
    """sum_j phi(X U_j X^T) X V_j for tokens X (n x s x d), without softmax (Sahiner et al., ICLR 2024, eq. 9).

    d: length of a token. c: outputs. heads: m. activation: "linear" or "relu". output: "tokens" gives n x s x c, "mean"
    their mean over the tokens, n x c. Parameters U (m x d x d) and V (m x d x c).
    """

    def __init__(self, d: int, c: int, heads: int, activation: Any = "linear", output: Any = "tokens"):
        super().__init__()
        if activation not in ("linear", "relu"):
            raise InputError(f"activation must be 'linear' or 'relu', got {activation!r}")
        if output not in ("tokens", "mean"):
            raise InputError(f"output must be 'tokens' or 'mean', got {output!r}")
        self.activation, self.output = activation, output
        self.U = torch.nn.Parameter(torch.randn(heads, d, d) / d)
        self.V = torch.nn.Parameter(torch.randn(heads, d, c) / (d * heads) ** 0.5)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        scores = X[:, None] @ self.U @ X[:, None].transpose(2, 3)  # n x m x s x s
        if self.activation == "relu":
            scores = scores.relu()
        outputs = (scores @ X[:, None] @ self.V).sum(dim=1)
        return outputs.mean(dim=1) if self.output == "mean" else outputs
