"""The solver that is predicted to be the quickest for the problem.

Others go on at its point if its gap stops falling.
"""

from convexnn_bench.algorithms.automatic import Relay


class Solver(Relay):
    """Predict the time of each solver, and run the quickest.

    The prediction is a product of powers of the sizes and of beta_max / beta, fitted to records
    (benchmarks/fit_auto.py). If the gap stops falling, the next solver goes on at the point. `result.solver` names the
    solver of the final point, and `result.reason` says what was chosen and why.
    """

    name = "auto"
