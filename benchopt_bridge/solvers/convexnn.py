"""Every solver of convexnn-bench."""

from benchopt import BaseSolver

from convexnn_bench.plugins import SOLVERS


class Solver(BaseSolver):
    """solver: its name; in a configuration file also with parameters, "bm_lbfgs[m=2]". Clock, limits and callback are
    benchopt's; set-up is not timed, as everywhere in benchopt.
    """

    name = "convexnn"
    parameters = {"solver": ["bm_newton", "bm_lbfgs", "cvxpy_clarabel", "network_adam"]}
    parameter_template = "{solver}"
    install_cmd = "shell"  # `requirements` would have to be literal, and could not name this checkout
    install_script = "checkout.sh"
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
        self.algorithm.seed = self.get_seed(use_repetition=True)  # one start point for all solvers of a repetition
        self.algorithm.gap = self.stopping_criterion.gap
        self.algorithm.load_packages()
        self.algorithm.set_problem(problem)

    def run(self, callback):
        going = True

        def ask():
            nonlocal going
            going = callback()
            return going

        self.algorithm.time_limit = callback.stopping_criterion.timeout  # all that stops a one-shot solver
        self.algorithm.run(ask)
        if going:  # it ended by itself: benchopt scores a point that has changed since the last call only after another
            callback()

    def get_result(self):
        return {"point": self.algorithm.get_result()}
