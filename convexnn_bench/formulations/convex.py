"""The convex program min_Z F(A(Z)) + beta sum_k ||Z_k||_k.

It is stated by Sahiner et al., ICLR 2024, eqs. 2, 3, 6.

||.||_k is the nuclear norm without a cone. For scalar-output ReLU it is the gauge
min{||a|| + ||b|| : Z_k = a - b, K_k a >= 0, K_k b >= 0}, and the pair (a, b) is called the split of Z_k. For vector
outputs it is min{1/2 (||U||^2 + ||V||^2) : Z_k = U V^T, K_k U >= 0} (Sahiner et al., ICLR 2021), which is NP-hard in
general. There the cost of the pair that `cone_factors` returns replaces it, an upper bound.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from convexnn_bench.checks import as_numpy, check_array
from convexnn_bench.errors import InputError
from convexnn_bench.instance import Instance
from convexnn_bench.norms import gauge_factors
from convexnn_bench.operator import EPS, is_moderate, power_of_two, sum_rounding

Blocks = Float[torch.Tensor, "P p q"]
Split = Float[torch.Tensor, "P p 2"]
Left = Float[torch.Tensor, "P p m"]
Right = Float[torch.Tensor, "P q m"]

NEGLIGIBLE = 1e-14  # relative to the largest norm or singular value; anything smaller is rounding
TINY = 1e-300  # keeps quotients by a norm of zero finite


def check_shape(problem: Instance, name: str, array: Any, columns: int) -> None:
    """Raise InputError unless the array is P x p x `columns`."""
    expected, letters = (problem.P, problem.p, columns), "P x p x q" if name == "Z" else "P x p x 2"
    if np.shape(array) != expected:
        sizes = " x ".join(map(str, expected))
        raise InputError(f"{name} must be {letters} = {sizes}, got shape {tuple(np.shape(array))}")


def check_blocks(problem: Instance, Z: Any) -> Blocks:
    """Return a stack or a list of P blocks p x q as one float64 tensor.

    Raise InputError for anything else.
    """
    if isinstance(Z, Sequence) and not isinstance(Z, str):
        blocks = [as_numpy(block, "Z") for block in Z]
        shapes = sorted({block.shape for block in blocks})
        if shapes != [(problem.p, problem.q)]:
            raise InputError(
                f"Z must hold P = {problem.P} blocks of shape p x q = {problem.p} x {problem.q}, got {len(blocks)} of "
                f"shape {' and '.join(map(str, shapes)) or '()'}"
            )
        Z = np.stack(blocks)
    array = check_array("Z", Z)
    check_shape(problem, "Z", array, problem.q)
    return torch.as_tensor(array)


def check_split(problem: Instance, split: Any) -> Split:
    """Return the pairs of cone vectors as a float64 tensor P x p x 2.

    Raise InputError for anything else.
    """
    array = check_array("split", split)
    check_shape(problem, "split", array, 2)
    return torch.as_tensor(array)


def nuclear_norms(Z: Blocks) -> Float[torch.Tensor, " P"]:
    """Return the sum of singular values of every block.

    It is the Euclidean norm if p = 1 or q = 1.
    """
    if min(Z.shape[1:]) == 1:
        return torch.linalg.vector_norm(Z, dim=(1, 2))
    return torch.linalg.svdvals(Z).sum(dim=1)


def norm_rounding(Z: Blocks) -> float:
    """Return a bound on the relative rounding of a sum of norms.

    The norms are those of blocks or of split vectors.
    """
    # The error of a singular value is a small multiple of (p + q) eps times the largest one of its block.
    p, q = Z.shape[1:]
    return 4 * (p + q) * min(p, q) * EPS + sum_rounding(len(Z))


def ranks(Z: Blocks, floor: float = 1e-6) -> Int[torch.Tensor, " P"]:
    """Return the number of singular values of every block that are not small.

    Small is below `floor` times the largest one of all blocks.
    """
    # The floor is relative to the largest value of all blocks, so that a block of the size of rounding has rank zero.
    values = torch.linalg.vector_norm(Z, dim=(1, 2))[:, None] if min(Z.shape[1:]) == 1 else torch.linalg.svdvals(Z)
    return ((values > floor * values.max()) & (values > 0)).sum(dim=1)


def split_cone(problem: Instance, Z: Blocks) -> Split:
    """Return the two vectors of cone k with difference Z_k and the least norms.

    This is for scalar outputs. The sum of both norms is the least.

    Raise InputError where Z_k is no difference of two vectors of its cone.
    """
    assert problem.cones is not None
    assert problem.q == 1
    return torch.as_tensor(problem.cones.decompose(Z[:, :, 0].cpu().numpy())).to(Z)


def cone_factors(problem: Instance, Z: Blocks) -> tuple[Left, Right]:
    """Return (U, V) with U_k V_k^T = Z_k and the columns of U_k in cone k.

    Its 1/2 (||U||^2 + ||V||^2) is small.

    For vector outputs. The cost is the least possible where the left singular vectors lie in the cone, and, to the
    accuracy of the conic solver, where the doubly non-negative relaxation could be factored, as with at most four
    facets. In general it is an upper bound. Raise InputError where Z_k is no sum of products u v^T with u in its cone,
    UnsupportedError where CVXPY is needed and not installed, or where no pair was found.
    """
    assert problem.cones is not None
    U, V = gauge_factors(problem.cones, Z.cpu().numpy())
    return torch.as_tensor(U).to(Z), torch.as_tensor(V).to(Z)


def regulariser(problem: Instance, Z: Blocks, split: Split | None = None) -> float:
    """Return sum_k ||Z_k||_k."""
    if not problem.has_cone:
        return _sum_of_norms(nuclear_norms, Z)
    # Every pair with U V^T = Z_k and U in the cone costs at least the gauge, so that this is an upper bound on it.
    if problem.vector_cone:
        U, V = cone_factors(problem, Z)
        return 0.5 * float(U.square().sum() + V.square().sum())
    # With one output the norm is ||a|| + ||b||, the least over all splits Z_k = a - b within the cone.
    split = split_cone(problem, Z) if split is None else split
    return _sum_of_norms(lambda vectors: torch.linalg.vector_norm(vectors, dim=1), split)


def _sum_of_norms(norms: Callable[[torch.Tensor], torch.Tensor], vectors: torch.Tensor) -> float:
    """Return the sum of homogeneous norms, without overflow of the squares in them."""
    total = float(norms(vectors).sum())
    if is_moderate(total):
        return total
    scale = power_of_two(vectors)
    return scale * float(norms(vectors / scale).sum())


def objective(problem: Instance, Z: Blocks, split: Split | None = None) -> float:
    """Return F(A(Z)) + beta sum_k ||Z_k||_k."""
    operator = problem.operator()
    loss = problem.loss.value(operator.apply(Z), operator.Y)
    return float(loss) + problem.beta * regulariser(problem, Z, split)


def to_factors(problem: Instance, Z: Blocks, m: int | None = None, split: Split | None = None) -> tuple[Left, Right]:
    """Return balanced factors with U_k V_k^T = Z_k.

    Their factored objective is the convex one.

    Without a cone U = A sqrt(S), V = B sqrt(S) from the SVD Z_k = A S B^T. With a cone and vector outputs, they are
    those of `cone_factors`. With a scalar output the two columns are (a / sqrt(||a||), sqrt(||a||)) and
    (b / sqrt(||b||), -sqrt(||b||)) for the split (a, b).

    m: number of columns, at least the largest rank (2 with a cone); the least possible by default. Raise InputError
    where m is smaller than a block's rank.
    """
    # 1. Factors whose penalty 1/2 (||U_k||^2 + ||V_k||^2) is the regulariser of Z_k, in three cases.
    if problem.vector_cone:
        U, V = cone_factors(problem, Z)
        rank = U.shape[2]
    elif problem.has_cone:
        split = split_cone(problem, Z) if split is None else split
        # ||u||^2 = ||v||^2 = ||a|| makes the penalty of a column ||a||, and that of both columns the gauge.
        norms = torch.linalg.vector_norm(split, dim=1)  # P x 2
        # dividing a vector of the size of rounding by its small root would move it out of its cone
        roots = torch.where(norms > NEGLIGIBLE * norms.max(), norms, torch.zeros_like(norms)).sqrt()
        split = split * (roots > 0)[:, None, :]
        U = split / torch.where(roots > 0, roots, torch.ones_like(roots))[:, None, :]
        V = (roots * torch.tensor([1.0, -1.0], dtype=Z.dtype, device=Z.device))[:, None, :]
        rank = 2
    else:
        left, values, right = torch.linalg.svd(Z, full_matrices=False)
        # 1/2 (||U_k||^2 + ||V_k||^2) is the nuclear norm; singular values of the size of rounding get no column
        tolerance = NEGLIGIBLE * values.amax().clamp_min(0)
        rank = max(1, int((values > tolerance).sum(dim=1).max()))
        roots = torch.where(values > tolerance, values, torch.zeros_like(values))[:, :rank].sqrt()
        U, V = left[:, :, :rank] * roots[:, None, :], right[:, :rank].transpose(1, 2) * roots[:, None, :]
    # 2. Columns of zeros up to m. They change neither the products nor the penalty.
    if m is None or m == rank:
        return U, V
    if m < rank:
        raise InputError(f"m = {m} columns cannot hold blocks of rank {rank}: give m >= {rank}")
    return torch.nn.functional.pad(U, (0, m - rank)), torch.nn.functional.pad(V, (0, m - rank))


def soft_threshold(Z: Blocks, threshold: float) -> Blocks:
    """Return the prox of threshold * nuclear norm, block by block.

    Singular values s become (s - threshold)_+.

    With the eigenvectors B of the smaller Gram matrix that is Z B diag((1 - threshold / s)_+) B^T.
    """
    _, p, q = Z.shape
    if min(p, q) == 1:
        # The only singular value is the norm of the block: this is the prox of the group lasso.
        norms = torch.linalg.vector_norm(Z, dim=(1, 2), keepdim=True)
        return Z * (1 - threshold / norms.clamp_min(TINY)).clamp_min(0)
    # Z = A S B^T has Z^T Z = B S^2 B^T, whose eigenvectors are quicker than an SVD
    gram = Z.transpose(1, 2) @ Z if q <= p else Z @ Z.transpose(1, 2)
    squares, basis = torch.linalg.eigh(gram)
    # Eigenvalues of a Gram matrix may come out below zero by rounding. Their directions are shrunk to zero.
    values = squares.clamp_min(0).sqrt()
    shrink = (1 - threshold / values.clamp_min(TINY)).clamp_min(0)
    scaled = (basis * shrink[:, None, :]) @ basis.transpose(1, 2)
    return Z @ scaled if q <= p else scaled @ Z
