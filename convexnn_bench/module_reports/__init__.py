"""Reports on users' own trained networks: how they are read, what bounds them, and what was probably meant."""

from convexnn_bench.module_reports.certify_module import certify_module
from convexnn_bench.module_reports.module_report import ModuleReport
