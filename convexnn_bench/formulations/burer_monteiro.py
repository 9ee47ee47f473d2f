"""The Burer-Monteiro formulation of the convex program.

min F(A(U V^T)) + beta/2 sum_k (||U_k||_F^2 + ||V_k||_F^2), with K_k U_k >= 0 for ReLU.

Sahiner et al., ICLR 2024, equations 19-21. Blocks are Z_k = U_k V_k^T.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from convexnn_bench.checks import check_array
from convexnn_bench.errors import InputError
from convexnn_bench.instance import Instance
from convexnn_bench.operator import Operator

Blocks = Float[torch.Tensor, "P p q"]
Left = Float[torch.Tensor, "P p m"]
Right = Float[torch.Tensor, "P q m"]
Scalar = Float[torch.Tensor, ""]


def check_factors(problem: Instance, U: Any, V: Any) -> tuple[Left, Right]:
    """Return factors as float64 tensors.

    Raise InputError for wrong shapes and non-finite entries.
    """
    U, V = check_array("U", U), check_array("V", V)
    m = U.shape[2] if U.ndim == 3 else -1
    if m == 0 or U.shape != (problem.P, problem.p, m) or V.shape != (problem.P, problem.q, m):
        raise InputError(
            f"factors must be U: P x p x m and V: P x q x m, m >= 1, with P, p, q = {problem.P}, {problem.p}, "
            f"{problem.q}; got U {U.shape} and V {V.shape}"
        )
    return torch.as_tensor(U), torch.as_tensor(V)


def default_columns(problem: Instance) -> int:
    """Return m = min(p, q), for which no second-order stationary point is spurious.

    This follows from Theorems 3.3 and 3.5.

    With a cone, m = 2 for a scalar output, one column for either sign. For vector outputs m = p, which a completely
    positive p x p matrix needs for p <= 4, and which is never more than the p q of Caratheodory's theorem.
    """
    # With one output Z_k = a - b for a and b in the cone, so that a block needs a column for each of them.
    if problem.has_cone:
        return 2 if problem.q == 1 else problem.p
    # No block has a larger rank, so that the factors reach every block of the convex program.
    return min(problem.p, problem.q)


def objective(problem: Instance, U: Left, V: Right) -> float:
    """Return the factored objective, without a check of the cones."""
    operator = problem.operator(str(U.device))
    loss = problem.loss.value(operator.apply_factors(U, V), operator.Y)
    return float(loss + 0.5 * problem.beta * (U.square().sum() + V.square().sum()))


def value_and_gradient(problem: Instance, operator: Operator, U: Left, V: Right) -> tuple[Scalar, Left, Right]:
    """Return the objective and its gradient in U and in V.

    The gradients are G_k V_k + beta U_k and G_k^T U_k + beta V_k, with G_k = A_k^*(grad F).
    """
    # The derivative of F(A(U V^T)) by U_k is A_k^*(grad F) V_k, and by V_k it is A_k^*(grad F)^T U_k. The pullback
    # gives both, and forms the blocks G_k only where that is cheaper.
    z, pullback = operator.factored(U, V)
    left, right = pullback(problem.loss.gradient(z, operator.Y))
    value = problem.loss.value(z, operator.Y) + 0.5 * problem.beta * (U.square().sum() + V.square().sum())
    return value, left.add(U, alpha=problem.beta), right.add(V, alpha=problem.beta)


def natural_scale(problem: Instance, operator: Operator) -> float:
    """Return the size of a block after one exact gradient step from zero.

    It sets the scale of a start point.

    From Z = 0 along -G := -A^*(grad F(0)) the quadratic model of F is least at t = ||G||^2 / (L ||A(G)||^2), with L the
    loss's smoothness. Then t ||G|| / sqrt(P) is the norm of a typical block. It scales with X and Y as blocks do.
    """
    # F(A(-t G)) <= F(0) - t ||G||^2 + t^2/2 L ||A(G)||^2
    gradient = problem.loss.gradient(torch.zeros_like(operator.Y), operator.Y)
    G = operator.adjoint(gradient)
    curvature = problem.loss.smoothness * float(operator.apply(G).square().sum())
    size = float(torch.linalg.vector_norm(G))
    if size == 0 or curvature == 0:
        return 1.0
    # t ||G|| = ||G||^3 / (L ||A(G)||^2)
    return size**3 / curvature / float(np.sqrt(problem.P))


def start(problem: Instance, operator: Operator, m: int, seed: int, scale: float = 0.1) -> tuple[Left, Right]:
    """Return Gaussian factors whose blocks have about `scale` times the natural norm."""
    # Numbers are drawn on the CPU and then moved, so that a seed means the same on every device.
    generator = torch.Generator().manual_seed(seed)
    U = torch.randn(problem.P, problem.p, m, generator=generator, dtype=operator.dtype).to(operator.device)
    V = torch.randn(problem.P, problem.q, m, generator=generator, dtype=operator.dtype).to(operator.device)
    # a product of Gaussian factors with m columns has norm sqrt(p q m), in the mean square
    size = scale * natural_scale(problem, operator) / float(np.sqrt(problem.p * problem.q * m))
    if problem.has_cone:
        U = project(problem, U)
        if problem.q == 1:  # one column for either sign
            V = V.abs() * torch.where(torch.arange(m) % 2 == 0, 1.0, -1.0).to(V)
    return U * size**0.5, V * size**0.5


def project(problem: Instance, U: Left, in_time: bool = False) -> Left:
    """Return the nearest U with K_k U_k >= 0; U itself without a cone.

    in_time: after the deadline return any feasible U, see `Cones.project_in_time`.
    """
    if problem.cones is None:
        return U
    nearest = problem.cones.project_in_time if in_time else problem.cones.project
    return torch.as_tensor(nearest(U.cpu().numpy())).to(U)


def balance(U: Left, V: Right) -> tuple[Left, Right]:
    """Return columns rescaled to ||u|| = ||v|| with the same products.

    This never raises the objective.
    """
    # u v^T = (t u) (v / t)^T, and (t ||u||)^2 + (||v|| / t)^2 is least at t^2 = ||v|| / ||u||
    left = torch.linalg.vector_norm(U, dim=-2, keepdim=True)
    right = torch.linalg.vector_norm(V, dim=-2, keepdim=True)
    # A pair with one zero vector contributes nothing to U V^T and still costs the other's square: both become zero.
    alive = (left > 0) & (right > 0)
    one = torch.ones_like(left)
    ratio = (torch.where(alive, right, one) / torch.where(alive, left, one)).sqrt()
    return U * torch.where(alive, ratio, 0 * one), V * torch.where(alive, 1 / ratio, 0 * one)


def to_blocks(U: Left, V: Right) -> Blocks:
    """Return Z_k = U_k V_k^T."""
    return U @ V.transpose(1, 2)


def to_split(U: Left, V: Right) -> Float[torch.Tensor, "P p 2"]:
    """Return (a, b) with U_k V_k^T = a - b for one output.

    a, b: the sums of the columns with v > 0 and with v < 0.
    """
    return torch.stack([(U * (sign * V).clamp_min(0)).sum(dim=2) for sign in (1.0, -1.0)], dim=2)


def to_network(problem: Instance, U: Left, V: Right) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the network with one neuron for each pair of columns.

    Column j of block k becomes neuron j P + k, with gate k.

    For ReLU the columns must lie in their cones, where D_k Phi u = max(Phi u, 0); zero neurons are dropped.
    """
    # sum_k D_k Phi U_k V_k^T is a sum over column pairs, each a neuron D_k Phi u v^T
    W1 = U.permute(1, 2, 0).reshape(problem.p, -1)
    W2 = V.permute(1, 2, 0).reshape(problem.q, -1)
    # A ReLU neuron has no gate, so that its number means nothing. With gates neuron j has gate j mod P, and dropping
    # one would hand the later neurons other gates.
    if problem.has_cone:
        alive = (W1 != 0).any(dim=0) & (W2 != 0).any(dim=0)
        W1, W2 = W1[:, alive], W2[:, alive]
    return W1, W2
