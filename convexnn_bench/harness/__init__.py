"""Runs: one cell in a process of its own, campaigns of cells, and the records they leave."""
