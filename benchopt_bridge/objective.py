"""convexnn-bench for users of benchopt: the objective, with our certificate as its metrics."""

import math
from pathlib import Path

from benchopt import BaseObjective
from benchopt.stopping_criterion import StoppingCriterion

from convexnn_bench import certify, make_problem
from convexnn_bench.formulations.point import Point


class GapReached(StoppingCriterion):
    """Stop a solver once its certified gap is small enough; benchopt itself stops it at its timeout or max_runs."""

    def __init__(self, gap=1e-6, strategy=None, key_to_monitor=None, minimize=True):
        super().__init__(gap=gap, strategy=strategy, key_to_monitor=key_to_monitor, minimize=minimize)
        self.gap = gap

    def check_convergence(self, objective_list):
        gap = objective_list[-1]["objective_gap"]
        return gap <= self.gap, min(1.0, math.log(min(gap, 1.0) + 1e-300) / math.log(self.gap))


class Objective(BaseObjective):
    """F + beta regulariser, a sum over samples. Parameters that are None take the data set's default."""

    name = "Two-layer networks with weight decay"
    min_benchopt_version = "1.10"
    requirements = [f"pip::{Path(__file__).resolve().parents[1]}"]  # this checkout

    parameters = {"activation": [None], "loss": [None], "beta_fraction": [None]}
    sampling_strategy = "callback"
    stopping_criterion = GapReached(gap=1e-6, strategy="callback")
    test_config = {"dataset": {"n": 9}}

    def set_data(self, problem, **own):
        chosen = {key: getattr(self, key) for key in self.parameters}
        self.problem = make_problem(
            problem, **own, **{key: value for key, value in chosen.items() if value is not None}
        )

    def get_objective(self):
        return {"problem": self.problem}

    def evaluate_result(self, point):
        proven = certify(self.problem, point)
        return {
            "value": proven.primal,
            "gap": proven.gap if proven.refused is None else math.inf,
            "lower_bound": proven.dual,
            "stationarity_bound": proven.stationarity_bound,
            "stationarity_error": proven.stationarity_error,
            "infeasibility": proven.infeasibility,
        }

    def get_one_result(self):
        return {"point": Point(blocks=self.problem.operator().adjoint(0 * self.problem.operator().Y))}
