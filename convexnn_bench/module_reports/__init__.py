"""Reports on users' own trained networks: their bounds and what was assumed."""

from convexnn_bench.module_reports.callback import CertifyCallback
from convexnn_bench.module_reports.certifying import certify_module
from convexnn_bench.module_reports.module_report import ModuleReport
from convexnn_bench.module_reports.words import file_head_words
