"""The page report.html: charts, tables and how to repeat a run, in one file without outside links."""

from convexnn_bench.report.page.page import summary, write_page
