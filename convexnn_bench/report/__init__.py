"""Tables and figures. They read records only and run nothing."""

from convexnn_bench.report.failures import last_lines, print_failures
from convexnn_bench.report.figures import (
    gap_figure,
    mark_target,
    matrix_figure,
    new_figure,
    plain_axis,
    save_gap_figure,
    scaling_figure,
)
from convexnn_bench.report.formats import (
    FORMATS,
    counted,
    finite,
    format_gap,
    format_seconds,
    format_target,
    format_value,
)
from convexnn_bench.report.ladder import csv_rows, markdown, print_ladder
from convexnn_bench.report.layerwise import print_layerwise, save_layerwise_figure
from convexnn_bench.report.make import make_report, read_folder, table_text
from convexnn_bench.report.matrix import matrix
from convexnn_bench.report.numbers import (
    GAPS,
    SolverTimes,
    by_rung,
    fit_power_law,
    optimum_intervals,
    program,
    solver_times,
)
from convexnn_bench.report.tables import (
    COLUMNS,
    count_statuses,
    plain_table,
    print_results,
    reasons,
    shown_columns,
    status_colour,
)
from convexnn_bench.report.writers import csv_text, write_csv
