"""Burer-Monteiro by Newton's method on a working set of blocks, guided and stopped by the certificate.

    1. Price all P blocks at the dual point L = grad F(z). That gives the lower bound, and the blocks whose dual norm
       ||G_k||_2, G_k = A_k^* L, exceeds beta. End once the certified gap is at most the target.
    2. While beta is above the problem's beta, lower it whenever the point is near the optimum at the present beta.
    3. Enter the top singular pairs of -G_k of the priced blocks, and optimise the sizes of all neurons. That is a
       convex problem, and lets neurons leave.
    4. Take Newton steps within a trust region, which move sizes and directions together.
    5. Where neither f nor the bound moved, ask for a smaller gradient. End after MOST_IDLE_ROUNDS at the smallest.

The loop ends at the certified gap, or with a message where rounding ends progress. A point where no block exceeds beta
and the gradient vanishes has gap zero (Sahiner et al., ICLR 2024, Theorem 3.4). Where a block exceeds beta, its
singular pair is a direction of descent from any point (Theorem 3.3), and the convex problem in the sizes goes along it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from convexnn_bench.algorithms.newton.neurons import NEGLIGIBLE_SIZE, BlockNeurons, singular_pairs
from convexnn_bench.algorithms.newton.point import PointState
from convexnn_bench.algorithms.newton.sizes import SETTLED, best_sizes
from convexnn_bench.algorithms.newton.trust_region import TrustRegionNewton
from convexnn_bench.algorithms.newton.working_problem import WorkingProblem
from convexnn_bench.certificates import lower_bound, relative_gap
from convexnn_bench.norms import spectral_norms
from convexnn_bench.operator import CHUNK_ELEMENTS

# Where no source is named, a value was chosen by trials on the ladder (docs/measurements.md).
EXCESS = 1e-11  # a dual norm above beta by up to this multiple of beta does not exceed it
MOST_ENTERING = 200  # neurons that enter in one round
CANDIDATES = 1000  # most violated blocks, among which the entering ones are chosen: their cosines take 8 MB
LEAST_ENTERING = 20  # blocks that may enter in a round, or as many as there are neurons if that is more
ALIKE = (0.9, 0.99, 0.999)  # cosines of two masks above which only one may enter, raised until enough blocks are found
NEWTON_STEPS = 4  # most per round
SIZES_TOLERANCE = 1e-3  # relative decrease of f that ends the optimisation of the sizes, in units of the gap
PRICINGS = 40  # Hessian products of a round may cost as much as so many pricings of all blocks
GRADIENT_TOLERANCE = 0.1  # relative gradient that ends a round, in units of the gap
FINEST_GRADIENT = 1e-13  # relative gradient below which there is only rounding
NO_PROGRESS = 1e-15  # relative change of f or of the bound that is only rounding
MOST_IDLE_ROUNDS = 3  # rounds without progress at the finest tolerance
# At a beta below FIRST_BETA beta_max the samples are nearly interpolated. Such a beta is reached by steps, each taken
# once relative gradient and relative excess of the dual norms over beta are at most NEAR. On the spiral of 150 points
# this took 1.3 s instead of 8.3 with beta = 1e-3 beta_max, and 2.5 s instead of 57 with 1e-4 beta_max.
FIRST_BETA, BETA_STEP, NEAR = 1e-2, 0.3, 0.3
WARM_DAMPING = 1e-3  # damping of the first step from a start; with 1, teacher[n=500] took twice the Newton steps

Report = Callable[[BlockNeurons, torch.Tensor | None], bool]


@dataclass(frozen=True)
class Pricing:
    """The result of pricing all blocks once."""

    blocks: Int[torch.Tensor, " B"]  # the blocks that may enter, most violated first
    G: Float[torch.Tensor, "B p q"]  # A_k^* L of these blocks
    largest_norm: float  # largest dual norm if one exceeds beta, else 0


class WorkingSetNewton:
    """One run, until the certified relative gap is at most `gap`, or rounding ends it.

    `report` is called with every point's neurons and the best multiplier so far, and returns whether to go on.
    """

    def __init__(self, working: WorkingProblem, gap: float | None, report: Report):
        self.working, self.problem, self.report = working, working.problem, report
        self.target = 0.0 if gap is None else gap
        self.newton = TrustRegionNewton(working)
        self.bound = -math.inf
        self.multiplier: torch.Tensor | None = None
        self.rounds = 0

    def run(self, neurons: BlockNeurons | None = None) -> str | None:
        """Run the steps of the module's docstring; return why it ended, or None if `report` ended it.

        neurons: the first working set, by default empty.
        """
        self.working.beta = max(self.problem.beta, FIRST_BETA * self.problem.beta_max)
        if neurons is None:
            neurons = self.working.no_neurons()
        if len(neurons):
            self.newton.region.damping = WARM_DAMPING
            if self.working.beta > self.problem.beta:
                self.working.beta = self._first_beta(neurons)
        point = PointState(self.working, neurons)
        idle, sharpness, moved = 0, GRADIENT_TOLERANCE, True
        while idle < MOST_IDLE_ROUNDS:
            # 1. Price all blocks.
            value_before, bound_before = point.value, self.bound
            pricing = self.price(point)
            gap = self._gap(point)
            if gap <= self.target:
                return self._summary(point)
            # 2. Lower beta.
            if self.working.beta > self.problem.beta and (self._near_optimum(point, pricing) or not moved):
                self.working.beta = max(self.working.beta * BETA_STEP, self.problem.beta)
                point = PointState(self.working, point.neurons)
                pricing, idle, sharpness = self.price(point), 0, GRADIENT_TOLERANCE
            # 3. Let blocks enter, and neurons leave.
            point = self.entered(point, pricing)
            # 4. Newton steps.
            tolerance = max(sharpness * min(max(gap, self.target), 1.0), FINEST_GRADIENT)
            point, going = self.newton.run(point, tolerance, NEWTON_STEPS, self._on_point, self._products(point))
            if not going or not self.report(point.neurons, self.multiplier):
                return None
            self.rounds += 1
            # 5. Ask for more where nothing moved.
            fell = point.value < value_before * (1 - NO_PROGRESS)
            moved = fell or self.bound - bound_before > NO_PROGRESS * abs(self.bound)
            if not moved:
                sharpness *= 0.1
                idle = idle + 1 if sharpness * min(gap, 1.0) < FINEST_GRADIENT else 0
        return f"rounding prevents further progress; {self._summary(point)}"

    def _first_beta(self, neurons: BlockNeurons) -> float:
        """Return the first beta. At an optimum for some beta, the largest dual norm equals that beta."""
        G = self.working.operator.adjoint(PointState(self.working, neurons).loss_gradient)
        reachable = BETA_STEP * float(spectral_norms(G).max())
        return max(self.problem.beta, min(reachable, self.working.beta))

    def _near_optimum(self, point: PointState, pricing: Pricing) -> bool:
        """Return whether the point is near enough the optimum at the present beta to go on to a smaller one."""
        near = not len(point.neurons) or point.relative_gradient <= NEAR
        return near and pricing.largest_norm <= (1 + NEAR) * self.working.beta

    def _gap(self, point: PointState) -> float:
        return relative_gap(point.value, self.bound) if math.isfinite(self.bound) else math.inf

    def _products(self, point: PointState) -> int:
        """Return the Hessian products that cost as much as PRICINGS pricings of all blocks."""
        problem, J = self.problem, max(1, len(point.neurons))
        return 1 + int(PRICINGS * problem.P * problem.p * problem.q / (2 * J * (problem.p + problem.q)))

    def _on_point(self, point: PointState) -> bool:
        return self.report(point.neurons, self.multiplier)

    def _summary(self, point: PointState) -> str:
        blocks = len(torch.unique(point.neurons.blocks))
        return (
            f"{len(point.neurons)} neurons in {blocks} of {self.problem.P} blocks after {self.rounds} rounds and "
            f"{self.newton.steps} Newton steps"
        )

    # -- pricing ----------------------------------------------------------------------------------------

    def price(self, point: PointState) -> Pricing:
        """Return the lower bound at L = grad F(z) and the blocks that violate it most."""
        working, beta = self.working, self.working.beta
        L = self.problem.loss.project_dual(point.loss_gradient, working.targets)
        G = working.operator.adjoint(L)
        bound = lower_bound(self.problem, L, device=str(working.operator.device), G=G)[0]
        if bound > self.bound:
            self.bound, self.multiplier = bound, L
        # The Frobenius norm is cheap and at least the spectral norm: blocks where it is at most beta are ruled out.
        blocks = torch.nonzero(torch.linalg.vector_norm(G, dim=(1, 2)) > beta * (1 + EXCESS))[:, 0]
        norms = spectral_norms(G[blocks])
        # The block of a neuron may exceed beta by what is left of the gradient, and needs no new neuron for that.
        threshold = torch.full((self.problem.P,), beta * (1 + EXCESS), dtype=norms.dtype, device=norms.device)
        if len(point.neurons):
            threshold[point.neurons.blocks] = beta * (1 + EXCESS + 2 * point.relative_gradient)
        order = torch.argsort(norms, descending=True, stable=True)
        blocks = blocks[order][(norms > threshold[blocks])[order]][:CANDIDATES]
        blocks = blocks[self.spread(blocks, max(LEAST_ENTERING, len(point.neurons)))]
        return Pricing(blocks, G[blocks], float(norms.max()) if len(norms) else 0.0)

    def spread(self, blocks: Int[torch.Tensor, " B"], enough: int) -> Int[torch.Tensor, " C"]:
        """Return the indices of up to `enough` blocks, preferring the first ones whose masks are not ALIKE."""
        if len(blocks) <= enough:
            return torch.arange(len(blocks), device=blocks.device)
        cosines = self._mask_cosines(blocks).cpu().numpy()
        taken: list[int] = []
        for limit in ALIKE:
            free = np.logical_not((cosines[taken] > limit).any(axis=0))
            for index in range(len(blocks)):
                if free[index] and len(taken) < enough:
                    taken.append(index)
                    free &= ~(cosines[index] > limit)
        return torch.tensor(taken, dtype=torch.int64, device=blocks.device)

    def _mask_cosines(self, blocks: Int[torch.Tensor, " B"]) -> Float[torch.Tensor, "B B"]:
        """Return the cosines between the masks of these blocks, taking some samples at a time."""
        operator, B = self.working.operator, len(blocks)
        parts = operator.masks[:, blocks].split(max(1, CHUNK_ELEMENTS // (2 * B)))
        counts = torch.stack([part.to(operator.dtype).sum(dim=0) for part in parts]).sum(dim=0)
        lengths = counts.sqrt().clamp_min(1e-300)
        cosines = torch.zeros(B, B, dtype=operator.dtype, device=operator.device)
        for part in parts:
            scaled = part.to(operator.dtype).div_(lengths)
            cosines.addmm_(scaled.T, scaled)
        return cosines

    # -- entering and leaving ---------------------------------------------------------------------------

    def entered(self, point: PointState, pricing: Pricing) -> PointState:
        """Return the point after the priced blocks have entered, with all sizes at their best."""
        # Take the singular pairs of -G_k with values above beta.
        left, values, right = singular_pairs(-pricing.G)
        over = values > self.working.beta * (1 + EXCESS)
        if not len(point.neurons) and not bool(over.any()):
            return point
        if int(over.sum()) > MOST_ENTERING:
            over &= values >= values.flatten().topk(MOST_ENTERING).values[-1]
        row, pair = torch.nonzero(over, as_tuple=True)
        new = BlockNeurons(pricing.blocks[row], left[row, :, pair].T, right[row, :, pair].T)
        # Optimise the sizes of old and new neurons, the new ones from zero.
        units = BlockNeurons(point.neurons.blocks, point.directions, point.neurons.right).joined(new)
        sizes = torch.cat([point.sizes, torch.zeros_like(values[row, pair])])
        settled = SIZES_TOLERANCE * min(self._gap(point), 1.0)
        sizes = best_sizes(self.working, units, sizes, max(settled, SETTLED))
        # Drop neurons without size, and merge those of one block.
        neurons = BlockNeurons(units.blocks, units.left * sizes, units.right)
        neurons = neurons.selected(sizes > NEGLIGIBLE_SIZE * sizes.max())
        if not len(neurons):
            return PointState(self.working, neurons)
        candidate = PointState(self.working, neurons.merged(NEGLIGIBLE_SIZE))
        return candidate if candidate.value <= point.value else point
