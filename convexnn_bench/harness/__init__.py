"""Run cells, each in a process of its own, and campaigns of cells, which leave one record for each."""
