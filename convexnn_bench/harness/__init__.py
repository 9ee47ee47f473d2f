"""Run cells, each in a process of its own, and campaigns of cells.

A campaign leaves one record for each cell.
"""

from convexnn_bench.harness.campaign import Campaign, Source, find_campaign, load_campaign, shipped_names
from convexnn_bench.harness.cell import Cell, Limits
from convexnn_bench.harness.cell_run import run_cell
from convexnn_bench.harness.execute import CampaignOutcome, run_campaign
from convexnn_bench.harness.executors import BaseExecutor
from convexnn_bench.harness.forecast import Forecast, forecast_cells
from convexnn_bench.harness.plan import check_limits
from convexnn_bench.harness.process import run_process, start_server
from convexnn_bench.harness.repeat import campaign_again, cell_again
from convexnn_bench.harness.tree import resident_mb
