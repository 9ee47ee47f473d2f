"""The path of optima over the weight decay, with bounds at every weight decay."""

from convexnn_bench.regularisation.all_betas import path
from convexnn_bench.regularisation.figure import record_figure
from convexnn_bench.regularisation.grid import solve_grid
from convexnn_bench.regularisation.regularisation_path import RegularisationPath
