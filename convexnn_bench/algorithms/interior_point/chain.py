"""The normal matrix where Phi is in the plane: masks are a chain, and M is solved in a time linear in n + P.

A gate at the angle theta makes row j active if x_j is within 90 degrees. While theta runs over [0, 180) every row
changes once, at its own event: rows of half h = 0 become active, those of h = 1 inactive. With the rows in the order of
their events, the mask of a gate after t events is, up to complement,

    forward: rows of half 0 before t, and of half 1 from t on;    backward: the complement.

So a pair of rows j < l meets in the forward masks after both events (both of half 0), before both (both of half 1), or
between them (half 0 and then 1), and in the backward masks of the other halves. With the sums F_t, B_t of the weights
of masks at position t, and E_j = x_j (x) R_j (p q x c), the block (j, l) of R^T A W A^* R is E_j^T M(j, l) E_l,

    M(j, l) = sum over t <= j of {B_t, F_t} + sum over t > l of {F_t, B_t}      (both of half 0, both of half 1)
    M(j, l) = sum over j < t <= l of {F_t, B_t}                                 (halves 0, 1; halves 1, 0)

which is a matrix of the kind U_j Phi .. Phi V_l: a state of four p x q matrices goes along the chain. Rows in chunks
are eliminated by a Cholesky factorisation (Chandrasekaran et al., Some fast algorithms for sequentially semiseparable
representations, SIAM J. Matrix Anal. 27, 2005). The parts of a state differ by the size of the weights, so that S_J has
the rounding of larger numbers than its own. This ends the method at certified gaps of 1e-10 to 3e-8.

    S_J = M_JJ - V_J^T Y_J V_J,   U~_J = U_J - V_J^T Y_J Phi_J,   Y_J+1 = Phi_J^T Y_J Phi_J + U~_J^T S_J^-1 U~_J.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from convexnn_bench.algorithms.interior_point.cholesky import shifted_cholesky
from convexnn_bench.algorithms.interior_point.cones import Squares, Weights
from convexnn_bench.algorithms.interior_point.rows import Roots
from convexnn_bench.operator import Blocks, Predictions

CHUNK = 96  # rows of the matrices that are eliminated at once, chosen by trials


@dataclass(frozen=True)
class Chain:
    """The order of the rows, their halves, and the place of every mask.

    Attributes
    ----------
    order : int array n
        Rows in the order of their events.
    half : bool array n
        In that order, whether a row is of half 1.
    position : int array P
        Number of events before the mask.
    backward : bool array P
    """

    order: Int[np.ndarray, " n"]
    half: Bool[np.ndarray, " n"]
    position: Int[np.ndarray, " P"]
    backward: Bool[np.ndarray, " P"]


def find_chain(Phi: Float[np.ndarray, "n 2"], masks: Bool[np.ndarray, "n P"]) -> Chain | None:
    """Return the chain, or None unless every mask is one of the two kinds above, as every gate's is."""
    # 1. Sort the events. Rows of zeros have none, and contribute nothing wherever they stand.
    angle = np.arctan2(Phi[:, 1], Phi[:, 0]) - 0.5 * np.pi  # in (-3/2 pi, pi/2], where the row becomes active
    half = (angle < 0) & (angle >= -np.pi)
    event = np.mod(angle, np.pi)
    zero = ~Phi.any(axis=1)
    order = np.argsort(np.where(zero, np.inf, event), kind="stable")
    half, kept = half[order], len(order) - int(zero.sum())
    # 2. Read the position of every mask: its rows of half 0 and the complement of those of half 1 are a prefix.
    prefix = masks[order[:kept]] ^ half[:kept, None]
    backward = ~prefix[0] if kept else np.zeros(masks.shape[1], dtype=bool)
    prefix ^= backward
    position = prefix.sum(axis=0)
    # 3. Check all of it, since masks of the user may be any.
    if (prefix != (np.arange(kept)[:, None] < position)).any():
        return None
    return Chain(order, half, position, backward)


class ChainFactor:
    """The factorisation of I + R^T A W A^* R."""

    def __init__(self, system: "ChainSystem", weights: Weights, root: Roots | None):
        self.system = system
        U, self.V, transition, diagonal = system.generators(weights, root)
        state = U.new_zeros(U.shape[2], U.shape[2])
        factors, gains = [], []
        for J in range(len(U)):
            V, Phi = self.V[J], transition[J]
            seen = V.T @ state
            factor = shifted_cholesky(diagonal[J] - seen @ V)
            half = torch.linalg.solve_triangular(factor, U[J] - seen @ Phi, upper=False)
            state = Phi.T @ state @ Phi + half.T @ half
            state = 0.5 * (state + state.T)
            factors.append(factor)
            gains.append(torch.linalg.solve_triangular(factor.T, half, upper=True))
        self.factors, self.gains = torch.stack(factors), torch.stack(gains)  # L_J, and S_J^-1 U~_J
        self.passed = transition - self.V @ self.gains  # what a state becomes over a chunk that was eliminated

    def solve(self, b: Predictions) -> Predictions:
        """Return (I + R^T A W A^* R)^-1 b."""
        system = self.system
        right = system.into_chunks(b)
        # 1. Forward: subtract what the rows before contribute. Only the states depend on each other.
        entering = self._states(self.gains.transpose(1, 2) @ right, self.passed.transpose(1, 2))
        solved = torch.cholesky_solve(right - self.V.transpose(1, 2) @ entering, self.factors)
        # 2. Backward: subtract what the rows behind contribute.
        leaving = self._states((self.V @ solved).flip(0), self.passed.flip(0)).flip(0)
        return system.from_chunks(solved - self.gains @ leaving)

    def _states(self, added: torch.Tensor, passed: torch.Tensor) -> torch.Tensor:
        """Return the states s_J with s_0 = 0, s_J+1 = passed_J s_J + added_J."""
        states = [torch.zeros_like(added[0])]
        for matrix, more in zip(passed[:-1].unbind(), added[:-1].unbind(), strict=True):
            states.append(torch.addmm(more, matrix, states[-1]))
        return torch.stack(states)


class ChainSystem:
    """A and A^* by cumulative sums along the chain, and the factorisation of the normal matrix."""

    def __init__(self, chain: Chain, Phi: torch.Tensor, c: int):
        self.c, self.n, self.p = c, len(Phi), Phi.shape[1]
        self.rows = max(1, CHUNK // c)  # of a chunk
        self.chunks = -(-self.n // self.rows)
        length = self.rows * self.chunks
        device = Phi.device
        self.order = torch.as_tensor(chain.order, device=device)
        self.X = Phi.new_zeros(length, self.p)  # rows of zeros fill the last chunk
        self.X[: self.n] = Phi[self.order]
        self.half = torch.zeros(length, dtype=torch.bool, device=device)
        self.half[: self.n] = torch.as_tensor(chain.half, device=device)
        # forward masks at the positions 0 .. length, then backward masks
        position = torch.as_tensor(chain.position + (length + 1) * chain.backward, device=device)
        self.position, self.positions = position, 2 * (length + 1)

    # -- A and its adjoint ------------------------------------------------------------------------------

    def _placed(self, blocks: torch.Tensor) -> torch.Tensor:
        """Return the sums of the blocks at each position, 2 x (length + 1) x ...: forward, backward."""
        total = blocks.new_zeros(self.positions, *blocks.shape[1:])
        return total.index_add_(0, self.position, blocks).unflatten(0, (2, -1))

    def apply(self, Z: Blocks) -> Predictions:
        """Return A(Z)."""
        before = self._placed(Z).cumsum(dim=1)
        total = before[:, -1:]
        # Row j of half 0 is active in the forward masks at t > j and the backward ones at t <= j.
        up = (total[0] - before[0, :-1]) + before[1, :-1]
        down = before[0, :-1] + (total[1] - before[1, :-1])
        seen = torch.where(self.half[:, None, None], down, up)
        return self._unsorted((self.X[:, None, :] @ seen)[: self.n, 0])

    def adjoint(self, L: Predictions) -> Blocks:
        """Return A_k^*(L) of every block."""
        outer = self.X[: self.n, :, None] * L[self.order][:, None, :]
        signed = torch.where(self.half[: self.n, None, None], -outer, outer)
        # The first forward mask has all rows of half 1, and every event adds or removes one row.
        forward = outer.new_zeros(self.positions // 2, *outer.shape[1:])
        forward[1 : self.n + 1] = signed.cumsum(dim=0)
        forward[self.n + 1 :] = forward[self.n]
        forward += (outer - signed).sum(dim=0) / 2
        return torch.cat([forward, outer.sum(dim=0) - forward])[self.position]

    def _unsorted(self, values: torch.Tensor) -> torch.Tensor:
        """Return values of the rows in the order of the events in their own order."""
        return torch.empty_like(values).index_copy_(0, self.order, values)

    def into_chunks(self, b: Predictions) -> Float[torch.Tensor, "J k 1"]:
        """Return predictions in the order of the events, cut into chunks."""
        padded = b.new_zeros(len(self.X), self.c)
        padded[: self.n] = b[self.order]
        return padded.view(self.chunks, -1, 1)

    def from_chunks(self, x: Float[torch.Tensor, "J k 1"]) -> Predictions:
        """Invert `into_chunks`."""
        return self._unsorted(x.reshape(-1, self.c)[: self.n])

    # -- the normal matrix ------------------------------------------------------------------------------

    def factor(self, W: Squares, weights: Weights, root: Roots | None) -> ChainFactor:
        """Factorise I + R^T A W A^* R, from the matrices `weights` of W; root: R, n x c x c, None for the identity."""
        return ChainFactor(self, weights, root)

    def _columns(self, root: Roots | None) -> Float[torch.Tensor, "length c pq"]:
        """Return E_j^T = x_j^T (x) R_j^T."""
        R = torch.eye(self.c, dtype=self.X.dtype, device=self.X.device).expand(len(self.X), self.c, self.c)
        if root is not None:
            R = R.clone()
            R[: self.n] = root[self.order]
        return (self.X[:, None, :, None] * R.transpose(1, 2)[:, :, None, :]).flatten(2)

    def generators(
        self, weights: Weights, root: Roots | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return U (chunks x rows x 4 p q), V, the transitions Phi, and the diagonal blocks of I + R^T A W A^* R.

        The state has four parts. The first two meet rows of half 0 and of half 1 as they are. The last two meet a row
        of their own half through the sum behind it, and one of the other half through the sum between.
        """
        placed = self._placed(weights)
        size = weights.shape[1]
        E = self._columns(root)
        shape = (self.chunks, self.rows)
        # 1. Sums over t <= j and over t > j, for every row j.
        upto = placed[:, :-1].cumsum(dim=1)
        behind = placed[:, 1:].flip(1).cumsum(dim=1).flip(1)
        # 2. Sums within a chunk that begins at row s: over s < t <= j, and over j < t <= s + rows.
        local = placed[:, 1:].unflatten(1, shape)  # entry i is t = s + i + 1
        inside = torch.cat([torch.zeros_like(local[:, :, :1]), local.cumsum(dim=2)], dim=2)
        within, whole = inside[:, :, :-1].flatten(1, 2), inside[:, :, -1]
        rest = local.flip(2).cumsum(dim=2).flip(2).flatten(1, 2)
        # 3. What a row of half 0 or 1 has in each part of the state.
        is_one = self.half[:, None, None]

        def chosen(zero: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
            return E @ torch.where(is_one, one, zero)

        none = torch.zeros_like(E)
        before, after = chosen(upto[1], upto[0]), chosen(behind[0], behind[1])
        own, other = (torch.where(is_one, none, E), torch.where(is_one, E, none))

        def state(first: torch.Tensor, second: torch.Tensor, *last: torch.Tensor) -> torch.Tensor:
            # `first` belongs to the own half of a row, `second` to the other one
            parts = [torch.where(is_one, second, first), torch.where(is_one, first, second), *last]
            return torch.cat(parts, dim=2).view(self.chunks, self.rows * self.c, 4 * size)

        ends = state(before, chosen(rest[0], rest[1]), own, other)
        begins = state(before, -chosen(within[0], within[1]), own, other)
        seen = chosen(within[1], within[0])
        V = state(E, none, torch.where(is_one, seen, after), torch.where(is_one, after, seen)).transpose(1, 2)
        # 4. Diagonal blocks, whose upper triangle is that of U V with U at the begin of the chunk.
        upper = begins @ V
        diagonal = upper.triu() + upper.triu(1).transpose(1, 2)
        diagonal.diagonal(dim1=1, dim2=2).add_(1.0)
        # 5. Transitions over a chunk.
        Phi = torch.eye(4 * size, dtype=E.dtype, device=E.device).repeat(self.chunks, 1, 1)
        Phi[:, 2 * size : 3 * size, size : 2 * size] = whole[0]
        Phi[:, 3 * size :, :size] = whole[1]
        return ends, V, Phi, diagonal
