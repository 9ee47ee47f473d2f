"""The proximal map of the nuclear norm, block by block, and its generalised Jacobian.

With the singular values s_i of V and f(s) = (s - tau)_+, prox(V) = V g(V^T V), g(s^2) = f(s) / s. Its derivative in the
direction H is H g(V^T V) + V Dg(V^T V)[H^T V + V^T H]. In the eigenvectors B of V^T V, Dg multiplies entry (i, j) by
the divided difference of g at s_i^2 and s_j^2 (Daleckii and Krein; Jiang, Sun & Toh, Math. Program. Comput. 6, 2014,
write the same with both singular bases). Where a singular value equals tau, the limit from below is taken, an element
of Clarke's Jacobian. For q = 1 the derivative is (1 - tau/s) H + tau/s^3 V V^T H.
"""

from functools import cached_property

import torch
from jaxtyping import Float, Int

from convexnn_bench.operator import Blocks

Active = Float[torch.Tensor, "J p q"]

TINY = 1e-300  # keeps a division by zero finite where its result is not used


class Shrinkage:
    """prox of tau ||.||_* at V, on the active blocks, where it is not zero.

    On the J blocks with indices `active`, in ascending order, Z is the proximal point, J x p x q. `values` are the
    singular values of V, J x min(p, q), ascending, and `shrunk` those of Z, (values - tau)_+.
    """

    def __init__(self, V: Blocks, tau: float):
        self.tau = tau
        self.wide = V.shape[2] > V.shape[1]
        norms = torch.linalg.vector_norm(V, dim=(1, 2))
        self.active = torch.nonzero(norms > tau)[:, 0]  # the largest singular value is at most the Frobenius norm
        upright = self._upright(V[self.active])
        if upright.shape[2] == 1:
            self.values = norms[self.active][:, None]
            self.basis = torch.ones(len(self.active), 1, 1, dtype=V.dtype, device=V.device)
        else:
            squares, self.basis = torch.linalg.eigh(upright.transpose(1, 2) @ upright)
            self.values = squares.clamp_min(0).sqrt()
            kept = torch.nonzero(self.values[:, -1] > tau)[:, 0]
            if len(kept) < len(self.active):
                self.active, upright = self.active[kept], upright[kept]
                self.values, self.basis = self.values[kept], self.basis[kept]
        self.rotated = upright @ self.basis  # V B, whose columns are orthogonal
        self.shrunk = (self.values - tau).clamp_min(0)
        self.ratio = self.shrunk / self.values.clamp_min(TINY)
        self.Z = self._upright((self.rotated * self.ratio[:, None, :]) @ self.basis.transpose(1, 2))

    def _upright(self, blocks: torch.Tensor) -> torch.Tensor:
        """Transpose wide blocks, so that they have at least as many rows as columns.

        It is its own inverse.
        """
        return blocks.transpose(1, 2) if self.wide else blocks

    @property
    def rank(self) -> int:
        """The rank of the Jacobian: r (p + q - r) for a block of rank r."""
        ranks = (self.shrunk > 0).sum(dim=1)
        return int((ranks * (self.rotated.shape[1] + self.rotated.shape[2] - ranks)).sum())

    def preimage(self, tau: float) -> Active:
        """Return the matrices of least norm whose prox with `tau` is Z: Z plus tau times its polar factor."""
        lengths = torch.where(self.shrunk > 0, self.shrunk + tau, torch.zeros_like(self.shrunk))
        stretched = self.rotated * (lengths / self.values.clamp_min(TINY))[:, None, :]
        return self._upright(stretched @ self.basis.transpose(1, 2))

    @cached_property
    def _divided_differences(self) -> Float[torch.Tensor, "J m m"]:
        """(g(s_i^2) - g(s_j^2)) / (s_i^2 - s_j^2), written so that nothing cancels."""
        s, on = self.values, self.shrunk > 0
        row, column = s[:, :, None], s[:, None, :]
        # Both above tau: g(s^2) = 1 - tau / s, so that the quotient is tau / (s_i s_j (s_i + s_j)).
        both = self.tau / (row * column * (row + column)).clamp_min(TINY)
        # One above tau: g is zero at the other.
        high = torch.maximum(row, column)
        apart = (row - column).abs() * (row + column)
        one = (1 - self.tau / high.clamp_min(TINY)) / apart.clamp_min(TINY)
        of_one = torch.where(on[:, :, None] ^ on[:, None, :], one, torch.zeros_like(both))
        return torch.where(on[:, :, None] & on[:, None, :], both, of_one)

    def jacobian(self, H: Active) -> Active:
        """Return the generalised Jacobian at V times H.

        It is symmetric, with eigenvalues in [0, 1].
        """
        inside = self._upright(H) @ self.basis
        half = self.rotated.transpose(1, 2) @ inside
        mixed = self._divided_differences * (half + half.transpose(1, 2))
        product = inside * self.ratio[:, None, :] + self.rotated @ mixed
        return self._upright(product @ self.basis.transpose(1, 2))

    # -- the Jacobian through factors: where Z has low rank it needs little of H, and its image has low rank -----------

    @cached_property
    def directions(self) -> tuple[Int[torch.Tensor, " R"], Int[torch.Tensor, " R"]]:
        """For every singular value above tau the index of its active block, and its index within the block."""
        owner, index = torch.nonzero(self.shrunk > 0, as_tuple=True)
        return owner, index

    def factors(self) -> tuple[Float[torch.Tensor, "R p 1"], Float[torch.Tensor, "R q 1"]]:
        """Return (U, V), the singular vectors of every direction, one of the two times the singular value."""
        owner, index = self.directions
        pair = self.rotated[owner, :, index][:, :, None], self.basis[owner, :, index][:, :, None]
        return (pair[1], pair[0]) if self.wide else pair

    def jacobian_factors(
        self, HV: Float[torch.Tensor, "R p 1"], HU: Float[torch.Tensor, "R q 1"]
    ) -> tuple[Float[torch.Tensor, "R p 1"], Float[torch.Tensor, "R q 1"]]:
        """Return (S, T) with jacobian(H)_k = sum of U T^T + S V^T.

        The sum is over the directions of block k. The arguments are H V and H^T U.

        U T^T holds the products of an active left vector with all right ones, S V^T those of the other left vectors.
        """
        owner, index = self.directions
        basis, rotated = self.basis[owner], self.rotated[owner]
        right, left = (HU, HV) if self.wide else (HV, HU)  # H v_i and H^T (s_i u_i) of the upright blocks
        half = basis.transpose(1, 2) @ left + rotated.transpose(1, 2) @ right
        mixed = self._divided_differences[owner, :, index][:, :, None] * half
        other = (self.shrunk == 0).to(mixed.dtype)[owner, :, None] * mixed
        along, across = basis @ mixed, right * self.ratio[owner, index][:, None, None] + rotated @ other
        return (along, across) if self.wide else (across, along)

    def eigenmatrices(self) -> tuple[Float[torch.Tensor, "r p q"], Int[torch.Tensor, " r"]]:
        """Return (E, owner) such that the Jacobian is H -> sum_e <E_e, H> E_e.

        E_e lies in the active block owner_e.

        In the singular bases u_i, v_j the eigenvectors of the Jacobian and their eigenvalues are

            (u_i v_j^T + u_j v_i^T) / sqrt 2    (f(s_i) - f(s_j)) / (s_i - s_j)
            (u_i v_j^T - u_j v_i^T) / sqrt 2    (f(s_i) + f(s_j)) / (s_i + s_j)
            u_i v_i^T                           1 where s_i is above tau
            u_i v_j^T                           f(s_j) / s_j, with u_i orthogonal to the range of V.
        """
        upright = self.rotated @ self.basis.transpose(1, 2)
        left, s, right = torch.linalg.svd(upright, full_matrices=True)
        m, f = s.shape[1], (s - self.tau).clamp_min(0)
        pairs = torch.triu(torch.ones(m, m, dtype=torch.bool, device=s.device), diagonal=1)
        gaps = (s[:, :, None] - s[:, None, :]).abs()
        on = f > 0
        slope = (f[:, :, None] - f[:, None, :]).abs() / gaps.clamp_min(TINY)
        slope = torch.where(on[:, :, None] & on[:, None, :], torch.ones_like(slope), slope)
        sums = (f[:, :, None] + f[:, None, :]) / (s[:, :, None] + s[:, None, :]).clamp_min(TINY)
        outside = (f / s.clamp_min(TINY))[:, None, :].expand(-1, left.shape[1] - m, -1)

        def outer(k: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
            return left[k, :, i][:, :, None] * right[k, j][:, None, :]

        parts, owners = [], []
        for sign, weights in ((1.0, slope), (-1.0, sums)):
            k, i, j = torch.nonzero((weights > 0) & pairs, as_tuple=True)
            scale = (0.5 * weights[k, i, j]).sqrt()[:, None, None]
            parts.append(scale * (outer(k, i, j) + sign * outer(k, j, i)))
            owners.append(k)
        k, i = torch.nonzero(on, as_tuple=True)
        parts.append(outer(k, i, i))
        owners.append(k)
        k, i, j = torch.nonzero(outside > 0, as_tuple=True)
        parts.append(outside[k, i, j].sqrt()[:, None, None] * outer(k, i + m, j))
        owners.append(k)
        return self._upright(torch.cat(parts)), torch.cat(owners)
