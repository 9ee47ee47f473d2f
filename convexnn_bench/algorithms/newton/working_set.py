"""Burer-Monteiro by Newton's method on a working set of blocks, guided and stopped by the certificate.

Each round: the dual point grad F is priced against all P blocks, which gives the lower bound and the blocks whose dual
norm exceeds beta; these enter with their top singular pairs of -G_k; the sizes of all neurons are optimised, a convex
problem, which lets neurons leave; damped Newton steps move sizes and directions together.

Why it cannot stop at a wrong point: it stops on the certified gap alone. A point where no block exceeds beta and the
gradient vanishes has gap zero (Sahiner et al., ICLR 2024, Theorem 3.4). Where some block exceeds beta, its singular
pair is a direction of descent from any point (Theorem 3.3), of which the convex problem in the sizes takes the best
part.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from convexnn_bench.algorithms.newton.descent import Descent
from convexnn_bench.algorithms.newton.neurons import NEGLIGIBLE, Neurons, top_pairs
from convexnn_bench.algorithms.newton.point import Here, WorkingProblem
from convexnn_bench.algorithms.newton.sizes import SETTLED, best_sizes
from convexnn_bench.certificates import lower_bound
from convexnn_bench.certificates.certificate import relative_gap
from convexnn_bench.norms.spectral import spectral_norms
from convexnn_bench.operator.lifted import CHUNK_ELEMENTS

EXCESS = 1e-11  # relative excess of a dual norm over beta that counts as none
ENTERING = 200  # neurons a round
CANDIDATES = 1000  # blocks that these are chosen from
FEWEST = 20  # blocks that enter at least, else half as many as there are neurons
ALIKE = (0.9, 0.99, 0.999)  # cosine of two masks above which only one enters at first, then, and in the end
STEPS = 4  # Newton steps a round
ROUGH = 1e-3  # of the gap, to which the sizes are brought
PRICINGS = 40  # a round's Hessian products against one pricing of all blocks
PART = 0.1  # of the gap, to which the gradient is brought
FINEST = 1e-13  # relative gradient beyond which there is only rounding
# a beta below this part of beta_max, at which the samples are all but interpolated, is come to by steps, each begun
# where the gradient and the excess over beta are small
FIRST_BETA, SMALLER, NEAR = 1e-2, 0.3, 0.3
IDLE = 3  # rounds without progress at the finest tolerance

Report = Callable[[Neurons, torch.Tensor | None], bool]


@dataclass(frozen=True)
class Price:
    """bound: -F* at the best multiple of Lambda. blocks: those that enter, most violated first; G: theirs. most: the
    largest dual norm where some are above beta, else 0."""

    bound: float
    Lambda: torch.Tensor
    blocks: Int[torch.Tensor, " B"]
    G: Float[torch.Tensor, "B p q"]
    most: float


class WorkingSet:
    """One run. report(neurons, Lambda) sees every point, with the best multiplier, and says whether to go on.

    gap: certified relative gap to stop at, None to go on until rounding ends it.
    """

    def __init__(self, working: WorkingProblem, gap: float | None, report: Report):
        self.working, self.problem, self.report = working, working.problem, report
        self.target = 0.0 if gap is None else gap
        self.descent = Descent(working)
        self.bound = -math.inf
        self.Lambda: torch.Tensor | None = None
        self.rounds = 0

    def run(self) -> str | None:
        """Until the certified gap is at most the target; returns why it ended, None where `report` stopped it."""
        self.working.beta = max(self.problem.beta, FIRST_BETA * self.problem.beta_max)
        here = self.working.at(self.working.empty())
        idle, part, moved = 0, PART, True
        while idle < IDLE:
            before, old_bound = here.value, self.bound
            price = self.price(here)
            gap = self._gap(here)
            if gap <= self.target:
                return self._summary(here)
            if self.working.beta > self.problem.beta and (self._settled(here, price) or not moved):
                self.working.beta = max(self.working.beta * SMALLER, self.problem.beta)
                here = self.working.at(here.neurons)
                price, idle, part = self.price(here), 0, PART
            here = self.entered(here, price)
            tolerance = max(part * min(max(gap, self.target), 1.0), FINEST)
            here, going = self.descent.run(here, tolerance, STEPS, self._tick, self._products(here))
            if not going or not self.report(here.neurons, self.Lambda):
                return None
            self.rounds += 1
            moved = here.value < before * (1 - 1e-15) or self.bound - old_bound > 1e-15 * abs(self.bound)
            if not moved:
                part *= 0.1
                idle = idle + 1 if part * gap < FINEST else 0
        return f"rounding ends it; {self._summary(here)}"

    def _settled(self, here: Here, price: Price) -> bool:
        """Whether the point is near enough the optimum at the present beta to go on to a smaller one."""
        near = not len(here.neurons) or here.slope <= NEAR
        return near and price.most <= (1 + NEAR) * self.working.beta

    def _gap(self, here: Here) -> float:
        return relative_gap(here.value, self.bound) if math.isfinite(self.bound) else math.inf

    def _products(self, here: Here) -> int:
        """Hessian products after which blocks are priced again: PRICINGS times what pricing costs, in products."""
        problem, J = self.problem, max(1, len(here.neurons))
        return 1 + int(PRICINGS * problem.P * problem.p * problem.q / (2 * J * (problem.p + problem.q)))

    def _tick(self, here: Here) -> bool:
        return self.report(here.neurons, self.Lambda)

    def _summary(self, here: Here) -> str:
        blocks = len(torch.unique(here.neurons.blocks))
        return (
            f"{len(here.neurons)} neurons in {blocks} of {self.problem.P} blocks after {self.rounds} rounds and "
            f"{self.descent.steps} Newton steps"
        )

    def price(self, here: Here) -> Price:
        """The lower bound at grad F(z), and the blocks that violate it most."""
        working, beta = self.working, self.working.beta
        Lambda = self.problem.loss.project_dual(here.L, working.targets)
        G = working.operator.adjoint(Lambda)
        bound = lower_bound(self.problem, Lambda, device=str(working.operator.device), G=G)[0]
        if bound > self.bound:
            self.bound, self.Lambda = bound, Lambda
        # no spectral norm is above the Euclidean one
        blocks = torch.nonzero(torch.linalg.vector_norm(G, dim=(1, 2)) > beta * (1 + EXCESS))[:, 0]
        norms = spectral_norms(G[blocks])
        # blocks at hand exceed beta by what Newton's method has left of their gradient, and need no new neuron for that
        least = torch.full((self.problem.P,), beta * (1 + EXCESS), dtype=norms.dtype, device=norms.device)
        if len(here.neurons):
            least[here.neurons.blocks] = beta * (1 + EXCESS + 2 * here.slope)
        order = torch.argsort(norms, descending=True, stable=True)
        blocks = blocks[order][(norms > least[blocks])[order]][:CANDIDATES]
        blocks = blocks[self.spread(blocks, max(FEWEST, len(here.neurons)))]
        return Price(bound, Lambda, blocks, G[blocks], float(norms.max()) if len(norms) else 0.0)

    def spread(self, blocks: Int[torch.Tensor, " B"], enough: int) -> Int[torch.Tensor, " C"]:
        """Places of `enough` blocks, the first ones, among those whose masks differ; then of those more alike."""
        if len(blocks) <= enough:
            return torch.arange(len(blocks), device=blocks.device)
        cosines = self._cosines(blocks).cpu().numpy()
        taken: list[int] = []
        for most in ALIKE:
            free = np.logical_not((cosines[taken] > most).any(axis=0))
            for place in range(len(blocks)):
                if free[place] and len(taken) < enough:
                    taken.append(place)
                    free &= ~(cosines[place] > most)
        return torch.tensor(taken, dtype=torch.int64, device=blocks.device)

    def _cosines(self, blocks: Int[torch.Tensor, " B"]) -> Float[torch.Tensor, "B B"]:
        """Of the masks of these blocks, some samples at a time."""
        operator, B = self.working.operator, len(blocks)
        parts = operator.masks[:, blocks].split(max(1, CHUNK_ELEMENTS // (2 * B)))
        lengths = (
            torch.stack([part.to(operator.dtype).sum(dim=0) for part in parts]).sum(dim=0).sqrt().clamp_min(1e-300)
        )
        cosines = torch.zeros(B, B, dtype=operator.dtype, device=operator.device)
        for part in parts:
            scaled = part.to(operator.dtype).div_(lengths)
            cosines.addmm_(scaled.T, scaled)
        return cosines

    def entered(self, here: Here, price: Price) -> Here:
        """The point with the priced blocks' singular pairs of -G_k joined to it, all sizes at their best."""
        left, values, right = top_pairs(-price.G)
        over = values > self.working.beta * (1 + EXCESS)
        if not len(here.neurons) and not bool(over.any()):
            return here
        if int(over.sum()) > ENTERING:
            over &= values >= values.flatten().topk(ENTERING).values[-1]
        row, place = torch.nonzero(over, as_tuple=True)
        new = Neurons(price.blocks[row], left[row, :, place].T, right[row, :, place].T)
        units = Neurons(here.neurons.blocks, here.directions, here.neurons.Y).joined(new)
        sizes = torch.cat([here.sizes, torch.zeros_like(values[row, place])])
        settled = ROUGH * min(self._gap(here), 1.0)
        sizes = best_sizes(self.working, units, sizes, max(settled, SETTLED))
        neurons = Neurons(units.blocks, units.W * sizes, units.Y).kept(sizes > NEGLIGIBLE * sizes.max())
        if not len(neurons):
            return self.working.at(neurons)
        there = self.working.at(neurons.merged(NEGLIGIBLE))
        return there if there.value <= here.value else here
