"""Every solver of convexnn-bench: its name; in a configuration file also with parameters, "bm_lbfgs[m=2]"."""

from benchopt import BaseSolver

from convexnn_bench.registry import SOLVERS


class Solver(BaseSolver):
    """A solver's own clock, limits and callback are benchopt's here; set-up is not timed, as everywhere in benchopt."""

    name = "convexnn"
    parameters = {"solver": ["bm_newton", "bm_lbfgs", "cvxpy_clarabel", "network_adam"], "seed": [0]}
    parameter_template = "{solver}"
    sampling_strategy = "callback"
    test_config = {"solver": "bm_newton"}

    @classmethod
    def get_all_parameter_values(cls, name):
        return SOLVERS.names() if name == "solver" else None

    def skip(self, problem):
        solver = SOLVERS.make(self.solver)
        reason = solver.unavailable() or solver.skip(problem)
        return reason is not None, reason

    def set_objective(self, problem):
        self.algorithm = SOLVERS.make(self.solver)
        self.algorithm.seed = self.seed
        self.algorithm.time_limit = None
        self.algorithm.gap = 1e-6  # that of the objective's stopping criterion
        self.algorithm.load_packages()
        self.algorithm.set_problem(problem)

    def run(self, callback):
        going = True

        def ask():
            nonlocal going
            going = callback()
            return going

        self.algorithm.run(ask)
        if going:  # it ended by itself: benchopt scores a point that has changed since the last call only after another
            callback()

    def get_result(self):
        return {"point": self.algorithm.get_result()}
