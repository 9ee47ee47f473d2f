"""A small set of ReLU neurons, each confined to one cone, and the training objective over them.

Neuron j contributes the pair (u_j, v_j). On the cone K_j u_j >= 0 its activation pattern D_j is fixed, so that the
network is bilinear there and the objective is smooth (Sahiner et al., ICLR 2024, eq. 21, column by column):

    f(U, V) = F(C(M)) + beta/2 sum_j (||u_j||^2 + ||v_j||^2),    M = sum_j D_j Phi u_j v_j^T

With R = C^*(grad F) the gradients are Phi^T D_j R v_j + beta u_j and R^T D_j Phi u_j + beta v_j.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from convexnn_bench.cones import nearest_point, unit_rows
from convexnn_bench.problem import Problem

# u lies on a facet if its slack there is below this part of ||u||; far above rounding (1e-13 in `nearest_point`)
ON_FACET = 1e-10
# two vectors count as parallel if 1 - cosine is below this; the cosine itself has rounding errors near 1e-15
PARALLEL = 1e-12
CHUNK_ELEMENTS = 10_000_000  # entries of Jacobians of M at a time, 80 MB

Lefts = Float[np.ndarray, "J p"]
Rights = Float[np.ndarray, "J q"]
Residual = Float[np.ndarray, "N q"]


@dataclass
class ReluNeurons:
    """J neurons with the cones that confine them.

    U: J x p. V: J x q. masks: J x N, the patterns D_j. blocks: the index of each neuron's block, -1 if it has none.
    rows: J x F x p, the unit rows of the cones, padded with zero rows, whose constraint 0 >= 0 always holds.
    """

    U: Lefts
    V: Rights
    masks: Bool[np.ndarray, "J N"]
    rows: Float[np.ndarray, "J F p"]
    blocks: Int[np.ndarray, " J"]

    def __len__(self) -> int:
        return len(self.U)

    def moved(self, U: Lefts, V: Rights) -> "ReluNeurons":
        """Return neurons in the same cones at another point."""
        return ReluNeurons(U, V, self.masks, self.rows, self.blocks)

    def take(self, kept: np.ndarray) -> "ReluNeurons":
        """Return some of the neurons, chosen by indices or by a mask."""
        return ReluNeurons(self.U[kept], self.V[kept], self.masks[kept], self.rows[kept], self.blocks[kept])

    def joined(self, other: "ReluNeurons") -> "ReluNeurons":
        """Return the neurons of both sets."""
        width = max(self.rows.shape[1], other.rows.shape[1])
        rows = [np.pad(part.rows, ((0, 0), (0, width - part.rows.shape[1]), (0, 0))) for part in (self, other)]
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("U", "V", "masks", "blocks"))
        U, V, masks, blocks = map(np.concatenate, pairs)
        return ReluNeurons(U, V, masks, np.concatenate(rows), blocks)

    @property
    def sizes(self) -> Float[np.ndarray, " J"]:
        """||u_j|| ||v_j||, the norm of each neuron's contribution u_j v_j^T."""
        return np.linalg.norm(self.U, axis=1) * np.linalg.norm(self.V, axis=1)

    def slack(self, U: Lefts) -> Float[np.ndarray, "J F"]:
        """Return K_j u_j for every neuron."""
        return (self.rows @ U[:, :, None])[:, :, 0]

    def project(self, U: Lefts) -> Lefts:
        """Return the nearest point of its cone to every u_j."""
        lengths = np.linalg.norm(U, axis=1)
        outside = self.slack(U).min(axis=1, initial=0.0) < -1e-15 * lengths
        if not outside.any():
            return U
        U = U.copy()
        for j in np.flatnonzero(outside):
            rows = self.rows[j]
            U[j] = nearest_point(rows[np.any(rows != 0, axis=1)], U[j])[0]
        return U

    def active(self) -> Bool[np.ndarray, "J F"]:
        """Return which facets every u_j lies on."""
        lengths = np.linalg.norm(self.U, axis=1)[:, None]
        # Padding has slack zero at every point and is no facet.
        real = np.any(self.rows != 0, axis=2)
        return real & (self.slack(self.U) <= ON_FACET * lengths)

    def balanced(self) -> "ReluNeurons":
        """Return the neurons with ||u_j|| = ||v_j||, without those that contribute nothing; f does not rise."""
        out = self.rescaled()
        return out.take(np.any(out.U != 0, axis=1))

    def rescaled(self) -> "ReluNeurons":
        """Return the neurons with ||u_j|| = ||v_j|| and the same products.

        Those of product zero become zero.
        """
        left, right = np.linalg.norm(self.U, axis=1), np.linalg.norm(self.V, axis=1)
        alive = (left > 0) & (right > 0)
        ratio = np.where(alive, np.sqrt(np.where(alive, right, 1.0) / np.where(alive, left, 1.0)), 0.0)[:, None]
        return self.moved(self.U * ratio, np.where(ratio > 0, self.V / np.where(ratio > 0, ratio, 1.0), 0.0))

    def merged(self) -> "ReluNeurons":
        """Return the neurons with mergeable pairs replaced by one neuron each; f does not rise.

        Two neurons merge if their u are parallel, or if their v are parallel and they share a cone: then
        u_1 v_1^T + u_2 v_2^T is one product again, of norm at most the sum of the two (triangle inequality).
        """
        out = self.balanced()
        while len(out) > 1:
            pair = out._mergeable()
            if pair is None:
                break
            out = out._merge(*pair)
        return out

    def _mergeable(self) -> tuple[int, int, bool] | None:
        """Return the first pair that can be merged, and whether its u are parallel."""
        left, right = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (self.U, self.V))
        pattern = np.unique(self.masks, axis=0, return_inverse=True)[1].reshape(-1)
        same_u = left @ left.T >= 1 - PARALLEL
        same_v = (right @ right.T >= 1 - PARALLEL) & (pattern[:, None] == pattern)
        pairs = np.argwhere(np.triu(same_u | same_v, 1))
        return (int(pairs[0][0]), int(pairs[0][1]), bool(same_u[tuple(pairs[0])])) if len(pairs) else None

    def _merge(self, i: int, j: int, same_u: bool) -> "ReluNeurons":
        U, V = self.U.copy(), self.V.copy()
        # a u' v_i^T + b u' v_j^T with ||u'|| = 1 is u' (a v_i + b v_j)^T, and likewise with a common v'.
        a, b = np.linalg.norm(U[i]), np.linalg.norm(U[j])  # also the norms of v_i and v_j: the pairs are balanced
        if same_u:
            U[i], V[i] = U[i] / a, a * V[i] + b * V[j]
        else:
            U[i], V[i] = a * U[i] + b * U[j], V[i] / a
        return self.moved(U, V).take(np.arange(len(self)) != j).balanced()


class NeuronObjective:
    """The objective f with its gradient and its Hessian on faces of the cones, in float64 on the CPU."""

    def __init__(self, problem: Problem):
        self.problem, self.beta = problem, problem.beta
        self.operator = problem.operator()
        self.Phi = problem.Phi
        self.damping = problem.beta  # of Newton steps, kept from one descent to the next

    def hidden(self, neurons: ReluNeurons) -> Float[np.ndarray, "N J"]:
        """Return D_j Phi u_j for every neuron."""
        return (self.Phi @ neurons.U.T) * neurons.masks.T

    def predictions(self, neurons: ReluNeurons) -> Float[torch.Tensor, "n_out c"]:
        """Return C(sum_j D_j Phi u_j v_j^T)."""
        return self.operator.second_layer(torch.as_tensor(self.hidden(neurons) @ neurons.V))

    def value(self, neurons: ReluNeurons) -> float:
        loss = self.problem.loss.value(self.predictions(neurons), self.operator.Y)
        return float(loss) + 0.5 * self.beta * float(np.sum(neurons.U**2) + np.sum(neurons.V**2))

    def residual(self, neurons: ReluNeurons) -> Residual:
        """Return R = C^*(grad F)."""
        gradient = self.problem.loss.gradient(self.predictions(neurons), self.operator.Y)
        return self.operator.second_layer_adjoint(gradient).numpy()

    def gradient(self, neurons: ReluNeurons, R: Residual) -> tuple[Lefts, Rights]:
        """Return the gradients with respect to U and V."""
        pulled = ((R @ neurons.V.T) * neurons.masks.T).T @ self.Phi
        return pulled + self.beta * neurons.U, self.hidden(neurons).T @ R + self.beta * neurons.V

    def loss_curvature(self, z: Float[torch.Tensor, "n_out c"]) -> Float[np.ndarray, "n_out c c"]:
        """Return F'' for every row of the predictions; at a kink of grad F the derivative of one side."""
        pullback = torch.func.vjp(lambda at: self.problem.loss.gradient(at, self.operator.Y), z)[1]
        columns = torch.eye(z.shape[1], dtype=z.dtype)
        return np.stack([pullback(column.expand_as(z).clone())[0].numpy() for column in columns], axis=1)

    def hessian(
        self, neurons: ReluNeurons, R: Residual, bases: list[Float[np.ndarray, "p _"]]
    ) -> Float[np.ndarray, "size size"]:
        """Return the Hessian of F + beta sum_j ||u_j|| ||v_j||, which equals f on balanced neurons.

        One output: the coordinates are y_j with u_j + bases[j] y_j, and v_j is fixed; f is convex in them. Several
        outputs: (y_1 .. y_J, v_1 .. v_J), with orthonormal bases orthogonal to u_j, so that v_j alone carries the size.
        """
        J, q = neurons.V.shape
        owner = np.repeat(np.arange(J), [basis.shape[1] for basis in bases])
        basis = np.concatenate(bases, axis=1)
        T = (self.Phi @ basis) * neurons.masks.T[:, owner]  # N x r, the derivatives of D_j Phi u_j
        r = len(owner)
        curved = self.beta * np.eye(r + (J * q if q > 1 else 0))
        if q == 1:
            # ||u_j|| |v_j| is flat along u_j: beta (I - u u^T / ||u||^2) within each neuron
            along = np.sum(basis * unit_rows(neurons.U)[owner].T, axis=0)
            curved -= self.beta * np.outer(along, along) * (owner[:, None] == owner)
        else:
            cross = T.T @ R  # d^2 f / dy dv beside the Gauss-Newton part
            for b in range(q):
                index = r + owner * q + b
                curved[np.arange(r), index] = curved[index, np.arange(r)] = cross[:, b]
            for j, v in enumerate(unit_rows(neurons.V)):
                part = slice(r + j * q, r + (j + 1) * q)
                curved[part, part] -= self.beta * np.outer(v, v)
        return curved + self._gauss_newton(self._jacobian(neurons, T, owner), self.predictions(neurons))

    def _jacobian(
        self, neurons: ReluNeurons, T: Float[np.ndarray, "N r"], owner: Int[np.ndarray, " r"]
    ) -> Float[np.ndarray, "n_out c size"]:
        """Return the derivatives of the predictions in the coordinates of `hessian`.

        Column r of T alone gives C(T_r v_j^T), j = owner[r], and v_j the columns C(D_j Phi u_j e_b^T) for q > 1.
        """
        J, q = neurons.V.shape
        n_out, c = self.operator.Y.shape
        left, right = T, neurons.V[owner]
        if q > 1:
            left = np.concatenate([T, np.repeat(self.hidden(neurons), q, axis=1)], axis=1)
            right = np.concatenate([right, np.tile(np.eye(q), (J, 1))])
        if self.operator.pools:  # pooling acts on the rows alone: n_out a instead of N q numbers for each column
            pooled = self.problem.architecture.pool_rows(torch.as_tensor(left), self.operator.X).numpy()
            return np.einsum("iar,rac->icr", pooled, right.reshape(len(right), -1, c), optimize=True)
        if self.problem.architecture.second_layer_is_identity:
            return left[:, None, :] * right.T
        # some columns at a time, so that the N x q matrices of all of them need not fit memory
        step = max(1, CHUNK_ELEMENTS // (len(left) * q))
        parts = []
        for start in range(0, len(right), step):
            part = slice(start, start + step)
            M = left[:, None, part] * right[part].T
            parts.append((self._second_layer @ M.reshape(len(left) * q, -1)).reshape(n_out, c, -1))
        return np.concatenate(parts, axis=2)

    @cached_property
    def _second_layer(self) -> np.ndarray:
        return self.operator.second_layer_matrix()

    def _gauss_newton(
        self, jacobian: Float[np.ndarray, "n_out c size"], z: Float[torch.Tensor, "n_out c"]
    ) -> Float[np.ndarray, "size size"]:
        """Return J^T F'' J.

        With an output bias, F'' is a matrix for each row minus B B^T.
        """
        weighted = (self.loss_curvature(z) @ jacobian).reshape(-1, jacobian.shape[2])
        flat = jacobian.reshape(-1, jacobian.shape[2])
        coupling = self.problem.loss.coupling(z, self.operator.Y)
        if coupling is None:
            return flat.T @ weighted
        shared = flat.T @ coupling.reshape(len(flat), -1).numpy()
        return flat.T @ weighted - shared @ shared.T
