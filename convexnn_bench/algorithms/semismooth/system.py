"""The Newton system (I + sigma A M A^* W) x = b, by whichever of four routes costs least.

A: the operator on the active blocks, M: the generalised Jacobian of their prox, W = F''(z). M and W are symmetric and
positive semidefinite, and may be singular. With M = sum_e E_e E_e^T and the columns B = A E:

    columns   x = b - sigma B y,     (I + sigma B^T W B) y = B^T W b           r x r, r = rank M
    samples   x = b - sigma S R t,   (I + sigma R S R) t = R b                 n x n, R = W^(1/2) diagonal, q = 1, MLP
    small     (I + sigma B (W B)^T) x = b, by an LU factorisation              n_out c x n_out c
    products  conjugate gradients in the inner product <a, W b>, in which the matrix is self-adjoint

For q = 1 the n x n matrix S = A M A^* is (Phi Phi^T) o (D diag(g) D^T) + C C^T, where every block gives a column of C.
It takes n^2 J operations for J active blocks, however long they are (Li, Sun & Toh, SIAM J. Optim. 28, 2018, for the
lasso).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.semismooth.prox import Shrinkage
from convexnn_bench.losses import Curvature
from convexnn_bench.operator import Operator, Predictions

# Where no source is named, a value was chosen by trials on the ladder (docs/measurements.md).
CALL_OVERHEAD = 5e6  # cost of calling an operator product, in operations
LARGEST_MATRIX = 2**27  # entries of the largest matrix that is formed: 1 GiB
THIN_SLOWNESS = 2.0  # time of an operation in products through factors, relative to other products
FIRST_GUESS = 20  # conjugate gradient steps that a system is expected to take, before one was solved
MOST_CG_STEPS = 2000


@dataclass
class SystemHistory:
    """What earlier systems leave for the next."""

    route: str = ""  # of the last system
    cg_steps: int = FIRST_GUESS  # conjugate gradient steps of the last system, or twice as many as were not enough
    gram: torch.Tensor | None = None  # Phi Phi^T, once the route samples has formed it


class SemismoothSystem:
    """The matrix I + sigma A M A^* W, with A on the active blocks of `shrinkage`.

    curve: the products with W.
    """

    def __init__(
        self, operator: Operator, shrinkage: Shrinkage, curve: Curvature, sigma: float, history: SystemHistory
    ):
        self.operator, self.shrinkage, self.sigma, self.history = operator, shrinkage, sigma, history
        self.curve = curve
        self.size = operator.n_out * operator.c
        J, p, q = shrinkage.Z.shape
        directions = len(shrinkage.directions[0])
        thin = THIN_SLOWNESS * directions * (p + 2 * q)
        rows, dense = operator.product_rows, float(J * p * q)
        self.thin = thin * operator.N < dense * rows and operator.N * directions <= LARGEST_MATRIX
        self.operations = 4.0 * (thin * operator.N if self.thin else dense * rows)  # of a product

    def solve(self, b: Predictions, tolerance: float) -> Predictions:
        """Return x; conjugate gradients end at a residual of `tolerance` relative to b in the norm of W.

        1. Find the cheapest direct route.
        2. If as many steps as the last system took cost less, try conjugate gradients. Give them up once they have
           cost half as much as the direct route.
        3. Otherwise take the direct route.
        """
        if len(self.shrinkage.active) == 0:
            return b
        # 1. Weigh the routes.
        costs = self.costs()
        product = costs.pop("product")
        route = min(costs, key=lambda name: costs[name], default="")
        budget = int(0.5 * costs[route] / product) if route else MOST_CG_STEPS
        # 2. Try conjugate gradients.
        if self.history.cg_steps <= budget or not route:
            x, steps, done = self.conjugate_gradients(b, tolerance, min(max(budget, 1), MOST_CG_STEPS))
            self.history.cg_steps = steps if done else 2 * steps
            if done or not route:
                self.history.route = "products"
                return x
        # 3. Solve directly.
        self.history.route = route
        return {"columns": self.columns, "small": self.small, "samples": self.samples}[route](b)

    def costs(self) -> dict[str, float]:
        """Return the operations of a product, and of each direct route that applies and fits into memory."""
        J, (_, p, q) = len(self.shrinkage.active), self.shrinkage.Z.shape
        n, rows, size, r = self.operator.N, self.operator.product_rows, self.size, self.shrinkage.rank
        costs = {"product": CALL_OVERHEAD + self.operations + 8.0 * J * p * q * min(p, q)}
        making = 2.0 * rows * p * q * r
        if max(rows * q, size, r) * r <= LARGEST_MATRIX:
            costs["columns"] = CALL_OVERHEAD + making + 2.0 * size * r**2 + r**3 / 3
            if size <= r:
                costs["small"] = CALL_OVERHEAD + making + 2.0 * size**2 * r + size**3
        if self._elementwise() and n * n <= LARGEST_MATRIX:
            costs["samples"] = CALL_OVERHEAD + 4.0 * n**2 * J + n**3 / 3 + 20.0 * n**2
        return costs

    def _elementwise(self) -> bool:
        """Return whether S has its product form and W is diagonal, which a product with uneven entries shows."""
        operator = self.operator
        if operator.q > 1 or not operator.is_plain:
            return False
        probe = torch.linspace(1.0, 2.0, self.size, dtype=operator.dtype, device=operator.device)[:, None]
        weights = self.weigh(torch.ones_like(probe))
        return bool(((self.weigh(probe) - weights * probe).abs() <= 1e-12 * weights.abs()).all())

    # -- products ---------------------------------------------------------------------------------------

    def weigh(self, x: Predictions) -> Predictions:
        """Return W x."""
        return self.curve(x[:, :, None])[:, :, 0]

    def push(self, x: Predictions) -> Predictions:
        """Return A M A^* x, through the factors of M's blocks where that costs less."""
        operator, shrinkage = self.operator, self.shrinkage
        if not self.thin:
            return operator.apply(shrinkage.jacobian(operator.adjoint(x)))
        neurons, V, hidden = self._thin_parts
        S, T = shrinkage.jacobian_factors(*neurons.factor_gradients(hidden, x, V))
        return neurons.combine(hidden, T) + neurons.combine(neurons.hidden(S), V)

    @cached_property
    def _thin_parts(self) -> tuple[Operator, Float[torch.Tensor, "R q 1"], Float[torch.Tensor, "N R 1"]]:
        """The operator with one block for every direction of M, the factors V, and the hidden units of U."""
        neurons, (U, V) = self.operator.on_blocks(self.shrinkage.directions[0]), self.shrinkage.factors()
        return neurons, V, neurons.hidden(U)

    def conjugate_gradients(self, b: Predictions, tolerance: float, most: int) -> tuple[Predictions, int, bool]:
        """Return (x, steps, whether the tolerance was met).

        x is determined as far as W sees it.
        """
        x, r = torch.zeros_like(b), b.clone()
        Wr = self.weigh(r)
        rho = (r * Wr).sum()
        goal = tolerance**2 * rho
        p, Wp, steps = r.clone(), Wr, 0
        while steps < most and bool(rho > goal):
            q = p + self.sigma * self.push(Wp)
            length = rho / (Wp * q).sum()
            x += length * p
            r -= length * q
            Wr = self.weigh(r)
            before, rho = rho, (r * Wr).sum()
            p = r + (rho / before) * p
            Wp = self.weigh(p)
            steps += 1
        return x, steps, not bool(rho > goal)

    # -- direct routes ----------------------------------------------------------------------------------

    def matrix_columns(self) -> Float[torch.Tensor, "size r"]:
        """Return B, the predictions A_k(E_e) of every eigenmatrix of M."""
        E, owner = self.shrinkage.eigenmatrices()
        return self.operator.images(E, owner).reshape(-1, len(E))

    def _weighed(self, B: Float[torch.Tensor, "size r"]) -> Float[torch.Tensor, "size r"]:
        """Return W B."""
        return self.curve(B.view(self.operator.n_out, self.operator.c, -1)).reshape(B.shape)

    def columns(self, b: Predictions) -> Predictions:
        """Solve by the r x r matrix I + sigma B^T W B."""
        B = self.matrix_columns()
        WB = self._weighed(B)
        inner = (self.sigma * B.T) @ WB
        inner.diagonal().add_(1.0)
        factor = torch.linalg.cholesky(inner)
        y = torch.cholesky_solve(WB.T @ b.reshape(-1, 1), factor)
        return b - self.sigma * (B @ y).view(b.shape)

    def small(self, b: Predictions) -> Predictions:
        """Solve by the n_out c x n_out c matrix I + sigma B (W B)^T."""
        B = self.matrix_columns()
        matrix = (self.sigma * B) @ self._weighed(B).T
        matrix.diagonal().add_(1.0)
        return torch.linalg.solve(matrix, b.reshape(-1, 1)).view(b.shape)

    def samples(self, b: Predictions) -> Predictions:
        """Solve by the n x n matrix I + sigma R S R."""
        shrinkage, operator = self.shrinkage, self.operator
        if self.history.gram is None:
            self.history.gram = operator.Phi @ operator.Phi.T
        root = self.weigh(torch.ones_like(b)).sqrt()
        rows = root * operator.masks
        norms, ratio = shrinkage.values[:, 0], shrinkage.ratio[:, 0]
        spikes = (operator.Phi @ shrinkage.rotated[:, :, 0].T) * rows * (shrinkage.tau * self.sigma / norms**3).sqrt()
        matrix = (rows * (self.sigma * ratio)) @ rows.T
        matrix.mul_(self.history.gram).addmm_(spikes, spikes.T)
        matrix.diagonal().add_(1.0)
        t = torch.cholesky_solve(root * b, torch.linalg.cholesky(matrix))
        return b - self.sigma * self.push(root * t)
