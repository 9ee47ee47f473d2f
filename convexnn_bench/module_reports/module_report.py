"""The report on a user's network: its objective, the bound, and assumptions."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convexnn_bench.certificates import Certificate, certificate_html, relative_gap, rounded
from convexnn_bench.errors import InputError, UnsupportedError
from convexnn_bench.module_reports.figure import interval_figure
from convexnn_bench.problem import Problem
from convexnn_bench.proofs import Proof, prove_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class ModuleReport:
    """The bound on a user's own network, and how the network was understood.

    Attributes
    ----------
    primal : float
        The network's training objective, F + beta/2 times the squared weights, a sum over samples.
    dual : float
        Lower bound on the objective of every network of its kind, of any width.
    gap : float
        (primal - dual) / |dual|; nan where the certificate was refused.
    certificate : Certificate
        Certificate of the same network with its output bias, if any, at the best value.
    problem : Problem
        The training problem. If a ReLU network has too many patterns to enumerate, the blocks are the patterns of its
        neurons, so that the optimum of `problem` is at most the network's objective. `dual` is about all patterns.
    beta : float
        The weight decay in units of F. If the layers have different ones it is the square root of their product.
    network : str
        What the module was read as.
    assumptions : tuple of str
        How weight decay, biases and labels were understood.
    hints : tuple of str
        Arguments that are probably wrong, as the numbers suggest.
    optimum : pair of float
        (low, high), between which the global optimum of the training problem lies: the best lower bound, and the
        objective of the better network, or of the network itself where none is known.
    excess : float
        At least so far is the network above the optimum: (primal - high) / high; 0 where no better network was found.
    better : torch.nn.Module or None
        A better network, which `time_limit` gave time to find: a float64 module of the same kind, perhaps of another
        width.
    curve : tuple of (seconds, low, high)
        How the interval became narrower.
    weights : (W1, W2, output bias or None) or None
        The network's weights as those of a point of `problem`.
    penalty : str
        The penalty in the objective, in words.
    condition : str
        What the report holds for, if it is about the head of a deeper network, given the features before it.
    """

    primal: float
    certificate: Certificate
    problem: Problem
    beta: float
    network: str
    assumptions: tuple[str, ...]
    hints: tuple[str, ...] = ()
    primal_low: float | None = None
    better: torch.nn.Module | None = None
    better_objective: float | None = None
    better_neurons: int | None = None
    curve: tuple[tuple[float, float, float], ...] = ()
    weights: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None
    penalty: str = "beta/2 times the squared weights"
    condition: str = ""

    def prove(self) -> Proof:
        """Make a proof of the bound and of the gap, for the checker verify_proof.py.

        Returns
        -------
        Proof
            About `problem`, which ``report.problem.save`` writes to the file that the checker needs.

        Raises
        ------
        UnsupportedError
            The checker does not know a part of the problem.
        """
        if self.weights is None:
            raise UnsupportedError("this report does not hold the weights of its network")
        return prove_network(self.problem, *self.weights, self.certificate)

    @property
    def optimum(self) -> tuple[float, float]:
        """(low, high), between which the global optimum of the training problem lies."""
        high = self.primal if self.better_objective is None else min(self.primal, self.better_objective)
        return self.dual, high

    @property
    def excess(self) -> float:
        """The relative distance by which the network is at least above the optimum.

        It is relative to the objective of the better network.
        """
        high = self.optimum[1]
        # `primal` is rounded up; what is proven starts at a lower bound on the objective.
        low = self.primal if self.primal_low is None else self.primal_low
        return max((low - high) / high, 0.0) if self.better_objective is not None and high > 0 else 0.0

    @property
    def width(self) -> float:
        """The width of the interval of the optimum, relative to its lower end.

        It is nan if the certificate was refused.
        """
        low, high = self.optimum
        return relative_gap(high, low) if self.certificate.refused is None else float("nan")

    @property
    def dual(self) -> float:
        """Lower bound on the training objective of every such network."""
        return self.certificate.dual

    @property
    def gap(self) -> float:
        """(primal - dual) / |dual|; nan where the certificate was refused."""
        return relative_gap(self.primal, self.dual) if self.certificate.refused is None else float("nan")

    @property
    def scope(self) -> str:
        """ "complete" or "sampled", as in the certificate."""
        return self.certificate.scope

    @property
    def infeasibility(self) -> float:
        """Violation of the ReLU cones, as in the certificate."""
        return self.certificate.infeasibility

    @property
    def stationarity_bound(self) -> float:
        """Bound at a stationary point, as in the certificate."""
        return self.certificate.stationarity_bound

    @property
    def stationarity_error(self) -> float:
        """Distance from stationarity, as in the certificate."""
        return self.certificate.stationarity_error

    def plot(self) -> "Figure":
        """Return a figure of the interval of the optimum against time.

        The report must have been made with a time limit.

        Raises
        ------
        InputError
            The report has no curve, because `certify_module` had no time limit.
        """
        if len(self.curve) == 0:
            raise InputError("the report has no curve of the interval: give certify_module a time_limit in seconds")
        import matplotlib.pyplot  # noqa: F401  (a notebook then shows the figure)

        return interval_figure(np.array(self.curve), self.primal)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        names = ("primal", "dual", "gap", "scope", "infeasibility", "beta", "network")
        values = {name: getattr(self, name) for name in (*names, "stationarity_bound", "stationarity_error")}
        bound = ("max_dual_norm", "dual_norm_lower", "dual_norm_method", "refused")
        values |= {name: getattr(self.certificate, name) for name in bound}
        values |= {"optimum": list(self.optimum), "excess": self.excess, "width": self.width}
        values |= {"better_objective": self.better_objective, "better_neurons": self.better_neurons}
        values |= {"curve": [list(moment) for moment in self.curve]}
        return {**values, "loss": self.problem.loss.name, **self._words()}

    def _words(self) -> dict[str, Any]:
        lists = {"assumptions": list(self.assumptions), "hints": list(self.hints)}
        return {"condition": self.condition, **lists, "summary": str(self)}

    def _interval_words(self) -> list[str]:
        """Return what the better network says, and how narrow the interval is."""
        if self.better_objective is None:
            return []
        low, high = self.optimum
        words = f"A network with {self.better_neurons} neurons has the objective {rounded(high, 9, ROUND_CEILING)}"
        if self.excess > 0:
            words += f", so the network is at least {rounded(100 * self.excess, 2, ROUND_FLOOR)} % above the optimum"
        if low > 0 and self.width <= CLOSED:
            words += f". The optimum is known to {_up(max(self.width, 1e-16))} (relative)"
        elif low > 0:
            words += f". The optimum is known to {_up(100 * self.width)} %"
        return [f"{words}."]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(primal={self.primal:.9g}, dual={self.dual:.9g}, gap={self.gap:.3g}, "
            f"beta={self.beta:.6g}, network={self.network!r})"
        )

    def _repr_html_(self) -> str:
        objective = f"{self.problem.loss.name}, summed over samples, plus {self.penalty}"
        lines = (
            *([self.condition] if self.condition else []),
            f"Objective: {objective}.",
            *self.assumptions,
            *self.hints,
        )
        return certificate_html(self.network, self.primal, self.dual, self.certificate.refused, lines)

    def __str__(self) -> str:
        if self.certificate.refused is not None:
            return f"No gap can be stated: {self.certificate.refused}"
        distance = f", so it is at most {_up(100 * max(self.gap, 0.0))} % above the global optimum."
        if self.gap == 0:
            distance = ", so it is at the global optimum."
        elif self.dual <= 0:
            distance = "; no percentage can be stated, since the bound is not positive."
        elif self.gap >= 10:
            distance = f", so it is at most {_up(1 + self.gap)} times the global optimum."
        whose, which = "network", "network of this kind"
        if self.condition:
            whose, which = "head", "head of this kind on these features"
            distance = distance.replace("the global optimum", "the global optimum of the head on these features")
        lines = [
            *([self.condition] if self.condition else []),
            f"The {whose}'s training objective is {self.primal:.9g}. No {which}, of any width, can reach below "
            f"{rounded(self.dual, 9, ROUND_FLOOR)}{distance}",
            *self._interval_words(),
            f"Read as: {self.network}. Objective: {self.problem.loss.name}, summed over samples, plus {self.penalty}.",
            *self.assumptions,
            f"Bound: {self.certificate.dual_norm_method}; largest dual norm of the gradient "
            f"{self.certificate.max_dual_norm / self.beta:.6g} beta (1 at a global optimum).",
        ]
        if not self.certificate.dual_norm_is_exact:
            lines.append(
                f"That norm is known to be at least {self.certificate.dual_norm_lower / self.beta:.6g} beta: part of "
                "the gap may be due to the bound rather than to the network."
            )
        return "\n".join([*lines, *(f"Hint: {hint}" for hint in self.hints)])


CLOSED = 1e-6  # relative width of the interval at which the optimum counts as known


def _up(value: float) -> str:
    """Return the number with two digits, rounded up.

    It remains a proven bound.
    """
    return rounded(value, 2, ROUND_CEILING)
