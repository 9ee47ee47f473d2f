"""Figures for print, drawn by matplotlib from records."""

from convexnn_bench.report.figures.campaign import FIGURES, Drawn, save_all
from convexnn_bench.report.figures.gaps import GAP_CEILING, GAP_FLOOR, gap_figure, save_gap_figure
from convexnn_bench.report.figures.scaling import scaling_figure
from convexnn_bench.report.figures.styles import mark_target, new_figure, plain_axis, styles_by_solver
