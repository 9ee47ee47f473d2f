"""The Burer-Monteiro objective at one set of neurons, in coordinates that suit Newton's method.

A balanced column pair of block k is u = sqrt(s) w/s, v = sqrt(s) y with a vector w of length s and a unit vector y. In
these coordinates the factored objective (Sahiner et al., ICLR 2024, eqs. 19-21) is

    f(w, y) = F(z) + beta sum_j ||w_j||,   z = C(sum_j D_j Phi w_j y_j^T),   ||y_j|| = 1.

Weight moves from a neuron to its neighbour along a straight line here, and along a circle in (u, v), where trust-region
steps are therefore short. With scalar outputs y = +-1, and f is convex in w. A step (a, b) moves w_j to w_j + a_j and
turns y_j along b_j / s_j, with b_j orthogonal to y_j. Both a and b have the units of Z_k = sum_j w_j y_j^T.

With G_j = A_j^*(grad F(z)), dz = C(sum_j D_j Phi (a_j y_j^T + w_j b_j^T / s_j)) and dG_j = A_j^*(F''(z) dz), the
gradient and the Hessian product are

    d/da:  G y + beta w/s                  dG y + G b / s + beta / s (I - w w^T / s^2) a
    d/db:  (I - y y^T) G^T w / s           (I - y y^T) (dG^T w + G^T a) / s - (<w, G y> / s^2) b.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.newton.neurons import (
    NEGLIGIBLE_SIZE,
    SPLIT_RATIO,
    BlockNeurons,
    Lengths,
    scatter_add,
    singular_pairs,
)
from convexnn_bench.algorithms.newton.working_problem import WorkingProblem

Step = Float[torch.Tensor, "pq J"]  # a over b
Sides = tuple[Float[torch.Tensor, "p J"], Float[torch.Tensor, "q J"]]
SamplePart = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]


class PointState:
    """Value, gradient and Hessian products at one point, each computed on first use."""

    def __init__(self, working: WorkingProblem, neurons: BlockNeurons):
        self.working, self.neurons = working, neurons
        self.operator, self.beta = working.operator, working.beta
        self.masks = working.masks(neurons.blocks)
        self.sizes = neurons.sizes
        self._sample_parts: dict[torch.dtype, list[SamplePart]] = {}
        # The hidden units D_j Phi w_j, the predictions z, and f.
        if len(neurons):
            self.hidden = self.operator.first_layer(neurons.left).mul_(self.masks)
            self.z = self.operator.combine_neurons(self.hidden, neurons.right)
        else:
            self.hidden, self.z = self.masks, torch.zeros_like(working.targets)
        loss = working.loss.value(self.z, working.targets)
        self.value = float(loss + self.beta * self.sizes.sum())

    # -- the gradient -----------------------------------------------------------------------------------

    @cached_property
    def loss_gradient(self) -> torch.Tensor:
        """L = grad F(z)."""
        return self.working.loss.gradient(self.z, self.working.targets)

    @cached_property
    def curvature(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Products with F''(z)."""
        return self.working.curvature(self.z)

    @cached_property
    def directions(self) -> Float[torch.Tensor, "p J"]:
        """The unit vectors w / s."""
        return self.neurons.left / self.sizes

    @cached_property
    def _pulled_back(self) -> Sides:
        """(G_j y_j, G_j^T w_j) for every neuron."""
        back, right = self.operator.combine_adjoint(self.hidden, self.neurons.right, self.loss_gradient)
        # The pullback of a mean or a sum may repeat one number in memory, which cannot be multiplied in place.
        return self.operator.first_layer_adjoint(back.contiguous().mul_(self.masks)), right

    @cached_property
    def gradient(self) -> Step:
        """The derivatives in a over those in b."""
        left, right = self._pulled_back
        return torch.cat([left + self.beta * self.directions, self.tangent(right) / self.sizes])

    @cached_property
    def relative_gradient(self) -> float:
        """The largest gradient of a neuron, in units of beta.

        Its block's dual norm may differ from beta by so much.
        """
        g, p = self.gradient, self.neurons.left.shape[0]
        left, right = torch.linalg.vector_norm(g[:p], dim=0), torch.linalg.vector_norm(g[p:], dim=0)
        return float(torch.maximum(left, right).max()) / self.beta

    def tangent(self, b: Float[torch.Tensor, "q J"]) -> Float[torch.Tensor, "q J"]:
        """Return (I - y y^T) b."""
        y = self.neurons.right
        return b - y * (y * b).sum(dim=0)

    # -- Hessian products -------------------------------------------------------------------------------

    @cached_property
    def turning_curvature(self) -> Lengths:
        """The curvature -<w, G y> / s^2 of turning y, which is beta / s at a stationary point."""
        return -(self.neurons.left * self._pulled_back[0]).sum(dim=0) / self.sizes.square()

    def hessian_product(self, step: Step, single: bool = False) -> Step:
        """Return the Hessian times (a, b), in float32 if `single` and the loss is separable."""
        self.working.products += 1
        p, unit = self.neurons.left.shape[0], self.directions
        a, turned = step[:p], self.tangent(step[p:])
        b = turned / self.sizes
        if self._uses_blocks:
            left, right = self._products_by_blocks(a, b, single and self.working.loss.separable)
        elif self._takes_samples:
            left, right = self._products_by_samples(a, b, single)
        else:
            left, right = self._products_by_neurons(a, b)
        left += (self.beta / self.sizes) * (a - unit * (unit * a).sum(dim=0))
        return torch.cat([left, self.tangent(right) / self.sizes + self.turning_curvature * turned])

    def model_product(self, step: Step, single: bool = False) -> Step:
        """Return the Hessian of the quadratic model times (a, b): that of f plus `rotation_curvatures`."""
        image = self.hessian_product(step, single)
        if self.rotation_curvatures is None:
            return image
        both = torch.cat([self.directions, self.neurons.right])
        inner = both.T @ step
        return image.addmm_(both, self.rotation_curvatures * (inner - inner.T), alpha=0.25)

    @cached_property
    def rotation_curvatures(self) -> Float[torch.Tensor, "J J"] | None:
        """Curvatures beta / sqrt(s_i s_j) of rotations within a block; None where every block has one neuron.

        For neurons i, j of one block, the rotation a_j = x_i, a_i = -x_j, b_j = y_i, b_i = -y_j with x = w / s changes
        neither Z nor f. Away from a stationary point its second derivative has either sign and would mislead a step,
        so that the model gets the curvature that other directions have.
        """
        blocks = self.neurons.blocks
        if self.neurons.right.shape[0] == 1:
            return None
        pairs = (blocks[:, None] == blocks[None, :]).fill_diagonal_(False)
        if not bool(pairs.any()):
            return None
        roots = self.sizes.rsqrt()
        return pairs * (self.beta * roots[:, None] * roots)

    @property
    def single(self) -> bool:
        """Whether Hessian products are to be float32: where they are large matrix products."""
        return self.working.single and self._takes_samples

    @property
    def _takes_samples(self) -> bool:
        """Whether a Hessian product may take some samples at a time.

        An output bias forbids it.
        """
        return self.operator.is_plain and self.working.loss.separable

    @cached_property
    def _distinct_blocks(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The blocks that have a neuron, and each neuron's index into them."""
        return torch.unique(self.neurons.blocks, return_inverse=True)

    @cached_property
    def _uses_blocks(self) -> bool:
        """Whether Hessian products go through the p x q matrices of the blocks instead of the neurons."""
        J, blocks = len(self.neurons), len(self._distinct_blocks[0])
        return J > 0 and (self.operator.is_pooled or self.operator.through_blocks(J / blocks, blocks))

    @cached_property
    def _block_gradients(self) -> Float[torch.Tensor, "B p q"]:
        """G_k of the blocks that have a neuron."""
        operator = self.working.on_blocks(self._distinct_blocks[0], self.operator.dtype)
        return operator.adjoint(self.loss_gradient)

    def _products_by_blocks(self, a: torch.Tensor, b: torch.Tensor, single: bool) -> Sides:
        """Return (dG y + G b, dG^T w + G^T a).

        It follows from dZ_k = sum_j a_j y_j^T + w_j b_j^T over the neurons of block k.
        """
        dtype = torch.float32 if single else a.dtype
        (blocks, owner), neurons = self._distinct_blocks, self.neurons
        operator = self.working.on_blocks(blocks, dtype)
        a, b, W, Y = (part.T.to(dtype) for part in (a, b, neurons.left, neurons.right))  # J x p, J x q
        dZ = torch.zeros(len(blocks), W.shape[1], Y.shape[1], dtype=dtype, device=W.device)
        scatter_add(dZ, owner, a[:, :, None] * Y[:, None, :] + W[:, :, None] * b[:, None, :])
        curve = self.working.curvature(self.z.to(dtype)) if self.working.loss.separable else self.curvature
        dG = operator.adjoint(curve(operator.apply(dZ)[:, :, None])[:, :, 0])[owner]
        G = self._block_gradients.to(dtype)[owner]
        left = dG @ Y[:, :, None] + G @ b[:, :, None]
        right = dG.transpose(1, 2) @ W[:, :, None] + G.transpose(1, 2) @ a[:, :, None]
        return left[:, :, 0].T.to(self.operator.dtype), right[:, :, 0].T.to(self.operator.dtype)

    def _products_by_neurons(self, a: torch.Tensor, b: torch.Tensor) -> Sides:
        """Return (dG y + G b, dG^T w + G^T a) from the hidden units D_j Phi a_j and D_j Phi w_j."""
        operator, Y = self.operator, self.neurons.right
        Ha = operator.first_layer(a).mul_(self.masks)
        dz = operator.combine_neurons(Ha, Y) + operator.combine_neurons(self.hidden, b)
        back, right = operator.combine_adjoint(self.hidden, Y, self.curvature(dz[:, :, None])[:, :, 0])
        cross, other = operator.combine_adjoint(Ha, b, self.loss_gradient)
        return operator.first_layer_adjoint((back + cross).mul_(self.masks)), right + other

    def sample_parts(self, dtype: torch.dtype) -> list[SamplePart]:
        """Return (Phi, masks, hidden, L, products with F'') of some samples at a time."""
        if dtype not in self._sample_parts:
            self._sample_parts[dtype] = []
            arrays = (self.operator.Phi, self.masks, self.hidden, self.loss_gradient, self.z)
            for rows in self.operator.sample_parts(len(self.neurons)):
                Phi, masks, H, L, z = (array[rows].to(dtype) for array in arrays)
                self._sample_parts[dtype].append((Phi, masks, H, L, self.working.curvature(z, rows)))
        return self._sample_parts[dtype]

    def _products_by_samples(self, a: torch.Tensor, b: torch.Tensor, single: bool) -> Sides:
        """Return (dG y + G b, dG^T w + G^T a) of an MLP.

        There A_j^*(L) is the sum of phi_i L_i^T over the mask of j.
        """
        dtype = torch.float32 if single else a.dtype
        a, b, Y = a.to(dtype), b.to(dtype), self.neurons.right.to(dtype)
        left, right = torch.zeros_like(a), torch.zeros_like(b)
        for Phi, masks, H, L, curve in self.sample_parts(dtype):
            Ha = (Phi @ a).mul_(masks)
            dL = curve((Ha @ Y.T).addmm_(H, b.T)[:, :, None])[:, :, 0]
            left.addmm_(Phi.T, (dL @ Y).addmm_(L, b).mul_(masks))
            right.addmm_(dL.T, H).addmm_(L.T, Ha)
        return self.operator.summed(left.to(self.operator.dtype), right.to(self.operator.dtype))

    # -- moving along a step ----------------------------------------------------------------------------

    def crosses_zero(self, step: Step) -> torch.Tensor:
        """Return which neurons the step takes through zero."""
        W = self.neurons.left
        return ((W + step[: len(W)]) * W).sum(dim=0) <= 0

    def moved(self, step: Step) -> BlockNeurons:
        """Return the neurons after a step, without those that would pass through zero.

        The step changes w y^T by a y^T + w b^T / s, to a matrix of rank two. Its first singular pair is the moved
        neuron. The second becomes a neuron of the same block above SPLIT_RATIO times the first, so that the predictions
        move as in the quadratic model even where the neuron was small.
        """
        neurons, p = self.neurons, self.neurons.left.shape[0]
        W, blocks, alive = neurons.left + step[:p], neurons.blocks, ~self.crosses_zero(step)
        if neurons.right.shape[0] == 1:
            return BlockNeurons(blocks, W, neurons.right).selected(alive)
        turned = self.tangent(step[p:])
        lengths = torch.linalg.vector_norm(turned, dim=0)
        across = turned / torch.where(lengths > 0, lengths, torch.ones_like(lengths))
        # In the orthonormal basis (y, across) of the right side the matrix has the columns w + a and lengths w / s.
        columns = torch.stack([W, self.directions * lengths], dim=2).permute(1, 0, 2)  # J x p x 2
        left, values, right = singular_pairs(columns)
        Y = torch.stack([neurons.right, across], dim=2).permute(1, 0, 2) @ right  # J x q x 2
        first = BlockNeurons(blocks, (left[:, :, 0] * values[:, :1]).T, Y[:, :, 0].T).selected(alive)
        if values.shape[1] > 1:  # p > 1
            split = alive & (values[:, 1] > SPLIT_RATIO * values[:, 0])
            if bool(split.any()):
                second = BlockNeurons(blocks, (left[:, :, 1] * values[:, 1:]).T, Y[:, :, 1].T).selected(split)
                return first.joined(second).merged(NEGLIGIBLE_SIZE)
        return first if self.rotation_curvatures is None else first.merged(NEGLIGIBLE_SIZE)
