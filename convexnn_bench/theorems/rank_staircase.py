"""The Burer-Monteiro staircase: from too few columns to a certified optimum, leaving every wrong stationary point.

A stationary point with a zero column in every block has the Hessian of the point without it, and beside it, for every
block, [[beta I, G_k], [G_k^T, beta I]], whose smallest eigenvalue is beta - ||G_k||_2. Where ||G_k||_2 > beta the
point is a saddle, and the top singular pair of -G_k in the spare column descends (Sahiner et al., ICLR 2024,
Theorem 3.3).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float

from convexnn_bench.certificates import certify
from convexnn_bench.formulations import Point, burer_monteiro
from convexnn_bench.problem import Problem
from convexnn_bench.solver import Number, Whole
from convexnn_bench.terminal import progress
from convexnn_bench.theorems.curvature import check_seed, check_smooth, smallest_curvature
from convexnn_bench.theorems.ends import StaircaseStep
from convexnn_bench.theorems.figures import staircase_figure
from convexnn_bench.theorems.trust_region import trust_region_newton

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Left = Float[torch.Tensor, "P p m"]
Right = Float[torch.Tensor, "P q m"]


@dataclass(frozen=True)
class Staircase:
    """Its steps, and the last point (U, V). certified: the last gap is at most `target`. reason: why it ended."""

    about: str
    steps: tuple[StaircaseStep, ...]
    target: float
    beta: float
    reason: str
    point: tuple[torch.Tensor, torch.Tensor] = field(repr=False, compare=False)

    @property
    def certified(self) -> bool:
        return self.steps[-1].gap <= self.target

    def __iter__(self) -> Iterator[StaircaseStep]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def to_frame(self) -> "pd.DataFrame":
        """One row a step."""
        import pandas as pd

        return pd.DataFrame([vars(step) for step in self.steps])

    def plot(self) -> "Figure":
        """Objective, and certified relative gap, against m."""
        return staircase_figure(self.steps, self.target)

    def __str__(self) -> str:
        head = f"{'m':>3} {'objective':>14} {'lower bound':>14} {'gap':>9} {'gradient':>9} {'curvature/beta':>15}"
        lines = [f"Burer-Monteiro staircase, {self.about}", f"{head} {'1-max||G||/beta':>16} {'rank':>5}"]
        for step in self.steps:
            lines.append(
                f"{step.m:>3} {step.objective:>14.9g} {step.lower_bound:>14.9g} {step.gap:>9.1e} "
                f"{step.relative_gradient:>9.1e} {step.curvature / self.beta:>15.6g} "
                f"{step.predicted / self.beta:>16.6g} {step.rank:>5}"
            )
        return "\n".join([*lines, self.reason])


def staircase(problem: Any, seed: Any = 0, *, gap: Any = 1e-6, steps: Any = 500) -> Staircase:
    """Start at zero; append to every block with ||G_k||_2 > beta the top singular pair of -G_k; train; again, until the
    certified relative gap is at most `gap`.

    Training is trust-region Newton, at most `steps` steps a stair. seed: of the start vector of Lanczos' method;
    nothing else is random. It ends by m = min(p, q) in exact arithmetic, where every second-order point is global; two
    columns more are allowed for. Raises UnsupportedError for ReLU and InputError for unusable arguments.
    """
    problem, seed = check_smooth(problem), check_seed(seed)
    gap, steps = Number().check("gap", gap), Whole().check("steps", steps) or 1
    U = torch.zeros(problem.P, problem.p, 0, dtype=torch.float64)
    V = torch.zeros(problem.P, problem.q, 0, dtype=torch.float64)
    found: list[StaircaseStep] = []
    last = min(problem.p, problem.q) + 2
    with progress("staircase", total=last) as update:
        while True:
            padded = _padded(U), _padded(V)
            found.append(_step(problem, padded, seed))
            update(len(found), f"m = {found[-1].m}, certified gap {found[-1].gap:.1e}")
            if found[-1].gap <= gap:
                reason = f"certified at m = {found[-1].m}: gap {found[-1].gap:.1e} <= {gap:.0e}"
                break
            direction = descent_columns(problem, *padded)
            if len(found) > last or direction is None:
                why = "no block has ||G_k|| > beta" if direction is None else f"m = {found[-1].m} columns were tried"
                reason = f"not certified: gap {found[-1].gap:.1e} > {gap:.0e}; {why}"
                break
            dU, dV = direction
            end = trust_region_newton(problem, torch.cat([U, dU], dim=2), torch.cat([V, dV], dim=2), steps=steps)
            U, V = end.U, end.V
    return Staircase(repr(problem), tuple(found), gap, problem.beta, reason, padded)


def descent_columns(
    problem: Problem, U: Left, V: Right
) -> tuple[Float[torch.Tensor, "P p 1"], Float[torch.Tensor, "P q 1"]] | None:
    """A column for every block that lowers the objective: sqrt(t_k) times the top singular pair of -G_k, zero where
    ||G_k||_2 <= beta; None where all are.

    t_k = s (||G_k||_2 - beta)_+ with s the minimiser of the quadratic upper model: the objective, which is convex in s,
    falls by at least s/2 sum_k (||G_k||_2 - beta)_+^2.
    """
    operator = problem.operator()
    G = operator.adjoint(problem.loss.gradient(operator.apply_factors(U, V), operator.Y))
    left, values, right = torch.linalg.svd(-G, full_matrices=False)
    excess = (values[:, 0] - problem.beta).clamp_min(0)
    if not bool((excess > 0).any()):
        return None
    x, y = left[:, :, :1], right[:, :1].transpose(1, 2)
    image = operator.apply(excess[:, None, None] * (x @ y.transpose(1, 2)))
    s = excess.square().sum() / (problem.loss.smoothness * image.square().sum())
    size = (s * excess).sqrt()[:, None, None]
    return size * x, size * y


def _padded(factor: Float[torch.Tensor, "P rows m"]) -> Float[torch.Tensor, "P rows m1"]:
    return torch.nn.functional.pad(factor, (0, 1))


def _step(problem: Problem, point: tuple[torch.Tensor, torch.Tensor], seed: int) -> StaircaseStep:
    certificate = certify(problem, Point(factors=point))
    curvature = smallest_curvature(problem, burer_monteiro.check_factors(problem, *point), seed)
    assert certificate.ranks is not None
    return StaircaseStep(
        m=point[0].shape[2] - 1,
        objective=certificate.primal,
        lower_bound=certificate.dual,
        gap=certificate.gap,
        relative_gradient=curvature.relative_gradient,
        curvature=curvature.eigenvalue,
        predicted=problem.beta - certificate.max_dual_norm,
        rank=max(certificate.ranks),
    )
