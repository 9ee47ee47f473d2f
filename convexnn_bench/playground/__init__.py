"""The page "See it": patterns, the landscape and the staircase, computed in a browser without a connection."""

from convexnn_bench.playground.page import page_text, write_page
