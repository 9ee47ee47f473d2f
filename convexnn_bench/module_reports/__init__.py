"""Reports on users' own trained networks: how they are read, what bounds them, and what was probably meant."""

from convexnn_bench.module_reports.callback import CertifyCallback
from convexnn_bench.module_reports.certifying import certify_module
from convexnn_bench.module_reports.module_report import ModuleReport
