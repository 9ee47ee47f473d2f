"""The page "See it": patterns, the landscape and the staircase in a browser."""

from convexnn_bench.playground.page import page_text, write_page
