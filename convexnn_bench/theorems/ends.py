"""Where training ended, from random starts and on the staircase.

These are plain numbers, without arrays, so that figures and tables can be made from lists of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class End:
    """The point at which training from one random start ended.

    Attributes
    ----------
    m : int
        Columns of every block.
    seed : int
        Seed of the random start.
    objective : float
        Objective of the end point.
    excess : float
        (objective - bound) / |bound| with the best proven lower bound on p*.
    relative_gradient : float
        ||grad f|| / sqrt(2 beta f).
    curvature : float
        Smallest eigenvalue of the Hessian, divided by beta.
    kind : str
        "global" if the excess is within the tolerance, which proves it; "second order, above p*"; or "unfinished" if
        the point is not stationary, or has negative curvature, beyond the tolerance.
    """

    m: int
    seed: int
    objective: float
    excess: float
    relative_gradient: float
    curvature: float
    kind: str


@dataclass(frozen=True)
class Width:
    """A summary of all ends with m columns a block.

    Attributes
    ----------
    m, covered : int, bool
        Columns of every block, and whether m >= min(p, q), so that the theorem applies.
    starts, global_ends, second_order : int
        Numbers of starts, of ends proven to be global, and of ends that are second-order stationary to the tolerance.
    spurious : int
        Second-order ends more than ten tolerances above p*.
    above_own_best : int
        Second-order ends more than the tolerance above the lowest end of this width: each is proven not to be global
        for its own width.
    best_excess, worst_excess : float
        Least and largest relative excess over the proven lower bound.
    """

    m: int
    covered: bool
    starts: int
    global_ends: int
    second_order: int
    spurious: int
    above_own_best: int
    best_excess: float
    worst_excess: float

    @property
    def verdict(self) -> str:
        """Say whether the theorem holds, or what was observed where it does not apply."""
        unfinished = self.starts - self.global_ends
        # The theorem speaks of second-order points only. An end that is not yet one neither confirms nor violates it.
        if self.covered:
            if self.spurious:
                return f"VIOLATED: {self.spurious} second-order ends are not global"
            return "holds" if not unfinished else f"holds; it says nothing about {unfinished} unfinished ends"
        if not unfinished:
            return "not covered; every start reached p*"
        reached = "some starts reached p*" if self.global_ends else "no start reached p*"
        own = f"{self.above_own_best} ends spurious for this width" if self.above_own_best else ""
        # All ends are second-order points of one value above p*, which may be the least that so few columns can reach.
        if not own and not self.global_ends and self.second_order == self.starts:
            own = "all ends at the best of this width"
        return "; ".join(part for part in ("not covered", reached, own) if part)


@dataclass(frozen=True)
class StaircaseStep:
    """A trained point with m columns a block, measured with a zero column appended.

    m = 0 stands for the zero network.

    Attributes
    ----------
    m : int
        Columns of every block before the zero column was appended.
    objective, lower_bound, gap : float
        The certified numbers of the point; the gap is relative.
    relative_gradient : float
        ||grad f|| / sqrt(2 beta f).
    curvature : float
        Smallest eigenvalue of the Hessian, measured.
    predicted : float
        beta - max_k ||G_k||_2. It equals `curvature` at a saddle from which no other direction bends further down.
    rank : int
        Largest rank of a block.
    """

    m: int
    objective: float
    lower_bound: float
    gap: float
    relative_gradient: float
    curvature: float
    predicted: float
    rank: int
