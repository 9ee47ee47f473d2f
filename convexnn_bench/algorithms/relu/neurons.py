"""A few ReLU neurons (u_j, v_j), each held in one cone on which the network is bilinear: value, gradient, Hessian.

f(U, V) = F(C(sum_j D_j Phi u_j v_j^T)) + beta/2 sum_j (||u_j||^2 + ||v_j||^2), with K_j u_j >= 0 for the unit rows K_j
of the cone of neuron j (Sahiner et al., ICLR 2024, eq. 21, column by column). With M = sum_j D_j Phi u_j v_j^T and
R = C^*(grad F) the gradients are Phi^T D_j R v_j + beta u_j and R^T D_j Phi u_j + beta v_j.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from convexnn_bench.cones.nearest_point import nearest_point, unit_rows
from convexnn_bench.problem import Problem

ON_FACET = 1e-10  # K u below this part of ||u||: on the facet
PARALLEL = 1e-12  # 1 - cosine below which two vectors count as one

Array = Float[np.ndarray, "..."]


@dataclass
class Neurons:
    """J neurons: U J x p, V J x q, masks J x N (D_j), blocks J (their block, -1 where there is none).

    rows: J x F x p, the unit rows of the cones, padded with zero rows, which hold everywhere.
    """

    U: Float[np.ndarray, "J p"]
    V: Float[np.ndarray, "J q"]
    masks: Bool[np.ndarray, "J N"]
    rows: Float[np.ndarray, "J F p"]
    blocks: np.ndarray

    def __len__(self) -> int:
        return len(self.U)

    def moved(self, U: Float[np.ndarray, "J p"], V: Float[np.ndarray, "J q"]) -> "Neurons":
        """The same cones at another point."""
        return Neurons(U, V, self.masks, self.rows, self.blocks)

    def take(self, kept: np.ndarray) -> "Neurons":
        """Some of the neurons, by index or mask."""
        return Neurons(self.U[kept], self.V[kept], self.masks[kept], self.rows[kept], self.blocks[kept])

    def joined(self, other: "Neurons") -> "Neurons":
        """All of both."""
        width = max(self.rows.shape[1], other.rows.shape[1])
        rows = [np.pad(part.rows, ((0, 0), (0, width - part.rows.shape[1]), (0, 0))) for part in (self, other)]
        return Neurons(
            np.concatenate([self.U, other.U]),
            np.concatenate([self.V, other.V]),
            np.concatenate([self.masks, other.masks]),
            np.concatenate(rows),
            np.concatenate([self.blocks, other.blocks]),
        )

    @property
    def sizes(self) -> Float[np.ndarray, " J"]:
        """||u_j|| ||v_j||, the norm of what the neuron contributes."""
        return np.linalg.norm(self.U, axis=1) * np.linalg.norm(self.V, axis=1)

    def slack(self, U: Float[np.ndarray, "J p"]) -> Float[np.ndarray, "J F"]:
        """K_j u_j."""
        return (self.rows @ U[:, :, None])[:, :, 0]

    def project(self, U: Float[np.ndarray, "J p"]) -> Float[np.ndarray, "J p"]:
        """Every u_j moved to the nearest point of its cone."""
        lengths = np.linalg.norm(U, axis=1)
        outside = self.slack(U).min(axis=1, initial=0.0) < -1e-15 * lengths
        if not outside.any():
            return U
        U = U.copy()
        for j in np.flatnonzero(outside):
            U[j] = nearest_point(self.rows_of(j), U[j])[0]
        return U

    def rows_of(self, j: int | np.integer) -> Float[np.ndarray, "F p"]:
        """Row F x p of neuron j without the padding."""
        rows = self.rows[j]
        return rows[np.any(rows != 0, axis=1)]

    def active(self) -> Bool[np.ndarray, "J F"]:
        """Facets that u_j lies on."""
        lengths = np.linalg.norm(self.U, axis=1)[:, None]
        real = np.any(self.rows != 0, axis=2)
        return real & (self.slack(self.U) <= ON_FACET * lengths)

    def balanced(self) -> "Neurons":
        """`rescaled`, neurons without effect left out; f does not rise."""
        out = self.rescaled()
        return out.take(np.any(out.U != 0, axis=1))

    def rescaled(self) -> "Neurons":
        """||u|| = ||v|| with the products kept; neurons without effect become zero."""
        left, right = np.linalg.norm(self.U, axis=1), np.linalg.norm(self.V, axis=1)
        alive = (left > 0) & (right > 0)
        ratio = np.where(alive, np.sqrt(np.where(alive, right, 1.0) / np.where(alive, left, 1.0)), 0.0)[:, None]
        return self.moved(self.U * ratio, np.where(ratio > 0, self.V / np.where(ratio > 0, ratio, 1.0), 0.0))

    def merged(self) -> "Neurons":
        """Pairs with parallel u, or with parallel v in one cone, made one; f does not rise.

        u_1 v_1^T + u_2 v_2^T is again one product, of norm at most the sum of the two (triangle inequality).
        """
        out = self.balanced()
        while len(out) > 1:
            pair = out._mergeable()
            if pair is None:
                break
            out = out._merge(*pair)
        return out

    def _mergeable(self) -> tuple[int, int, bool] | None:
        left, right = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (self.U, self.V))
        names = np.unique(self.masks, axis=0, return_inverse=True)[1].reshape(-1)
        same_u = left @ left.T >= 1 - PARALLEL
        same_v = (right @ right.T >= 1 - PARALLEL) & (names[:, None] == names)
        found = np.argwhere(np.triu(same_u | same_v, 1))
        return (int(found[0][0]), int(found[0][1]), bool(same_u[tuple(found[0])])) if len(found) else None

    def _merge(self, i: int, j: int, same_u: bool) -> "Neurons":
        U, V = self.U.copy(), self.V.copy()
        a, b = np.linalg.norm(U[i]), np.linalg.norm(U[j])  # of V as well: the pairs are balanced
        if same_u:
            U[i], V[i] = U[i] / a, a * V[i] + b * V[j]
        else:
            U[i], V[i] = a * U[i] + b * U[j], V[i] / a
        return self.moved(U, V).take(np.arange(len(self)) != j).balanced()


class NeuronObjective:
    """f, its gradient, and its Hessian on faces of the cones, float64 on the CPU."""

    def __init__(self, problem: Problem):
        self.problem, self.beta = problem, problem.beta
        self.operator = problem.operator()
        self.Phi = problem.Phi
        self.N, self.p, self.q = problem.N, problem.p, problem.q
        self.evaluations = 0
        self.damping = problem.beta  # of Newton steps, carried from one descent to the next

    def hidden(self, neurons: Neurons, U: Array) -> Float[np.ndarray, "N J"]:
        """D_j Phi u_j."""
        return (self.Phi @ U.T) * neurons.masks.T

    def predictions(self, neurons: Neurons) -> torch.Tensor:
        """C(sum_j D_j Phi u_j v_j^T)."""
        return self.operator.second_layer(torch.as_tensor(self.hidden(neurons, neurons.U) @ neurons.V))

    def value(self, neurons: Neurons) -> float:
        self.evaluations += 1
        loss = self.problem.loss.value(self.predictions(neurons), self.operator.Y)
        return float(loss) + 0.5 * self.beta * float(np.sum(neurons.U**2) + np.sum(neurons.V**2))

    def residual(self, neurons: Neurons) -> Float[np.ndarray, "N q"]:
        """R = C^*(grad F)."""
        gradient = self.problem.loss.gradient(self.predictions(neurons), self.operator.Y)
        return self.operator.second_layer_adjoint(gradient).numpy()

    def gradient(self, neurons: Neurons, R: Float[np.ndarray, "N q"]) -> tuple[Array, Array]:
        """With respect to U and V, J x p and J x q."""
        pulled = ((R @ neurons.V.T) * neurons.masks.T).T @ self.Phi
        return pulled + self.beta * neurons.U, self.hidden(neurons, neurons.U).T @ R + self.beta * neurons.V

    def loss_curvature(self, z: torch.Tensor) -> Float[np.ndarray, "n_out c c"]:
        """F'' of every row of the predictions (F is a sum over rows); at a kink of grad F that of one side."""
        pullback = torch.func.vjp(lambda at: self.problem.loss.gradient(at, self.operator.Y), z)[1]
        columns = torch.eye(z.shape[1], dtype=z.dtype)
        return np.stack([pullback(column.expand_as(z).clone())[0].numpy() for column in columns], axis=1)

    def hessian(
        self, neurons: Neurons, R: Float[np.ndarray, "N q"], bases: list[Float[np.ndarray, "p _"]]
    ) -> Float[np.ndarray, "size size"]:
        """Hessian at balanced neurons of F + beta sum_j ||u_j|| ||v_j||, which is f where pairs stay balanced.

        One output: coordinates y_j with u_j + bases[j] y_j, v_j fixed; f is convex in them. Several: (y_1 .. y_J,
        v_1 .. v_J), the bases (orthonormal columns) orthogonal to u_j, so that v_j alone carries the size of a neuron.
        """
        J, q = neurons.V.shape
        owner = np.repeat(np.arange(J), [basis.shape[1] for basis in bases])
        basis = np.concatenate(bases, axis=1)
        T = (self.Phi @ basis) * neurons.masks.T[:, owner]  # N x r
        r = len(owner)
        size = r + (J * q if q > 1 else 0)
        jacobian = np.zeros((self.N, q, size))
        jacobian[:, :, :r] = T[:, None, :] * neurons.V.T[:, owner]
        curved = self.beta * np.eye(size)
        if q == 1:
            along = np.sum(basis * unit_rows(neurons.U)[owner].T, axis=0)
            curved -= self.beta * np.outer(along, along) * (owner[:, None] == owner)
        else:
            H = self.hidden(neurons, neurons.U)
            cross = T.T @ R  # d^2 f / dy dv beside the Gauss-Newton part
            for b in range(q):
                jacobian[:, b, r + b :: q] = H
                places = r + owner * q + b
                curved[np.arange(r), places] = curved[places, np.arange(r)] = cross[:, b]
            for j, v in enumerate(unit_rows(neurons.V)):
                part = slice(r + j * q, r + (j + 1) * q)
                curved[part, part] -= self.beta * np.outer(v, v)
        return curved + self._gauss_newton(jacobian.reshape(-1, size), self.predictions(neurons))

    def _gauss_newton(self, jacobian: Float[np.ndarray, "Nq size"], z: torch.Tensor) -> Float[np.ndarray, "size size"]:
        if not self.problem.architecture.second_layer_is_identity:
            if not hasattr(self, "_C"):
                self._C = self.operator.second_layer_matrix()
            jacobian = self._C @ jacobian
        curvature = self.loss_curvature(z)
        jacobian = jacobian.reshape(*curvature.shape[:2], -1)
        weighted = (curvature @ jacobian).reshape(-1, jacobian.shape[2])
        return jacobian.reshape(-1, jacobian.shape[2]).T @ weighted
