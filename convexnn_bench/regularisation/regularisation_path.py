"""A regularisation path: results at some weight decays, and bounds at all."""

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convexnn_bench.certificates import certify, strengthened
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.plugins import Number
from convexnn_bench.problem import Problem
from convexnn_bench.regularisation.figure import path_figure
from convexnn_bench.regularisation.sandwich import Candidate, Network, Sandwich
from convexnn_bench.running import Result, describe_scores

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ACTIVE = 1e-6  # size ||u|| ||v|| above which a neuron counts as active, relative to the largest one
DRAWN = 400  # number of weight decays at which the enclosure is drawn, in addition to the knots


@dataclass(repr=False)
class RegularisationPath:
    """Certified networks at some weight decays, and bounds between them.

    Attributes
    ----------
    problem : Problem
        The problem, with the caller's beta.
    solver : str
        The solver's name.
    parameters : dict
        The solver's parameters.
    tolerance : float
        The target of the relative gap.
    scope : {"complete", "sampled"}
        The program of all bounds, as in `Certificate`.
    status : str
        gap_reached, time_limit, interrupted, or stalled if the solver did not come close enough.
    reason : str
        The status in words.
    seed : int
        Seed of the solves.
    device : str
        Device of the solves.
    seconds : float
        Time of the whole search.
    solves : int
        Number of solves. The zero network and mixtures of networks need none.

    Notes
    -----
    `betas`, `objectives`, `bounds` and `results` have one entry for each weight decay with a certified network, from
    the largest down. `enclosure`, `at` and `gap` hold for every weight decay of `interval`.
    """

    problem: Problem
    solver: str
    parameters: dict[str, Any]
    tolerance: float
    scope: str
    status: str
    reason: str
    seed: int
    device: str
    seconds: float
    solves: int
    _sandwich: Sandwich = field(repr=False)

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"{type(self).__name__}({self.solver}, {self.status}: {self.reason:.200}\n"
            f"  beta from {low:.6g} to {high:.6g}, {self.scope} patterns, {self.seconds:.3g} s\n  {self.problem!r})"
        )

    # -- what was solved ----------------------------------------------------------------------------------

    @property
    def _solved(self) -> list[tuple[Network, float]]:
        return self._sandwich.solved()[::-1]

    @property
    def interval(self) -> tuple[float, float]:
        """The smallest and the largest weight decay."""
        return self._sandwich.knots[0].beta, self._sandwich.knots[-1].beta

    @property
    def betas(self) -> np.ndarray:
        """The weight decays with a certified network, from the largest down."""
        return np.array([network.beta for network, _ in self._solved])

    @property
    def objectives(self) -> np.ndarray:
        """The certified objectives of `results`."""
        return np.array([result.objective for result in self.results])

    @property
    def bounds(self) -> np.ndarray:
        """The proven lower bounds at `betas`.

        Each is at least that of the certificate of its result.
        """
        return np.array([bound for _, bound in self._solved])

    @property
    def results(self) -> list[Result]:
        """The results at `betas`.

        The first is the zero network, unless that is not optimal at beta_max.
        """
        return [network.result for network, _ in self._solved]

    # -- at every weight decay ----------------------------------------------------------------------------

    @property
    def gap(self) -> float:
        """The largest relative gap at any weight decay of the interval, rounded up."""
        return self._sandwich.gap

    def enclosure(self, beta: float) -> tuple[float, float]:
        """Return a proven interval of the optimum at a weight decay.

        Parameters
        ----------
        beta : float
            A weight decay of `interval`.

        Returns
        -------
        tuple of float
            Lower and upper bound on p*(beta). Their relative distance is at most `gap`.

        Raises
        ------
        InputError
            beta is outside `interval`.
        """
        beta = self._checked(beta)
        return self._sandwich.low(beta), self._sandwich.high(beta)

    def at(self, beta: float) -> Result:
        """Return a certified network for a weight decay, without solving for it.

        Parameters
        ----------
        beta : float
            A weight decay of `interval`.

        Returns
        -------
        Result
            The stored result if there is one at this beta. Otherwise the network, or the mixture of two networks, with
            the lowest objective here, and a certificate for ``problem.with_beta(beta)``. Its gap is at most that of the
            path.

        Raises
        ------
        InputError
            beta is outside `interval`.

        Notes
        -----
        The multiplier is the better one of two: the gradient at the point, and the mixture of the neighbours'
        multipliers. The bound is at least that of `enclosure`. If the bound of `enclosure` is the larger one,
        `multiplier` of the certificate is None.
        """
        beta = self._checked(beta)
        stored = self._sandwich.knots[self._sandwich.place(beta)]
        best = self._sandwich.lowest(beta)
        if stored.beta == beta and stored.network is not None and stored.network.line.at(beta) <= best.line.at(beta):
            return _with_bound(stored.network.result, stored.bound)
        # 1. Choose the point with the lowest line at this beta, of all networks and mixtures of the path and one
        # further mixture, whose multiplier is used too.
        problem, dual = self.problem.with_beta(beta), None
        near = self._sandwich.neighbours(beta)
        if len(near) == 2:
            between, _ = Candidate.mixture(problem, *near)
            best = min((between, best), key=lambda candidate: candidate.line.at(beta))
            below, above = near
            dual = (1 - between.part) * below.witness.multiplier + between.part * above.witness.multiplier
        point = best.point(problem)
        betas = " and ".join(f"{network.beta:.6g}" for network in best.networks)
        words = f"the {'network of' if len(best.networks) == 1 else 'mixture of the networks at'} beta = {betas}"
        # 2. Certify it.
        point.dual = dual
        certificate = certify(problem, point, self.scope)
        status = "gap_reached" if certificate.gap <= self.tolerance else "stalled"
        result = Result(
            problem, self.solver, self.parameters, status, words, self.seed, self.device,
            certificate=certificate, point=point,
        )  # fmt: skip
        return _with_bound(result, self._sandwich.low(beta))

    def _checked(self, beta: Any) -> float:
        low, high = self.interval
        value = float(Number().check("beta", beta))
        if not low <= value <= high:
            raise InputError(f"beta must be in the interval of the path, {low:.17g} to {high:.17g}, got {beta!r}")
        return value

    # -- tables and figures -------------------------------------------------------------------------------

    def to_frame(self) -> "pd.DataFrame":
        """Return one row for each certified network, from the largest weight decay down.

        Returns
        -------
        pandas.DataFrame
            beta, beta_fraction (of beta_max), objective, lower_bound, gap, active_neurons, status, setup_seconds,
            solve_seconds, iterations, and test scores if the problem has held-out samples.
        """
        import pandas as pd

        return pd.DataFrame([self._row(_with_bound(network.result, bound)) for network, bound in self._solved])

    def _row(self, result: Result) -> dict[str, Any]:
        assert result.certificate is not None
        scores = describe_scores(result)
        scores.pop("reason", None)
        return {
            "beta": result.problem.beta,
            "beta_fraction": result.problem.beta / self.interval[1],
            "objective": result.objective,
            "lower_bound": result.certificate.dual,
            "gap": result.gap,
            "active_neurons": active_neurons(result),
            "status": result.status,
            "setup_seconds": result.setup_seconds,
            "solve_seconds": result.solve_seconds,
            "iterations": result.iterations,
            **scores,
        }

    def plot(self) -> "Figure":
        """Draw enclosure, gap, active neurons and test score against beta."""
        import matplotlib.pyplot  # noqa: F401  (a notebook then shows the figure)

        betas, enclosures = self._drawn()
        return path_figure(betas, enclosures, self.to_frame(), self.tolerance)

    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight decays at which the enclosure is drawn, and the bounds there."""
        low, high = self.interval
        grid = np.unique([*np.geomspace(low, high, DRAWN)[1:-1], *(knot.beta for knot in self._sandwich.knots)])
        return grid, np.array([self.enclosure(beta) for beta in grid])

    def to_record(self) -> dict[str, Any]:
        """Return everything that a report shows of the path, as plain values for JSON.

        Returns
        -------
        dict
            solver, status, reason, gap, tolerance, scope, interval, seconds, solves, networks (the rows of
            `to_frame`), and enclosure: rows of beta, lower bound and upper bound.
        """
        names = ("solver", "status", "reason", "gap", "tolerance", "scope", "interval", "seconds", "solves")
        betas, enclosures = self._drawn()
        return {
            **{name: getattr(self, name) for name in names},
            "networks": self.to_frame().to_dict("records"),
            "enclosure": np.column_stack([betas, enclosures]).tolist(),
        }


def _with_bound(result: Result, bound: float) -> Result:
    """Return the result with a bound that other networks prove, if it is larger."""
    assert result.certificate is not None
    other = replace(result.certificate, dual=bound, multiplier=None)
    certificate = strengthened(result.certificate, other)
    return result if certificate is result.certificate else replace(result, certificate=certificate)


def active_neurons(result: Result) -> float:
    """Return the number of neurons above ACTIVE times the largest one.

    It is nan if no network is known.
    """
    assert result.point is not None
    try:
        W1, W2 = result.point.to_network(result.problem)
    except UnsupportedError:
        return math.nan
    sizes = torch.linalg.vector_norm(W1, dim=0) * torch.linalg.vector_norm(W2, dim=0)
    return int(((sizes > ACTIVE * sizes.max()) & (sizes > 0)).sum())
