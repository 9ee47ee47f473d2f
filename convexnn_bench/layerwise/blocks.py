"""The baseline that replaces the nuclear norm by plain weight decay.

A stage is trained in its matrices Z_k.

    min  F(A(Z)) + beta/2 sum_k ||Z_k||_F^2    in the place of    min  F(A(Z)) + beta sum_k ||Z_k||_*.

The certificate is for the second problem, the stage's own program, as with factors.
"""

import torch
from jaxtyping import Float

from convexnn_bench.layerwise.plans import StagePlan
from convexnn_bench.layerwise.stage import Maps, Masks, Patches, Stage, pooled_patches, window_parts
from convexnn_bench.layerwise.streamed import POOL_FIRST, by_blocks, gather
from convexnn_bench.layerwise.training import StageTraining


class BlockStage(Stage):
    """A stage with trained blocks Z (P x p x q), which start at zero.

    The next stage receives the masked maps of the m leading singular pairs of each block, which `settle` writes into U
    and V.
    """

    trained = ("Z",)

    def __init__(self, plan: StagePlan, channels: int, c: int, scale: float = 1.0):
        super().__init__(plan, channels, c, scale)
        # The objective is convex in Z, so that zero is as good a start as any. For factors it would be a stationary
        # point.
        self.Z = torch.zeros(plan.gates, self.p, self.q)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {**super().tensors(), "Z": self.Z}

    def outputs(self, X: Maps, hidden: Maps) -> Float[torch.Tensor, "n c"]:
        return self.window_outputs(*self.windows(X), len(X))

    def window_outputs(self, patches: Patches, masks: Masks, n: int) -> Float[torch.Tensor, "n c"]:
        Z = self.Z[:, self.order].to(patches.dtype).unflatten(2, (len(patches), self.c))
        weights = Z.permute(2, 1, 0, 3).flatten(2)  # a2 x p x Pc
        z = torch.zeros(n, self.c, dtype=patches.dtype, device=patches.device)
        # A large window is pooled before it meets the weights, for the reason given in `streamed.gather`.
        if patches.shape[1] // n >= POOL_FIRST * self.c:
            for pooled, weight in zip(pooled_patches(patches, masks, n), weights, strict=True):
                z += pooled.flatten(1) @ weight.unflatten(1, (self.P, self.c)).transpose(0, 1).flatten(0, 1)
            return z
        # Windows are taken a few at a time, so that their products fit a cache.
        for part in window_parts(len(patches), masks.shape[1] * weights.shape[2], weights.device):
            units = (patches[part] @ weights[part]).unflatten(2, (self.P, self.c)) * masks[part][..., None]
            z += units.sum(dim=2).view(units.shape[0], n, -1, self.c).sum(dim=(0, 2))
        return z / (patches.shape[1] // n)

    def regulariser(self) -> float:
        """Return sum_k ||Z_k||_*, in float64."""
        return float(torch.linalg.svdvals(self.Z.double()).sum())

    def gradient_norm(self, G: Float[torch.Tensor, "P p q"], beta: float) -> None:
        """Return None: there is no factored objective."""

    def settle(self) -> None:
        """Set U = A sqrt(S), V = B sqrt(S) for the leading singular pairs of every block.

        There are m pairs, and zeros beyond the rank of a block.
        """
        # U_k V_k^T is then the best approximation of Z_k of rank m (Eckart and Young).
        left, values, right = torch.linalg.svd(self.Z, full_matrices=False)
        m = min(self.plan.m, values.shape[1])
        roots = values[:, None, :m].sqrt()
        self.U, self.V = torch.zeros_like(self.U), torch.zeros_like(self.V)
        self.U[:, :, :m], self.V[:, :, :m] = left[:, :, :m] * roots, right[:, :m].transpose(1, 2) * roots


class BlockTraining(StageTraining):
    """Descent on F/n + beta/(2n) ||Z||^2, by its explicit gradient A_k^*(grad F) + beta Z_k, over n."""

    stage: BlockStage

    def _step(self, maps: Maps, Y: torch.Tensor, batch: int) -> None:
        (Z,), stage = self.weights, self.stage
        G = torch.zeros(stage.plan.pool**2, stage.p, stage.P * stage.c, dtype=Z.dtype, device=Z.device)
        # The gradient is A_k^*(grad F) as in the certificate. Autograd would keep the masked patches for its backward
        # pass.
        with torch.no_grad():
            if len(maps):  # a last batch may have fewer samples than there are processes
                patches, masks = stage.windows(maps)
                stage.Z = Z.detach()
                z = stage.window_outputs(patches, masks, len(maps))
                gather(G, patches, masks, self.loss.gradient(z, Y) / batch)
        self.descend([by_blocks(stage, G)])
