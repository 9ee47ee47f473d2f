"""Cholesky factors of matrices that rounding may have made indefinite."""

import torch
from jaxtyping import Float

SHIFT, GROWTH, MOST_SHIFTS = 1e-15, 10.0, 6  # first shift relative to the largest diagonal entry, factor, and number


def shifted_cholesky(matrix: Float[torch.Tensor, "k k"]) -> Float[torch.Tensor, "k k"]:
    """Return the Cholesky factor of the matrix, or of it plus the least multiple of I that is tried and suffices.

    Iterative refinement corrects for the shift. Raise torch.linalg.LinAlgError if no shift suffices.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    shift = SHIFT * float(matrix.diagonal().abs().max())
    for _ in range(MOST_SHIFTS):
        if not int(failed):
            return factor
        shifted = matrix.clone()
        shifted.diagonal().add_(shift)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        shift *= GROWTH
    if int(failed):
        raise torch.linalg.LinAlgError("the matrix is not positive definite")
    return factor
