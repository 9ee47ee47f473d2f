"""The clocks of a solve include the work that a solver does in `skip` and `get_result`."""

import time

import numpy as np
import pytest

import convexnn_bench as cnn
from convexnn_bench.formulations.point import ConvexPoint

HIDDEN = 0.2  # seconds of work in one call


class Hides(cnn.BaseSolver):
    """A solver that works in `skip` and `get_result`."""

    name, formulation = "hides", "convex"
    in_skip = in_result = 0.0

    def skip(self, problem):
        time.sleep(self.in_skip)

    def set_problem(self, problem):
        self.Z = np.zeros((problem.P, problem.p, problem.q))

    def run(self, callback):
        callback()

    def get_result(self):
        time.sleep(self.in_result)
        return cnn.Point(blocks=self.Z)


@pytest.fixture
def problem():
    return cnn.make_problem("spiral", n=9)


def test_work_in_skip_counts_as_set_up(problem):
    solver = Hides()
    solver.in_skip = HIDDEN
    assert cnn.solve(problem, solver).setup_seconds >= HIDDEN


def test_work_in_get_result_counts_as_solving(problem):
    solver = Hides()
    solver.in_result = HIDDEN
    result = cnn.solve(problem, solver)
    assert result.solve_seconds >= HIDDEN
    assert result.curve[0][0] >= HIDDEN


def test_a_solver_of_a_subclass_is_certified_by_the_classes_of_the_package(problem):
    class Flatters(ConvexPoint):
        def evaluate(self, problem, device):
            raise AssertionError("no code of a solver may evaluate its point")

    class Solver(Hides):
        name = "flatters"

        def get_result(self):
            return Flatters(blocks=self.Z)

    result = cnn.solve(problem, Solver())
    assert type(result.point) is ConvexPoint
    assert result.objective == pytest.approx(problem.objective(np.zeros((problem.P, problem.p, problem.q))), rel=1e-12)
