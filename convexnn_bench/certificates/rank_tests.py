"""Whether the theorems on ranks apply at a Burer-Monteiro point.

They are Theorems 3.3 and 3.5 of Sahiner et al., ICLR 2024.
"""

import math
from typing import Any

import torch
from jaxtyping import Float

from convexnn_bench.norms import spectral_norms
from convexnn_bench.problem import Problem

# singular values below this fraction of the largest one of all blocks count as zero in the rank tests
RANK_TOLERANCE = 1e-6


def rank_tests(
    problem: Problem, factors: tuple[torch.Tensor, torch.Tensor], G: Float[torch.Tensor, "P p q"]
) -> dict[str, Any]:
    """Return the fields of a certificate that say whether Theorems 3.3 and 3.5 apply.

    The point is a Burer-Monteiro point without cones.
    """
    # 1. The norm of the gradient (G_k V_k + beta U_k, G_k^T U_k + beta V_k), relative to that of the penalty's gradient
    # beta (U, V).
    U, V = factors
    left, right = G @ V + problem.beta * U, G.transpose(1, 2) @ U + problem.beta * V
    size = problem.beta * math.sqrt(float(U.square().sum() + V.square().sum()))
    slope = math.sqrt(float(left.square().sum() + right.square().sum()))
    # 2. Numerical ranks. At a stationary point U_k^T U_k = V_k^T V_k, so that both factors have the same singular
    # values. Elsewhere the smaller one of each pair decides.
    values = torch.minimum(*(_padded_singular_values(factor) for factor in (U, V)))
    floor = RANK_TOLERANCE * float(torch.stack([U.abs().amax(), V.abs().amax()]).max())
    ranks = (values > floor).sum(dim=1)
    # 3. Theorem 3.5: a stationary point is global if every block has full rank, or is zero with ||G_k|| <= beta.
    norms = spectral_norms(G)
    full = (ranks == min(problem.p, problem.q)) | ((ranks == 0) & (norms <= problem.beta * (1 + 1e-9)))
    return {
        "gradient_norm": slope / size if size > 0 else slope / problem.beta,
        "full_rank": bool(full.all()),
        # Theorem 3.3: for a unit w in the common kernel of U_k and V_k the second-order term along (x w^T, y w^T) is
        # 2 x^T G_k y + beta (||x||^2 + ||y||^2). Where it is never negative, ||G_k|| <= beta.
        "rank_deficient": bool((ranks < U.shape[2]).all()),
        "ranks": tuple(int(rank) for rank in ranks),
    }


def _padded_singular_values(factor: torch.Tensor) -> torch.Tensor:
    """Return the singular values of every block, with zeros appended up to m of them."""
    # There are min(p, m) of them for U_k and min(q, m) for V_k, which differ where p or q is below m.
    values = torch.linalg.svdvals(factor)
    return torch.nn.functional.pad(values, (0, factor.shape[2] - values.shape[1]))
