"""Convert rows of float64 numbers to Python integers, which are exact and of any size."""

import numpy as np
from jaxtyping import Float

Integers = np.ndarray  # a matrix of Python's integers


def as_integers(rows: Float[np.ndarray, "n p"]) -> Integers:
    """Return each row times a power of two that makes its entries integers."""
    # Every float64 number is an integer times a power of two.
    mantissas, exponents = np.frexp(rows)
    least = np.min(exponents, axis=1, keepdims=True, where=rows != 0, initial=2**20)
    digits = np.ldexp(mantissas, 53).astype(np.int64).astype(object)
    return digits * 2 ** np.where(rows != 0, exponents - least, 0).astype(object)
