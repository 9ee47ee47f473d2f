"""The algorithms behind the solvers, one subpackage or module for each."""
