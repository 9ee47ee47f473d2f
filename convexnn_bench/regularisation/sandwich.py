"""Enclose an optimum that is concave in the weight decay between lines and chords.

Between two neighbouring knots beta_a < beta_b the optimum is at most the line of either knot, and at least the chord of
their bounds. On an interval where both are linear and the chord is positive, their ratio is monotone, so that the
relative gap is largest at a knot or where the two lines cross (Rote, The convergence rate of the sandwich algorithm,
Computing 48, 1992).
"""

import itertools
import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from convexnn_bench.certificates import Line, Witness, mixed, relative_gap
from convexnn_bench.formulations import Point
from convexnn_bench.problem import Problem
from convexnn_bench.regularisation.mixing import mixed_point
from convexnn_bench.running import Result

EPS = 2.0**-52
_COUNTER = itertools.count()  # orders entries of a heap that are equal otherwise


@dataclass(frozen=True)
class Network:
    """A certified network of a path.

    Attributes
    ----------
    result : Result
        The result, with its problem at its own weight decay.
    point : Point
        The point of the result.
    witness : Witness
        The numbers of the point that give bounds at other weight decays.
    line : Line
        Its objective at every weight decay.
    """

    result: Result
    point: Point
    witness: Witness
    line: Line

    @property
    def beta(self) -> float:
        """The weight decay of the result."""
        return self.witness.beta

    @property
    def is_zero(self) -> bool:
        """True for the zero network."""
        return self.witness.regulariser == 0


@dataclass(frozen=True)
class Candidate:
    """A point of the path: that of one network, or the mixture of two.

    Attributes
    ----------
    line : Line
        An upper bound on its objective, and so on the optimum, at every weight decay.
    networks : tuple of Network
        The network, or the two that are mixed.
    part : float
        The part of the second network in the mixture.
    """

    line: Line
    networks: tuple[Network, ...] = ()
    part: float = 0.0

    @classmethod
    def mixture(cls, problem: Problem, first: Network, second: Network) -> tuple["Candidate", float]:
        """Return the mixture of two networks at the problem's beta, and its lower bound."""
        line, bound = mixed(problem, first.witness, second.witness)
        part = (problem.beta - first.beta) / (second.beta - first.beta)
        return cls(line, (first, second), part), bound

    def point(self, problem: Problem) -> Point:
        """Return the point in the formulation of the path."""
        if len(self.networks) == 1:
            return self.networks[0].point.copy()
        first, second = self.networks
        return mixed_point(problem, first.point, second.point, self.part)


@dataclass(frozen=True)
class Knot:
    """A weight decay with the bounds that are proven there.

    Attributes
    ----------
    beta : float
        The weight decay.
    candidate : Candidate
        The point with the lowest line at `beta`.
    bound : float
        Lower bound on the optimum at `beta`.
    network : Network or None
        The certified network of this weight decay, if there is one.
    """

    beta: float
    candidate: Candidate
    bound: float
    network: Network | None = None

    @property
    def line(self) -> Line:
        """The line of the candidate."""
        return self.candidate.line

    @property
    def gap(self) -> float:
        """The relative gap at the knot itself."""
        return relative_gap(self.line.at(self.beta), self.bound)


def chord(first: Knot, second: Knot, beta: float) -> float:
    """Return the chord of two lower bounds at a beta between them, rounded down."""
    t = (beta - first.beta) / (second.beta - first.beta)
    rounding = 16 * EPS * (abs(first.bound) + abs(second.bound))
    return (1 - t) * first.bound + t * second.bound - rounding


@dataclass(frozen=True)
class Interval:
    """Two neighbouring knots, the largest relative gap between them, and a split."""

    first: Knot
    second: Knot
    gap: float
    split: float

    @classmethod
    def between(cls, first: Knot, second: Knot) -> "Interval":
        """Return the interval of two knots, first.beta < second.beta."""
        # 1. Find where the lines cross. The line of the smaller beta is the steeper one.
        slope = first.line.regulariser - second.line.regulariser
        beta = (second.line.loss - first.line.loss) / slope if slope > 0 else math.nan
        middle = math.sqrt(first.beta * second.beta)
        split = beta if first.beta < beta < second.beta else middle
        # 2. Each line bounds the optimum on its side of any such beta, so that an inexact crossing gives no false gap.
        low = chord(first, second, split)
        bounds = (first.bound, second.bound, low)
        if min(bounds) <= 0 <= max(bounds):  # the relative gap is infinite where a bound is zero
            return cls(first, second, math.inf, middle)
        at_split = max(first.line.at(split), second.line.at(split))
        return cls(first, second, max(first.gap, relative_gap(at_split, low) * (1 + 64 * EPS), second.gap), split)


class Sandwich:
    """Knots in the order of their weight decays.

    A knot that is added never makes the enclosure wider.
    """

    def __init__(self, smallest: Knot, largest: Knot):
        self.knots = [smallest, largest]
        self.intervals = [Interval.between(smallest, largest)]
        self._heap = [_entry(interval) for interval in self.intervals]

    @property
    def gap(self) -> float:
        """The largest relative gap at any beta between the first and the last knot."""
        return max(interval.gap for interval in self.intervals)

    def worst(self) -> Interval | None:
        """Return the interval with the largest gap, without discarded ones, or None."""
        # Replaced intervals stay in the heap until they come to its top.
        while self._heap:
            interval = self._heap[0][-1]
            index = self.place(interval.second.beta) - 1
            if index < len(self.intervals) and self.intervals[index] is interval:
                return interval
            heappop(self._heap)
        return None

    def discard(self) -> None:
        """Leave the interval that `worst` returned out of its later answers."""
        heappop(self._heap)

    def add(self, knot: Knot) -> None:
        """Add a knot, with the lowest line of its own and its neighbours'.

        Its bound is at least the chord of the neighbours.

        The knot replaces an old knot of the same weight decay, whose network is kept if its line is lower.
        """
        beta, place = knot.beta, self.place(knot.beta)
        candidates, networks, bound = [knot.candidate], [knot.network], max(knot.bound, self.low(beta))
        if self.knots[place].beta == beta:
            old = self.knots.pop(place)
            candidates.append(old.candidate)
            networks.append(old.network)
        else:
            self.intervals.insert(place, self.intervals[place - 1])  # both halves are computed below
        best = min(candidates, key=lambda candidate: candidate.line.at(beta))
        here = [network for network in networks if network is not None]
        network = min(here, key=lambda network: network.line.at(beta), default=None)
        self.knots.insert(place, Knot(beta, best, bound, network))
        # The bounds at one of three knots may improve those at the others.
        for index in (place, place - 1, place + 1):
            if 0 <= index < len(self.knots):
                self._improve(index)
        for index in range(max(place - 2, 0), min(place + 2, len(self.intervals))):
            interval = Interval.between(self.knots[index], self.knots[index + 1])
            self.intervals[index] = interval
            heappush(self._heap, _entry(interval))

    def _improve(self, index: int) -> None:
        """Give a knot the lowest line of its neighbours, and their chord as its bound.

        A value of its own that is better stays.
        """
        knot, beside = self.knots[index], [self.knots[i] for i in (index - 1, index + 1) if 0 <= i < len(self.knots)]
        candidates = [knot.candidate, *(other.candidate for other in beside)]
        best = min(candidates, key=lambda candidate: candidate.line.at(knot.beta))
        inside = len(beside) == 2
        bound = max(knot.bound, chord(beside[0], beside[1], knot.beta)) if inside else knot.bound
        self.knots[index] = replace(knot, candidate=best, bound=bound)

    def place(self, beta: float) -> int:
        """Return the index of the first knot whose weight decay is at least beta."""
        return bisect_left(self.knots, beta, key=lambda knot: knot.beta)

    def low(self, beta: float) -> float:
        """Return a lower bound on the optimum at a weight decay of the interval."""
        place = self.place(beta)
        knot = self.knots[place]
        return knot.bound if knot.beta == beta else chord(self.knots[place - 1], knot, beta)

    def high(self, beta: float) -> float:
        """Return the least of all lines, an upper bound on the optimum at a beta."""
        return self.lowest(beta).line.at(beta)

    def lowest(self, beta: float) -> Candidate:
        """Return the candidate with the lowest line at a weight decay."""
        return min((knot.candidate for knot in self.knots), key=lambda candidate: candidate.line.at(beta))

    def solved(self) -> list[tuple[Network, float]]:
        """Return the certified networks with their bounds, from the smallest beta up."""
        return [(knot.network, knot.bound) for knot in self.knots if knot.network is not None]

    def neighbours(self, beta: float) -> list[Network]:
        """Return the nearest networks of a smaller and of a larger beta, if there are."""
        place = self.place(beta)
        below = (knot.network for knot in reversed(self.knots[:place]))
        above = (knot.network for knot in self.knots[place:] if knot.beta > beta)
        nearest = [next((network for network in side if network is not None), None) for side in (below, above)]
        return [network for network in nearest if network is not None]


def _entry(interval: Interval) -> tuple[float, float, int, Interval]:
    """Return an entry of the heap, whose first one has the largest gap.

    Of equal gaps, the one with the larger weight decays comes first.
    """
    return -interval.gap, -interval.second.beta, next(_COUNTER), interval
