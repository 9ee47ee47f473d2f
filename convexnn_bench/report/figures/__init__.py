"""Figures for print, drawn by matplotlib from records."""

from convexnn_bench.report.figures.campaign import FIGURES, Drawn, save_all
from convexnn_bench.report.figures.gaps import gap_figure, on_axis, save_gap_figure
from convexnn_bench.report.figures.matrix import matrix_figure
from convexnn_bench.report.figures.scaling import scaling_figure
from convexnn_bench.report.figures.styles import mark_target, new_figure, plain_axis, styles_by_solver
