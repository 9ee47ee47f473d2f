"""A trainable self-attention block that `certify_module` can read."""

import torch

from convexnn_bench.plugins import Choice


class AttentionBlock(torch.nn.Module):
    """Self-attention without softmax: sum_j phi(X U_j X^T) X V_j for tokens X (n x s x d).

    Its parameters are U (heads x d x d), V (heads x d x c) and, if there is an output bias, `bias` (c).

    Parameters
    ----------
    d : int
        Length of a token.
    c : int
        Number of outputs.
    heads : int
        Number of heads j.
    activation : {"linear", "relu"}
        The activation phi.
    output : {"tokens", "mean"}
        An output for each token, n x s x c, or the mean over the tokens, n x c.
    bias : bool
        Whether the outputs have a bias.

    Raises
    ------
    InputError
        `activation` or `output` is not one of these.

    Notes
    -----
    Sahiner et al., ICLR 2024, equation 9.

    Examples
    --------
    >>> import torch
    >>> AttentionBlock(d=3, c=2, heads=4, output="mean")(torch.zeros(5, 6, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self, d: int, c: int, heads: int, activation: str = "linear", output: str = "tokens", bias: bool = False
    ):
        super().__init__()
        self.activation = Choice(("linear", "relu")).check("activation", activation)
        self.output = Choice(("tokens", "mean")).check("output", output)
        # The score x^T U_j y of two standard normal tokens has variance 1, and so has X V_j summed over the heads.
        self.U = torch.nn.Parameter(torch.randn(heads, d, d) / d)
        self.V = torch.nn.Parameter(torch.randn(heads, d, c) / (d * heads) ** 0.5)
        self.bias = torch.nn.Parameter(torch.zeros(c)) if bias else None

    def _scores(self, X: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
        """Return X U_j X^T, n x heads x s x s."""
        return X[:, None] @ U @ X[:, None].transpose(2, 3)

    def _outputs(self, X: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the outputs for scores after the activation."""
        outputs = (scores @ X[:, None] @ self.V).sum(dim=1)
        outputs = outputs if self.bias is None else outputs + self.bias
        return outputs.mean(dim=1) if self.output == "mean" else outputs

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        scores = self._scores(X, self.U)
        return self._outputs(X, scores.relu() if self.activation == "relu" else scores)
