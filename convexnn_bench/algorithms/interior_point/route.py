"""Which of two routes forms and factorises the normal matrix M = I + R^T A W A^* R, and where neither can."""

from convexnn_bench.algorithms.interior_point.chain import Chain, find_chain
from convexnn_bench.problem import Problem

MOST_DUAL = 4000  # n_out c up to which the normal matrix is formed as a dense one: 128 MB
MOST_SLACKS = 2**25  # numbers in the slacks of all blocks, P (p + q)^2: 256 MB, some ten times


def chain_of(problem: Problem) -> Chain | None:
    """Return the chain of the masks, or None if Phi is not the data in the plane or the masks are no chain."""
    if problem.p != 2 or not (problem.operator().is_plain and problem.operator().has_rows):
        return None
    return find_chain(problem.Phi, problem.masks)


def reason_against(problem: Problem) -> str | None:
    """Return why an interior-point step would be too large for memory, or None."""
    slacks = problem.P * (problem.p + problem.q) ** 2
    if slacks > MOST_SLACKS:
        return (
            f"its slacks have P (p + q)^2 = {slacks:.2g} numbers, and at most {MOST_SLACKS:.2g} are stored: use "
            "semismooth_newton, bm_newton or fista, or fewer patterns"
        )
    size = problem.n_out * problem.c
    if size > MOST_DUAL and chain_of(problem) is None:
        return (
            f"its normal matrix has n_out c = {size} rows, and more than {MOST_DUAL} are affordable only where Phi is "
            "in the plane (p = 2): use semismooth_newton, bm_newton or fista"
        )
    return None
