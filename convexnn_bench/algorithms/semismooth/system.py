"""The Newton system (I + sigma A M A^* W) x = b, by whichever of four routes costs least.

A: the operator on the active blocks, M: the generalised Jacobian of their prox, W = F''(z); M and W are symmetric and
positive semidefinite, and may be singular. With M = sum_e E_e E_e^T and the columns B = A E:

    columns   x = b - sigma B y,     (I + sigma B^T W B) y = B^T W b           r x r, r = rank M
    samples   x = b - sigma S R t,   (I + sigma R S R) t = R b                 n x n, R = W^(1/2) diagonal, q = 1, MLP
    small     (I + sigma B (W B)^T) x = b, by an LU factorisation              n_out c x n_out c
    products  conjugate gradients in the inner product <a, W b>, in which the matrix is self-adjoint

For q = 1 the n x n matrix is S = (Phi Phi^T) o (D diag(g) D^T) + C C^T with a column of C a block: n^2 J
operations for J active blocks, whatever their length (Li, Sun & Toh, SIAM J. Optim. 28, 2018, for the lasso).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float

from convexnn_bench.algorithms.semismooth.prox import Shrinkage
from convexnn_bench.losses.base import Curvature
from convexnn_bench.operator.lifted import Operator

Predictions = Float[torch.Tensor, "n_out c"]
Route = Callable[[Predictions], Predictions]

CALL = 5e6  # what an operator product costs apart from its operations, in operations
LARGEST = 2**27  # numbers of the largest matrix that is formed: 1 GiB
THIN = 2.0  # products through factors take so many times longer than their operations say
FIRST_GUESS = 20  # conjugate gradient steps, until some were seen
MOST_STEPS = 2000


@dataclass
class Effort:
    """What earlier systems took. iterations: conjugate gradient steps of the last one, or what was not enough.

    route: the one that solved the last system.
    """

    route: str = ""
    iterations: int = FIRST_GUESS
    gram: torch.Tensor | None = None  # Phi Phi^T


class NewtonSystem:
    """I + sigma A M A^* W. operator: on the active blocks of `shrinkage`. curve: products with W."""

    def __init__(self, operator: Operator, shrinkage: Shrinkage, curve: Curvature, sigma: float, effort: Effort):
        self.operator, self.shrinkage, self.sigma, self.effort = operator, shrinkage, sigma, effort
        self.curve = curve
        self.size = operator.n_out * operator.c
        J, p, q = shrinkage.Z.shape
        directions = len(shrinkage.directions[0])
        thin = THIN * directions * (p + 2 * q)
        rows, dense = operator.product_rows, float(J * p * q)
        self.thin = thin * operator.N < dense * rows and operator.N * directions <= LARGEST
        self.operations = 4.0 * (thin * operator.N if self.thin else dense * rows)  # of a product

    def weigh(self, x: Predictions) -> Predictions:
        """W x."""
        return self.curve(x[:, :, None])[:, :, 0]

    def push(self, x: Predictions) -> Predictions:
        """A M A^* x, through the factors of M's blocks where that costs less."""
        operator, shrinkage = self.operator, self.shrinkage
        if not self.thin:
            return operator.apply(shrinkage.jacobian(operator.adjoint(x)))
        _, V = self._factors
        HV, HU = self._neurons.factor_gradients(self._hidden, x, V)
        S, T = shrinkage.through(HV, HU)
        return self._neurons.combine(self._hidden, T) + self._neurons.combine(self._neurons.hidden(S), V)

    @cached_property
    def _neurons(self) -> Operator:
        """The operator with one block a direction of M."""
        return self.operator.on_blocks(self.shrinkage.directions[0])

    @cached_property
    def _factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.shrinkage.factors()

    @cached_property
    def _hidden(self) -> Float[torch.Tensor, "N R 1"]:
        return self._neurons.hidden(self._factors[0])

    def product(self, x: Predictions) -> Predictions:
        """x + sigma A M A^* W x."""
        return x + self.sigma * self.push(self.weigh(x))

    # -- the choice -------------------------------------------------------------------------------------

    def costs(self) -> dict[str, float]:
        """Operations of a product, and of each direct route that fits memory and applies."""
        J, (_, p, q) = len(self.shrinkage.active), self.shrinkage.Z.shape
        n, rows, size, r = self.operator.N, self.operator.product_rows, self.size, self.shrinkage.rank
        found = {"product": CALL + self.operations + 8.0 * J * p * q * min(p, q)}
        making = 2.0 * rows * p * q * r
        if max(rows * q, size, r) * r <= LARGEST:
            found["columns"] = CALL + making + 2.0 * size * r**2 + r**3 / 3
            if size <= r:
                found["small"] = CALL + making + 2.0 * size**2 * r + size**3
        if self._elementwise() and n * n <= LARGEST:
            found["samples"] = CALL + 4.0 * n**2 * J + n**3 / 3 + 20.0 * n**2
        return found

    def _elementwise(self) -> bool:
        """Whether S has its product form and W is diagonal, as one product with uneven entries shows."""
        operator = self.operator
        if operator.q > 1 or not operator.architecture.second_layer_is_identity or operator._structured_first:
            return False
        probe = torch.linspace(1.0, 2.0, self.size, dtype=operator.dtype, device=operator.device)[:, None]
        weights = self.weigh(torch.ones_like(probe))
        return bool(((self.weigh(probe) - weights * probe).abs() <= 1e-12 * weights.abs()).all())

    def solve(self, b: Predictions, tolerance: float) -> Predictions:
        """x. Conjugate gradients end at a residual of `tolerance` relative to b in the norm of W.

        They are tried where as many steps as the last system took cost less than the cheapest direct route, and are
        given up once they have cost as much as that.
        """
        if len(self.shrinkage.active) == 0:
            return b
        costs = self.costs()
        product = costs.pop("product")
        route = min(costs, key=lambda name: costs[name], default="")
        budget = int(0.5 * costs[route] / product) if route else MOST_STEPS
        if self.effort.iterations <= budget or not route:
            x, steps, done = self.conjugate_gradients(b, tolerance, min(max(budget, 1), MOST_STEPS))
            self.effort.iterations = steps if done else 2 * steps
            if done or not route:
                self.effort.route = "products"
                return x
        self.effort.route = route
        return getattr(self, route)(b)

    # -- the routes -------------------------------------------------------------------------------------

    def matrix_columns(self) -> Float[torch.Tensor, "size r"]:
        """B, the predictions A_k(E_e) of every eigenmatrix of M."""
        E, owner = self.shrinkage.eigenmatrices()
        operator, (r, p, q) = self.operator, E.shape
        if operator._pooled is not None:
            return operator._pooled.images(E, owner).reshape(-1, r)
        H = operator.first_layer(E.permute(1, 0, 2).reshape(p, -1)).view(operator.N, r, q)
        H = H * operator.masks[:, owner, None]
        if operator.architecture.second_layer_is_identity:
            return H.permute(0, 2, 1).reshape(-1, r)
        return torch.vmap(operator.second_layer, in_dims=1, out_dims=-1)(H).reshape(-1, r)

    def _weighed(self, B: Float[torch.Tensor, "size r"]) -> Float[torch.Tensor, "size r"]:
        return self.curve(B.view(self.operator.n_out, self.operator.c, -1)).reshape(B.shape)

    def columns(self, b: Predictions) -> Predictions:
        B = self.matrix_columns()
        WB = self._weighed(B)
        inner = (self.sigma * B.T) @ WB
        inner.diagonal().add_(1.0)
        factor = torch.linalg.cholesky(inner)
        y = torch.cholesky_solve(WB.T @ b.reshape(-1, 1), factor)
        return b - self.sigma * (B @ y).view(b.shape)

    def small(self, b: Predictions) -> Predictions:
        B = self.matrix_columns()
        matrix = (self.sigma * B) @ self._weighed(B).T
        matrix.diagonal().add_(1.0)
        return torch.linalg.solve(matrix, b.reshape(-1, 1)).view(b.shape)

    def samples(self, b: Predictions) -> Predictions:
        shrinkage, operator = self.shrinkage, self.operator
        if self.effort.gram is None:
            self.effort.gram = operator.Phi @ operator.Phi.T
        root = self.weigh(torch.ones_like(b)).sqrt()
        rows = root * operator.masks
        norms, ratio = shrinkage.values[:, 0], shrinkage.ratio[:, 0]
        spikes = (operator.Phi @ shrinkage.rotated[:, :, 0].T) * rows * (shrinkage.tau * self.sigma / norms**3).sqrt()
        matrix = (rows * (self.sigma * ratio)) @ rows.T
        matrix.mul_(self.effort.gram).addmm_(spikes, spikes.T)
        matrix.diagonal().add_(1.0)
        t = torch.cholesky_solve(root * b, torch.linalg.cholesky(matrix))
        return b - self.sigma * self.push(root * t)

    def conjugate_gradients(self, b: Predictions, tolerance: float, most: int) -> tuple[Predictions, int, bool]:
        """(x, steps, whether the tolerance was met); x is determined as far as W sees it."""
        x, r = torch.zeros_like(b), b.clone()
        Wr = self.weigh(r)
        rho = (r * Wr).sum()
        goal = tolerance**2 * rho
        p, Wp, steps = r.clone(), Wr, 0
        while steps < most and bool(rho > goal):
            q = p + self.sigma * self.push(Wp)
            step = rho / (Wp * q).sum()
            x += step * p
            r -= step * q
            Wr = self.weigh(r)
            before, rho = rho, (r * Wr).sum()
            p = r + (rho / before) * p
            Wp = self.weigh(p)
            steps += 1
        return x, steps, not bool(rho > goal)
