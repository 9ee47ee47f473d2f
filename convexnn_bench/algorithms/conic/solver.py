"""The base class of the CVXPY solvers.

It states and compiles the program in set_problem, and solves it once in run.
"""

from typing import Any

import numpy as np

from convexnn_bench.algorithms.conic.program import ConicProgram, build_program
from convexnn_bench.algorithms.conic.row_space import lifted
from convexnn_bench.errors import ConvexNNError
from convexnn_bench.formulations import Point
from convexnn_bench.norms import unpack_answer
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback

LEAST_SECONDS = 0.01  # smallest time limit for the external solver, in seconds
READING, READING_SECONDS = 0.1, 1.0  # time reserved for reading the point: at most this part of the limit, and seconds
STEP_ENTRY = 4e-7  # seconds between two readings of a solver's clock, for each entry of the compiled matrix


class ConicSolver(BaseSolver):
    """The exact convex program through CVXPY and one conic solver, on the CPU whatever `device` says.

    A subclass defines `backend` and `options`, and may define `summary` and `failures`.
    """

    formulation = "convex"
    one_shot = True
    interior_point = True
    tolerance: float

    def gap_tolerance(self) -> float:
        # The tolerance bounds the residuals of the conic solver. Gaps of float64 certificates are some ten times
        # larger.
        return max(100.0 * self.tolerance, 1e-8)

    def state(self, problem: Problem) -> ConicProgram:
        """Return the program that is solved."""
        return build_program(problem, self.interior_point)

    def backend(self) -> Any:
        """Return the solver that CVXPY compiles for, as a name that it knows or as an interface object."""
        raise TypeError(f"{type(self).__name__} must define backend")

    def options(self) -> dict[str, Any]:
        """Return the solver's options, including the time limit."""
        raise TypeError(f"{type(self).__name__} must define options")

    @property
    def seconds(self) -> float | None:
        """Return the time limit of the iterations, without the time for a last step and for reading the point."""
        if self.time_limit is None:
            return None
        reading = min(READING * self.time_limit, READING_SECONDS)
        return max(self.time_limit - reading - self.step_seconds, LEAST_SECONDS)

    @property
    def step_seconds(self) -> float:
        """Return an estimate of the seconds of one iteration."""
        data = self._compiled[0]
        entries = sum(data[key].nnz for key in ("A", "G") if data.get(key) is not None)
        return max(self.conic.cost.factorise, STEP_ENTRY * entries)

    def summary(self, raw: Any) -> str:
        """Return in words how the solver ended, from its raw answer."""
        return ""

    def failures(self) -> tuple[type[Exception], ...]:
        """Return the exceptions that mean that the solver itself failed."""
        import cvxpy as cp

        return (cp.SolverError,)

    def skip(self, problem: Problem) -> str | None:
        if problem.is_sparse:
            return (
                f"{self.name} states a program with the entries of X, which is sparse: use bm_newton, "
                "semismooth_newton or fista, or give X.toarray()"
            )
        return super().skip(problem)

    def set_problem(self, problem: Problem) -> None:
        """State the program in its fastest form, and compile it to the solver's data.

        Wide data are stated in their row space.
        """
        self._point: Point | None = None
        self._problem = problem
        coordinates, self._basis = problem.in_row_space()
        self.conic = self.state(coordinates)
        self._compiled = self.conic.program.get_problem_data(
            self.backend(), solver_opts={"accept_unknown": True}, canon_backend="SCIPY"
        )

    def run(self, callback: Callback) -> None:
        """Solve, read the point and call back once.

        1. Solve the compiled program.
        2. Read the point.
        3. Call back once.

        A point of low accuracy, or one at which the time limit ended the solver, is accepted, since the certificate
        judges it. The program is never infeasible or unbounded, since Z = 0 is feasible and F >= 0. If a solver says
        otherwise, its arithmetic failed, and Z = 0 becomes its point. Raises ConvexNNError if the solver ends without a
        point for another reason.
        """
        program, (data, chain, inverse) = self.conic.program, self._compiled
        summary = ""
        # 1. The compiled data pass CVXPY without being canonicalised again.
        try:
            raw = chain.solve_via_data(program, data, solver_opts=self.options())
            summary = self.summary(raw)
            unpack_answer(program, raw, chain, inverse)
        except self.failures() as error:
            reason = summary or " ".join(str(error).split())
            raise ConvexNNError(f"{self.name}: the solver failed: {reason}") from error
        self.message = summary or program.status
        # 2. The point, in the problem's own units.
        if program.status in ("optimal", "optimal_inaccurate", "user_limit"):
            point = self.conic.point()
            self._point, remark = lifted(point, self._basis), self.conic.remark(point)
        elif program.status.startswith(("infeasible", "unbounded")):
            self._point = _zero(self._problem)
            remark = "an error of its arithmetic, since every such program has a minimiser; its point is zero"
        else:
            raise ConvexNNError(f"{self.name}: the solver says {program.status} ({summary}) and gives no point")
        self.message = "; ".join(part for part in (self.message, remark) if part)
        # 3. The callback scores the point, whatever accuracy the solver claims.
        callback()

    def get_result(self) -> Point:
        if self._point is None:
            raise ConvexNNError(f"{self.name} has no point before it has run")
        return self._point


def _zero(problem: Problem) -> Point:
    """Return the point Z = 0, with its vectors in the cones."""
    P, p, q = problem.P, problem.p, problem.q
    blocks = np.zeros((P, p, q))
    if problem.vector_cone:
        return Point(blocks, cone_factors=(np.zeros((P, p, 1)), np.zeros((P, q, 1))))
    return Point(blocks, split=np.zeros((P, p, 2)) if problem.has_cone else None)
