"""The Burer-Monteiro staircase: from too few columns to a certified optimum.

A stationary point with a zero column in every block has the Hessian of the point without it, and beside it, for every
block, [[beta I, G_k], [G_k^T, beta I]], whose smallest eigenvalue is beta - ||G_k||_2. Where ||G_k||_2 > beta the
point is a saddle, and the top singular pair of -G_k in the spare column descends (Sahiner et al., ICLR 2024,
Theorem 3.3).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float

from convexnn_bench.certificates import certify
from convexnn_bench.formulations import Point, burer_monteiro
from convexnn_bench.plugins import SEED, Number, Whole
from convexnn_bench.problem import Problem
from convexnn_bench.terminal import progress
from convexnn_bench.theorems.curvature import check_smooth, smallest_curvature
from convexnn_bench.theorems.ends import StaircaseStep
from convexnn_bench.theorems.figures import staircase_figure
from convexnn_bench.theorems.trust_region import trust_region_newton

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Left = Float[torch.Tensor, "P p m"]
Right = Float[torch.Tensor, "P q m"]

SPARE_COLUMNS = 2  # columns beyond min(p, q), in case rounding leaves a gap there


@dataclass(frozen=True)
class Staircase:
    """The steps from the zero network to a certified optimum.

    Attributes
    ----------
    about : str
        A description of the problem.
    steps : tuple of StaircaseStep
        One step for each number of columns.
    target : float
        The target of the certified relative gap.
    beta : float
        The weight decay, which is the unit of the printed curvatures.
    reason : str
        Why the staircase ended.
    point : tuple of torch.Tensor
        The last (U, V), with a zero column appended.
    """

    about: str
    steps: tuple[StaircaseStep, ...]
    target: float
    beta: float
    reason: str
    point: tuple[torch.Tensor, torch.Tensor] = field(repr=False, compare=False)

    @property
    def certified(self) -> bool:
        """Whether the last gap is at most the target."""
        return self.steps[-1].gap <= self.target

    def __iter__(self) -> Iterator[StaircaseStep]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row for each step."""
        import pandas as pd

        return pd.DataFrame([vars(step) for step in self.steps])

    def plot(self) -> "Figure":
        """Draw the objective and the certified relative gap against m."""
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


def staircase(problem: Problem, seed: int = 0, *, gap: float = 1e-6, steps: int = 500) -> Staircase:
    """Grow Burer-Monteiro factors from zero to a certified global optimum.

    They grow column by column.

    1. Certify the point with a zero column appended to every block; stop if its relative gap is at most `gap`.
    2. Fill this column, in every block with ||G_k||_2 > beta, with the top singular pair of -G_k, which descends; stop
       if there is no such block.
    3. Train by trust-region Newton, and go to 1.

    Parameters
    ----------
    problem : Problem
        A problem with linear or gated activation.
    seed : int
        Seed of the start vector of Lanczos' method; nothing else is random.
    gap : float
        Certified relative gap at which the staircase ends.
    steps : int
        Most steps of trust-region Newton for each number of columns.

    Returns
    -------
    Staircase
        The steps, and why it ended.

    Raises
    ------
    UnsupportedError
        If the activation is ReLU.
    InputError
        If an argument is not usable.

    Notes
    -----
    In exact arithmetic the staircase ends by m = min(p, q), where every second-order point is global. SPARE_COLUMNS
    more are allowed because of rounding.

    Examples
    --------
    >>> import convexnn_bench as cnn
    >>> problem = cnn.Problem([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.5], activation="linear", beta=0.1)
    >>> cnn.staircase(problem).certified
    True
    """
    problem, seed = check_smooth(problem), SEED.check("seed", seed)
    gap, steps = Number().check("gap", gap), Whole().check("steps", steps)
    U = torch.zeros(problem.P, problem.p, 0, dtype=torch.float64)
    V = torch.zeros(problem.P, problem.q, 0, dtype=torch.float64)
    climbed: list[StaircaseStep] = []
    last = min(problem.p, problem.q) + SPARE_COLUMNS
    with progress("staircase", total=last) as update:
        while True:
            # 1. certify the point with a spare column
            padded = _padded(U), _padded(V)
            climbed.append(_step(problem, padded, seed))
            update(len(climbed), f"m = {climbed[-1].m}, certified gap {climbed[-1].gap:.1e}")
            if climbed[-1].gap <= gap:
                reason = f"certified at m = {climbed[-1].m}: gap {climbed[-1].gap:.1e} <= {gap:.0e}"
                break
            # 2. fill the spare column with a direction of descent
            direction = descent_columns(problem, *padded)
            # The steps include the zero network, so that m = `last` columns are still tried.
            if len(climbed) > last or direction is None:
                why = "no block has ||G_k|| > beta" if direction is None else f"m = {climbed[-1].m} columns were tried"
                reason = f"not certified: gap {climbed[-1].gap:.1e} > {gap:.0e}; {why}"
                break
            # 3. train
            dU, dV = direction
            end = trust_region_newton(problem, torch.cat([U, dU], dim=2), torch.cat([V, dV], dim=2), steps=steps)
            U, V = end.U, end.V
    return Staircase(repr(problem), tuple(climbed), gap, problem.beta, reason, padded)


def descent_columns(
    problem: Problem, U: Left, V: Right
) -> tuple[Float[torch.Tensor, "P p 1"], Float[torch.Tensor, "P q 1"]] | None:
    """Return a column for every block that lowers the objective.

    Return None if no block has ||G_k||_2 > beta.

    It is sqrt(t_k) times the top singular pair of -G_k, with t_k = s (||G_k||_2 - beta)_+ and s the minimiser of the
    quadratic upper model: the objective, convex in s, falls by at least s/2 sum_k (||G_k||_2 - beta)_+^2.
    """
    operator = problem.operator()
    G = operator.adjoint(problem.loss.gradient(operator.apply_factors(U, V), operator.Y))
    left, values, right = torch.linalg.svd(-G, full_matrices=False)
    excess = (values[:, 0] - problem.beta).clamp_min(0)
    if not bool((excess > 0).any()):
        return None
    # Write e_k for the excess. The columns sqrt(s e_k) (x_k, y_k) move block k by s e_k x_k y_k^T, so that <G, dZ> is
    # -s sum e_k ||G_k|| and the regulariser grows by s sum e_k beta: together the first-order change is -s sum e_k^2.
    x, y = left[:, :, :1], right[:, :1].transpose(1, 2)
    image = operator.apply(excess[:, None, None] * (x @ y.transpose(1, 2)))
    # F grows by at most L/2 s^2 ||A(e x y^T)||^2 beyond its slope, with L the loss's smoothness. s minimises the sum.
    s = excess.square().sum() / (problem.loss.smoothness * image.square().sum())
    size = (s * excess).sqrt()[:, None, None]
    return size * x, size * y


def _padded(factor: Float[torch.Tensor, "P rows m"]) -> Float[torch.Tensor, "P rows m1"]:
    return torch.nn.functional.pad(factor, (0, 1))


def _step(problem: Problem, point: tuple[torch.Tensor, torch.Tensor], seed: int) -> StaircaseStep:
    certificate = certify(problem, Point(factors=point))
    # The zero column adds the eigenvalues of [[beta I, G_k], [G_k^T, beta I]] to those of the trained point: beta plus
    # and minus the singular values of G_k.
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
