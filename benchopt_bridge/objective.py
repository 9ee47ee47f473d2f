"""convexnn-bench for users of benchopt: the objective, with our certificate as its metrics."""

import math

import numpy as np
from benchopt import BaseObjective
from benchopt.stopping_criterion import StoppingCriterion

try:
    import convexnn_bench as cnn
except ModuleNotFoundError:  # data sets and solvers install it: benchopt looks for an objective's script elsewhere
    cnn = None


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

    parameters = {
        "architecture": [None],
        "activation": [None],
        "loss": [None],
        "beta_fraction": [None],
        "patterns": [None],
    }
    sampling_strategy = "callback"
    stopping_criterion = GapReached(gap=1e-6, strategy="callback")

    def skip(self, missing=None, **data):
        """benchopt calls it before `set_data`. It builds the problem, so that one that cannot be ends no campaign."""
        try:
            self.problem = None if missing else self.build(**data)
        except (cnn.InputError, cnn.UnsupportedError) as error:
            missing = str(error)
        return missing is not None, missing

    def build(self, X, y, **defaults):
        """The problem of samples X, targets y and the arguments of `Problem` that a data set gives with them."""
        chosen = {key: value for key in self.parameters if (value := getattr(self, key)) is not None}
        if "beta_fraction" in chosen:
            defaults.pop("beta", None)
        return cnn.Problem(X, y, **{**defaults, **chosen})

    def set_data(self, **data):
        """`skip` has built the problem."""

    def get_objective(self):
        return {"problem": self.problem}

    def evaluate_result(self, point):
        proven = cnn.certify(self.problem, point)
        return {
            "value": proven.primal,
            "gap": proven.gap if proven.refused is None else math.inf,
            "lower_bound": proven.dual,
            "stationarity_bound": proven.stationarity_bound,
            "stationarity_error": proven.stationarity_error,
            "infeasibility": proven.infeasibility,
        }

    def get_one_result(self):
        return {"point": np.zeros((self.problem.P, self.problem.p, self.problem.q))}
