"""What the CVXPY solvers share: build and compile in set_problem, one solve in run."""

import warnings
from typing import Any

from convexnn_bench.algorithms.conic.program import build
from convexnn_bench.errors import ConvexNNError
from convexnn_bench.formulations.point import Point
from convexnn_bench.problem import Problem
from convexnn_bench.solver import BaseSolver, Callback


class ConicSolver(BaseSolver):
    """The exact convex program through CVXPY and one conic solver. Runs on the CPU whatever `device` says.

    A subclass supplies `backend` and `options`, and may supply `said` and `failures`.
    """

    formulation = "convex"
    one_shot = True
    interior_point = True

    def backend(self) -> Any:
        """What CVXPY is to compile for: the name of a solver it knows, or a solver interface of its own kind."""
        raise TypeError(f"{type(self).__name__} must define backend")

    def options(self) -> dict[str, Any]:
        """Options handed to the solver with each solve, the time limit among them."""
        raise TypeError(f"{type(self).__name__} must define options")

    def said(self, raw: Any) -> str:
        """The solver's own words about how it ended, from what CVXPY got back."""
        return ""

    def failures(self) -> tuple[type[Exception], ...]:
        """Exceptions that mean that the solver itself failed."""
        import cvxpy as cp

        return (cp.SolverError,)

    def set_problem(self, problem: Problem) -> None:
        """State the program in its fastest form and compile it to the solver's data."""
        self._point: Point | None = None
        self.conic = build(problem, self.interior_point)
        self._compiled = self.conic.program.get_problem_data(
            self.backend(), solver_opts={"accept_unknown": True}, canon_backend="SCIPY"
        )

    def run(self, callback: Callback) -> None:
        """Solve, read the point off, call back once.

        Raises ConvexNNError where the solver ends without a point. A point of low accuracy, or cut off by the time
        limit, is returned: its certificate is the verdict.
        """
        program, (data, chain, inverse) = self.conic.program, self._compiled
        said = ""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")
            warnings.filterwarnings("ignore", message="Optimization terminated by time limit")
            try:
                raw = chain.solve_via_data(program, data, solver_opts=self.options())
                said = self.said(raw)
                program.unpack_results(raw, chain, inverse)
            except self.failures() as error:
                reason = said or " ".join(str(error).split())
                raise ConvexNNError(f"{self.name}: the solver failed: {reason}") from error
        self.message = said or program.status
        if program.status not in ("optimal", "optimal_inaccurate", "user_limit"):
            raise ConvexNNError(f"{self.name}: the solver says {program.status} ({said}) and gives no point")
        self._point = self.conic.point()
        self.message = "; ".join(part for part in (self.message, self.conic.remark(self._point)) if part)
        callback()

    def get_result(self) -> Point:
        if self._point is None:
            raise ConvexNNError(f"{self.name} has no point before it has run")
        return self._point
