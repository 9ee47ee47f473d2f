"""Numbers derived from records: times to a gap, enclosures of the optimum, power laws."""

from convexnn_bench.report.numbers import derived, optimum
from convexnn_bench.report.numbers.convergence import Band, bands
from convexnn_bench.report.numbers.derived import gaps_of
from convexnn_bench.report.numbers.optimum import optimum_intervals, program, violations
from convexnn_bench.report.numbers.power_law import Number, fit_power_law
from convexnn_bench.report.numbers.time_to_gap import (
    GAPS,
    SolverTimes,
    Spread,
    asked_gap,
    by_draw,
    by_rung,
    by_solver,
    curve_name,
    lead,
    pooled,
    rung_name,
    solver_times,
    tested,
    without_tolerance,
)
