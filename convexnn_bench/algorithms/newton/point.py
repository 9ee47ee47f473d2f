"""The Burer-Monteiro objective on a working set of neurons, in coordinates in which Newton's method goes straight.

A balanced column pair of block k is u = sqrt(s) w/s, v = sqrt(s) y with a vector w of length s and a unit vector y, so
that u y^T sqrt(s) = w y^T. In these coordinates the factored objective (Sahiner et al., ICLR 2024, eqs. 19-21) is

    f(w, y) = F(C(sum_j D_j Phi w_j y_j^T)) + beta sum_j ||w_j||,   ||y_j|| = 1.

Moving weight from a neuron to its neighbour is a straight line here and a circle in (u, v), which is what trust-region
steps in (u, v) lose their time on. With scalar outputs y = +-1, and f is convex in w. A step moves w_j to w_j + a_j and
turns y_j along b_j / s_j, b_j orthogonal to y_j: a and b both have the units of the block Z_k = sum_j w_j y_j^T.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int

from convexnn_bench.algorithms.newton.neurons import NEGLIGIBLE, SECOND, Lengths, Neurons, add_to, top_pairs
from convexnn_bench.operator.lifted import Operator
from convexnn_bench.problem import Problem

Step = Float[torch.Tensor, "pq J"]  # a over b


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers; a GPU is not waited for where they are one tensor."""
    return one is other or torch.equal(one, other)


class WorkingProblem:
    """f on sets of neurons, float64 on a device; counts its Hessian products.

    single: Hessian products in float32 where that can be; f and its gradient never are.
    """

    def __init__(self, problem: Problem, device: str, single: bool = True):
        self.single = single
        self.problem, self.loss, self.beta = problem, problem.loss, problem.beta
        self.operator: Operator = problem.operator(device)
        self.targets = self.operator.Y
        self.products = 0
        self.floor = 0.0  # of the model's F'', in units of the largest there can be
        self.device = device
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None
        self._kept: tuple[torch.Tensor, dict[torch.dtype, Operator]] | None = None

    def empty(self) -> Neurons:
        none = torch.zeros(0, dtype=self.operator.dtype, device=self.operator.device)
        p, q = self.problem.p, self.problem.q
        return Neurons(none.to(torch.int64), none.view(1, 0).expand(p, 0), none.view(1, 0).expand(q, 0))

    def masks(self, blocks: Int[torch.Tensor, " J"]) -> Float[torch.Tensor, "N J"]:
        """The masks of the neurons' blocks as numbers; those asked for last are kept."""
        if self._last is None or not _same(self._last[0], blocks):
            self._last = blocks, self.operator.masks[:, blocks].to(self.operator.dtype)
        return self._last[1]

    def on_blocks(self, blocks: Int[torch.Tensor, " B"], dtype: torch.dtype) -> Operator:
        """The operator of these blocks; that of those asked for last is kept."""
        if self._kept is None or not _same(self._kept[0], blocks):
            self._kept = blocks, {}
        operators = self._kept[1]
        if dtype not in operators:
            operators[dtype] = self.problem.operator(self.device, dtype).on_blocks(blocks)
        return operators[dtype]

    def curvature(self, z: torch.Tensor, targets: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """F''(z) + floor L: F may be flat at z and not nearby, as Huber's is where residuals are large."""
        exact, floor = self.loss.curvature(z, targets), self.floor * self.loss.smoothness
        return exact if floor == 0 else lambda D: exact(D).add(D, alpha=floor)

    def at(self, neurons: Neurons) -> "Here":
        return Here(self, neurons)

    @cached_property
    def rows(self) -> Float[torch.Tensor, "N p"]:
        """Phi, formed where the architecture has it by structure only."""
        if not self.operator._structured_first:
            return self.operator.Phi
        unit = torch.eye(self.problem.p, dtype=self.operator.dtype, device=self.operator.device)
        return self.operator.first_layer(unit)


class Here:
    """f, its gradient and its second derivatives at one point; what is not asked for is not computed."""

    def __init__(self, working: WorkingProblem, neurons: Neurons):
        self.working, self.neurons = working, neurons
        self.operator, self.beta = working.operator, working.beta
        self.masks = working.masks(neurons.blocks)
        self.sizes = neurons.sizes
        self.H = self.operator.first_layer(neurons.W).mul_(self.masks) if len(neurons) else self.masks
        self.z = self.operator.combine_neurons(self.H, neurons.Y) if len(neurons) else torch.zeros_like(working.targets)
        loss = working.loss.value(self.z, working.targets)
        self.value = float(loss + self.beta * self.sizes.sum())

    @cached_property
    def L(self) -> torch.Tensor:
        """grad F(z)."""
        return self.working.loss.gradient(self.z, self.working.targets)

    @cached_property
    def curvature(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """F''(z)."""
        return self.working.curvature(self.z, self.working.targets)

    @cached_property
    def directions(self) -> Float[torch.Tensor, "p J"]:
        """w / s."""
        return self.neurons.W / self.sizes

    @cached_property
    def _pulled(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(G_j y_j, G_j^T w_j) for every neuron, G_j = A_j^*(grad F)."""
        back, right = self.operator.combine_adjoint(self.H, self.neurons.Y, self.L)
        return self.operator.first_layer_adjoint(back.mul_(self.masks)), right

    @cached_property
    def gradient(self) -> Step:
        """d/da = G y + beta w/s over d/db = (I - y y^T) G^T w / s."""
        left, right = self._pulled
        return torch.cat([left + self.beta * self.directions, self.tangent(right) / self.sizes])

    @cached_property
    def slope(self) -> float:
        """The largest gradient of a neuron, in units of beta: how far its block's dual norm may be from beta."""
        g, p = self.gradient, self.neurons.W.shape[0]
        left, right = torch.linalg.vector_norm(g[:p], dim=0), torch.linalg.vector_norm(g[p:], dim=0)
        return float(torch.maximum(left, right).max()) / self.beta

    def tangent(self, b: Float[torch.Tensor, "q J"]) -> Float[torch.Tensor, "q J"]:
        """(I - y y^T) b."""
        Y = self.neurons.Y
        return b - Y * (Y * b).sum(dim=0)

    @cached_property
    def pull(self) -> Lengths:
        """-<w, G y> / s^2 = beta / s at a stationary point: the curvature of turning y."""
        return -(self.neurons.W * self._pulled[0]).sum(dim=0) / self.sizes.square()

    def product(self, step: Step, single: bool = False) -> Step:
        """The Hessian times (a, b): with dz = C(sum_j D Phi (a y^T + w b^T / s)) and dL = F''(z) dz,

        d/da: A^*(dL) y + A^*(L) b / s + beta / s (I - w w^T / s^2) a
        d/db: (I - y y^T) (A^*(dL)^T w + A^*(L)^T a) / s + pull b,  for b orthogonal to y.

        single: the matrix products in float32, where samples can be taken some at a time.
        """
        self.working.products += 1
        p, unit = self.neurons.W.shape[0], self.directions
        a, turned = step[:p], self.tangent(step[p:])
        b = turned / self.sizes
        if self._through_blocks:
            left, right = self._by_blocks(a, b, single)
        else:
            left, right = self._by_samples(a, b, single) if self._plain else self._whole(a, b)
        left += (self.beta / self.sizes) * (a - unit * (unit * a).sum(dim=0))
        return torch.cat([left, self.tangent(right) / self.sizes + self.pull * turned])

    def stiffened(self, step: Step, single: bool = False) -> Step:
        """`product` with `rotations` added to the Hessian."""
        image = self.product(step, single)
        if self.rotations is None:
            return image
        both = torch.cat([self.directions, self.neurons.Y])
        inner = both.T @ step
        return image.addmm_(both, self.rotations * (inner - inner.T), alpha=0.25)

    @cached_property
    def rotations(self) -> Float[torch.Tensor, "J J"] | None:
        """Curvatures given to the rotations within a block, which change neither Z nor f; None where there are none.

        For neurons i, j of one block, singular pairs of Z_k, that is a_j = x_i, a_i = -x_j, b_j = y_i, b_i = -y_j with
        x = w / s, up to length; away from a stationary point its curvature of either sign would mislead a step.
        beta / sqrt(s_i s_j) is that of other directions.
        """
        blocks = self.neurons.blocks
        if self.neurons.Y.shape[0] == 1:
            return None
        pairs = (blocks[:, None] == blocks[None, :]).fill_diagonal_(False)
        if not bool(pairs.any()):
            return None
        roots = self.sizes.rsqrt()
        return pairs * (self.beta * roots[:, None] * roots)

    @property
    def single(self) -> bool:
        """Whether Hessian products are to be float32: where they are large matrix products."""
        return self.working.single and self._plain

    @property
    def _plain(self) -> bool:
        """Phi is at hand and C the identity, so that samples can be taken some at a time."""
        return self.operator.architecture.second_layer_is_identity and not self.operator._structured_first

    @cached_property
    def _kinds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The blocks that have a neuron, and the place among them of every neuron's."""
        return torch.unique(self.neurons.blocks, return_inverse=True)

    @cached_property
    def _through_blocks(self) -> bool:
        """Whether Hessian products go through the matrices of the blocks, p x q numbers each, and not the neurons."""
        J, blocks = len(self.neurons), len(self._kinds[0])
        return J > 0 and (self.operator._pooled is not None or self.operator._wide(J / blocks, blocks))

    @cached_property
    def _G(self) -> Float[torch.Tensor, "B p q"]:
        """A_k^*(grad F) of the blocks that have a neuron."""
        return self.working.on_blocks(self._kinds[0], self.operator.dtype).adjoint(self.L)

    def _by_blocks(
        self, a: Float[torch.Tensor, "p J"], b: Float[torch.Tensor, "q J"], single: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same as `_whole`, from dZ_k = sum_j a_j y_j^T + w_j b_j^T over the neurons of block k."""
        dtype = torch.float32 if single else a.dtype
        (blocks, place), neurons = self._kinds, self.neurons
        operator = self.working.on_blocks(blocks, dtype)
        a, b, W, Y = (part.T.to(dtype) for part in (a, b, neurons.W, neurons.Y))  # J x p, J x q
        dZ = torch.zeros(len(blocks), W.shape[1], Y.shape[1], dtype=dtype, device=W.device)
        add_to(dZ, place, a[:, :, None] * Y[:, None, :] + W[:, :, None] * b[:, None, :])
        curve = self.working.curvature(self.z.to(dtype), self.working.targets.to(dtype))
        dG = operator.adjoint(curve(operator.apply(dZ)[:, :, None])[:, :, 0])[place]
        G = self._G.to(dtype)[place]
        left = dG @ Y[:, :, None] + G @ b[:, :, None]
        right = dG.transpose(1, 2) @ W[:, :, None] + G.transpose(1, 2) @ a[:, :, None]
        return left[:, :, 0].T.to(self.operator.dtype), right[:, :, 0].T.to(self.operator.dtype)

    def _whole(self, a: Float[torch.Tensor, "p J"], b: Float[torch.Tensor, "q J"]) -> tuple[torch.Tensor, torch.Tensor]:
        """(A^*(dL) y + A^*(L) b, A^*(dL)^T w + A^*(L)^T a)."""
        operator, Y = self.operator, self.neurons.Y
        Ha = operator.first_layer(a).mul_(self.masks)
        dz = operator.combine_neurons(Ha, Y) + operator.combine_neurons(self.H, b)
        back, right = operator.combine_adjoint(self.H, Y, self.curvature(dz[:, :, None])[:, :, 0])
        cross, other = operator.combine_adjoint(Ha, b, self.L)
        return operator.first_layer_adjoint((back + cross).mul_(self.masks)), right + other

    @cached_property
    def _parts(self) -> dict[torch.dtype, list[tuple[Any, ...]]]:
        return {}

    def parts(self, dtype: torch.dtype) -> list[tuple[Any, ...]]:
        """(Phi, masks, H, L, F'') of some samples at a time."""
        if dtype not in self._parts:
            self._parts[dtype] = []
            for rows in self.operator.sample_parts(len(self.neurons)):
                given = (self.operator.Phi, self.masks, self.H, self.L, self.z, self.working.targets)
                Phi, masks, H, L, z, targets = (array[rows].to(dtype) for array in given)
                self._parts[dtype].append((Phi, masks, H, L, self.working.curvature(z, targets)))
        return self._parts[dtype]

    def _by_samples(
        self, a: Float[torch.Tensor, "p J"], b: Float[torch.Tensor, "q J"], single: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for an MLP, where A^*(L) = sum_i phi_i L_i^T over samples with an active mask."""
        dtype = torch.float32 if single else a.dtype
        a, b, Y = a.to(dtype), b.to(dtype), self.neurons.Y.to(dtype)
        left, right = torch.zeros_like(a), torch.zeros_like(b)
        for Phi, masks, H, L, curve in self.parts(dtype):
            Ha = (Phi @ a).mul_(masks)
            dL = curve((Ha @ Y.T).addmm_(H, b.T)[:, :, None])[:, :, 0]
            left.addmm_(Phi.T, (dL @ Y).addmm_(L, b).mul_(masks))
            right.addmm_(dL.T, H).addmm_(L.T, Ha)
        return self.operator.summed(left.to(self.operator.dtype), right.to(self.operator.dtype))

    def crossing(self, step: Step) -> torch.Tensor:
        """Which neurons a step takes through zero."""
        W = self.neurons.W
        return ((W + step[: len(W)]) * W).sum(dim=0) <= 0

    def moved(self, step: Step) -> Neurons:
        """The neurons after a step; one that would pass through zero is left out.

        A step changes w y^T by a y^T + w b^T / s, to a matrix of rank two. Its first singular pair is the neuron moved;
        where the second is more than SECOND of the first it becomes a neuron of the same block, so that the
        predictions move as the quadratic model says, however small the neuron was.
        """
        p = self.neurons.W.shape[0]
        W, blocks, alive = self.neurons.W + step[:p], self.neurons.blocks, ~self.crossing(step)
        if self.neurons.Y.shape[0] == 1:
            return Neurons(blocks, W, self.neurons.Y).kept(alive)
        turned = self.tangent(step[p:])
        lengths = torch.linalg.vector_norm(turned, dim=0)
        across = turned / torch.where(lengths > 0, lengths, torch.ones_like(lengths))
        # in the orthonormal basis (y, across) of the right side the matrix has the columns w + a and lengths w / s
        columns = torch.stack([W, self.directions * lengths], dim=2).permute(1, 0, 2)  # J x p x 2
        left, values, right = top_pairs(columns)
        Y = torch.stack([self.neurons.Y, across], dim=2).permute(1, 0, 2) @ right  # J x q x 2
        first = Neurons(blocks, (left[:, :, 0] * values[:, :1]).T, Y[:, :, 0].T).kept(alive)
        if values.shape[1] > 1:  # p > 1
            second = alive & (values[:, 1] > SECOND * values[:, 0])
            if bool(second.any()):
                other = Neurons(blocks, (left[:, :, 1] * values[:, 1:]).T, Y[:, :, 1].T).kept(second)
                return first.joined(other).merged(NEGLIGIBLE)
        return first if self.rotations is None else first.merged(NEGLIGIBLE)
