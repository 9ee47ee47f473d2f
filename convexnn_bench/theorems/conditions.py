"""The hypotheses and the conclusion of a theorem, as numbers with limits."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from convexnn_bench.certificates import Certificate, relative_gap
from convexnn_bench.theorems.curvature import Curvature

if TYPE_CHECKING:
    import pandas as pd

GAP_FACTOR = 10.0  # tolerance of the conclusion, in tolerances of one hypothesis: their errors add up


@dataclass(frozen=True)
class Condition:
    """One hypothesis, or the conclusion: a computed number and its limit."""

    text: str
    value: float
    limit: str
    met: bool

    def __str__(self) -> str:
        return f"  [{'x' if self.met else ' '}] {self.text:<52} {self.value:>11.4g}   {self.limit}"


@dataclass(frozen=True)
class TheoremCheck:
    """A theorem checked at one point.

    Attributes
    ----------
    theorem, about : str
        The theorem, and a description of the problem and the point.
    hypotheses : tuple of Condition
        The hypotheses of the theorem.
    conclusion : Condition
        Its conclusion, a certified gap.
    certificate : Certificate
        The certificate of the point.
    point : tuple of torch.Tensor
        (U, V), P x p x m and P x q x m.
    curvature : Curvature or None
        None for Theorem 3.5, which does not need it.
    note : str
        What follows from a hypothesis that is not met.
    """

    theorem: str
    about: str
    hypotheses: tuple[Condition, ...]
    conclusion: Condition
    certificate: Certificate = field(repr=False)
    point: tuple[torch.Tensor, torch.Tensor] = field(repr=False, compare=False)
    curvature: Curvature | None = field(default=None, repr=False)
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the conclusion holds, or None if a hypothesis is not met."""
        if not all(condition.met for condition in self.hypotheses):
            return None
        return self.conclusion.met

    @property
    def verdict(self) -> str:
        """The result in words, with the hypotheses that are not met."""
        if self.holds is None:
            missing = [condition.text for condition in self.hypotheses if not condition.met]
            return f"hypothesis not met: {'; '.join(missing)}{self.note}"
        return "holds" if self.holds else "VIOLATED: the hypotheses hold to the tolerance and the conclusion does not"

    def to_frame(self) -> "pd.DataFrame":
        """Return one row for each condition: part, text, value, limit, met."""
        import pandas as pd

        parts = [("hypothesis", condition) for condition in self.hypotheses] + [("conclusion", self.conclusion)]
        return pd.DataFrame(
            [{"part": part, **vars(condition)} for part, condition in parts],
            columns=["part", "text", "value", "limit", "met"],
        )

    def __str__(self) -> str:
        lines = [f"{self.theorem}", f"  {self.about}", "hypotheses", *map(str, self.hypotheses)]
        return "\n".join([*lines, "conclusion", str(self.conclusion), f"verdict: {self.verdict}"])


def stationary(relative_gradient: float, tolerance: float) -> Condition:
    """Return the condition that the gradient vanishes."""
    text = "stationary: ||grad f|| / sqrt(2 beta f)"
    return Condition(text, relative_gradient, f"<= {tolerance:.0e}", relative_gradient <= tolerance)


def at_least(text: str, value: float, low: float) -> Condition:
    """Return the condition value >= low."""
    return Condition(text, value, f">= {low:.0e}", value >= low)


def at_most(text: str, value: float, high: float) -> Condition:
    """Return the condition value <= high."""
    return Condition(text, value, f"<= {high:.0e}", value <= high)


def global_minimum(certificate: Certificate, tolerance: float) -> Condition:
    """Return the conclusion that the certified point is a global minimum."""
    limit = GAP_FACTOR * tolerance
    # computed here because a certificate refuses the gap if rounding puts the objective below the bound
    gap = relative_gap(certificate.primal, certificate.dual)
    return Condition("global: certified relative gap", gap, f"<= {limit:.0e}", gap <= limit)
