"""The proximal map of the nuclear norm, block by block, and its generalised Jacobian.

With the singular values s_i of V and f(s) = (s - tau)_+, prox(V) = V g(V^T V), g(s^2) = f(s) / s. Its derivative in the
direction H is H g(V^T V) + V Dg(V^T V)[H^T V + V^T H], and Dg is that of Daleckii and Krein: in the eigenvectors B of
V^T V it multiplies entry (i, j) by the divided difference of g at s_i^2 and s_j^2 (Jiang, Sun & Toh, Math. Program.
Comput. 6, 2014, write the same with both singular bases). Where a singular value equals tau it is the limit from below,
an element of Clarke's Jacobian. For q = 1 it is (1 - tau/s) H + tau/s^3 V V^T H.
"""

from functools import cached_property

import torch
from jaxtyping import Float, Int

Blocks = Float[torch.Tensor, "P p q"]
Active = Float[torch.Tensor, "J p q"]


class Shrinkage:
    """prox of tau ||.||_* at V, on the blocks where it is not zero.

    active: their indices, ascending. Z: the proximal point on them, J x p x q. values: their singular values of V,
    ascending, J x min(p, q). shrunk: those of Z, (values - tau)_+.
    """

    def __init__(self, V: Blocks, tau: float):
        self.tau = tau
        self.wide = V.shape[2] > V.shape[1]
        norms = torch.linalg.vector_norm(V, dim=(1, 2))
        self.active = torch.nonzero(norms > tau)[:, 0]  # the largest singular value is at most the Frobenius norm
        upright = self._turn(V[self.active])
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
        self.ratio = self.shrunk / self.values.clamp_min(1e-300)
        self.Z = self._turn((self.rotated * self.ratio[:, None, :]) @ self.basis.transpose(1, 2))

    def _turn(self, blocks: torch.Tensor) -> torch.Tensor:
        """Blocks with at least as many rows as columns, and back."""
        return blocks.transpose(1, 2) if self.wide else blocks

    @property
    def rank(self) -> int:
        """The rank of the Jacobian: r (p + q - r) for a block of rank r."""
        ranks = (self.shrunk > 0).sum(dim=1)
        return int((ranks * (self.rotated.shape[1] + self.rotated.shape[2] - ranks)).sum())

    def anchor(self, tau: float) -> Active:
        """The matrices of least norm on the active blocks whose prox with `tau` is Z: Z + tau times its polar part."""
        lengths = torch.where(self.shrunk > 0, self.shrunk + tau, torch.zeros_like(self.shrunk))
        stretched = self.rotated * (lengths / self.values.clamp_min(1e-300))[:, None, :]
        return self._turn(stretched @ self.basis.transpose(1, 2))

    def _divided_differences(self) -> Float[torch.Tensor, "J m m"]:
        """(g(s_i^2) - g(s_j^2)) / (s_i^2 - s_j^2), without its cancellation."""
        s, on = self.values, self.shrunk > 0
        row, column = s[:, :, None], s[:, None, :]
        both = self.tau / (row * column * (row + column)).clamp_min(1e-300)
        high = torch.maximum(row, column)
        apart = (row - column).abs() * (row + column)
        one = (1 - self.tau / high.clamp_min(1e-300)) / apart.clamp_min(1e-300)
        zero = torch.zeros_like(both)
        of_one = torch.where(on[:, :, None] ^ on[:, None, :], one, zero)
        return torch.where(on[:, :, None] & on[:, None, :], both, of_one)

    @cached_property
    def _differences(self) -> Float[torch.Tensor, "J m m"]:
        return self._divided_differences()

    def jacobian(self, H: Active) -> Active:
        """The generalised Jacobian at V times H; symmetric, with eigenvalues in [0, 1]."""
        inside = self._turn(H) @ self.basis
        half = self.rotated.transpose(1, 2) @ inside
        mixed = self._differences * (half + half.transpose(1, 2))
        product = inside * self.ratio[:, None, :] + self.rotated @ mixed
        return self._turn(product @ self.basis.transpose(1, 2))

    # -- the same through factors: where Z has low rank the Jacobian needs little of H, and has low rank itself --------

    @cached_property
    def directions(self) -> tuple[Int[torch.Tensor, " R"], Int[torch.Tensor, " R"]]:
        """(owner, place) of every singular value above tau: its active block and its place there."""
        owner, place = torch.nonzero(self.shrunk > 0, as_tuple=True)
        return owner, place

    def factors(self) -> tuple[Float[torch.Tensor, "R p 1"], Float[torch.Tensor, "R q 1"]]:
        """(U, V): the singular vectors of every direction, one of the two times the singular value."""
        owner, place = self.directions
        pair = self.rotated[owner, :, place][:, :, None], self.basis[owner, :, place][:, :, None]
        return (pair[1], pair[0]) if self.wide else pair

    def through(
        self, HV: Float[torch.Tensor, "R p 1"], HU: Float[torch.Tensor, "R q 1"]
    ) -> tuple[Float[torch.Tensor, "R p 1"], Float[torch.Tensor, "R q 1"]]:
        """(S, T) with jacobian(H)_k = sum of U T^T + S V^T over the directions of block k, from H V and H^T U.

        U T^T holds the products of an active left vector with all right ones, S V^T those of the other left vectors.
        """
        owner, place = self.directions
        basis, rotated = self.basis[owner], self.rotated[owner]
        right, left = (HU, HV) if self.wide else (HV, HU)  # H v_i and H^T (s_i u_i) of the upright blocks
        half = basis.transpose(1, 2) @ left + rotated.transpose(1, 2) @ right
        mixed = self._differences[owner, :, place][:, :, None] * half
        other = (self.shrunk == 0).to(mixed.dtype)[owner, :, None] * mixed
        along, across = basis @ mixed, right * self.ratio[owner, place][:, None, None] + rotated @ other
        return (along, across) if self.wide else (across, along)

    def eigenmatrices(self) -> tuple[Float[torch.Tensor, "r p q"], Int[torch.Tensor, " r"]]:
        """(E, owner): the Jacobian is H -> sum_e <E_e, H> E_e, with E_e in the active block owner_e.

        In the singular bases u_i, v_j its eigenvectors are (u_i v_j^T + u_j v_i^T) / sqrt 2, with eigenvalue
        (f(s_i) - f(s_j)) / (s_i - s_j); (u_i v_j^T - u_j v_i^T) / sqrt 2, with (f(s_i) + f(s_j)) / (s_i + s_j); and
        u_i v_j^T with u_i orthogonal to the range of V, with f(s_j) / s_j.
        """
        upright = self.rotated @ self.basis.transpose(1, 2)
        left, s, right = torch.linalg.svd(upright, full_matrices=True)
        m, f = s.shape[1], (s - self.tau).clamp_min(0)
        pairs = torch.triu(torch.ones(m, m, dtype=torch.bool, device=s.device), diagonal=1)
        gaps = (s[:, :, None] - s[:, None, :]).abs()
        on = f > 0
        slope = (f[:, :, None] - f[:, None, :]).abs() / gaps.clamp_min(1e-300)
        slope = torch.where(on[:, :, None] & on[:, None, :], torch.ones_like(slope), slope)
        sums = (f[:, :, None] + f[:, None, :]) / (s[:, :, None] + s[:, None, :]).clamp_min(1e-300)
        outside = (f / s.clamp_min(1e-300))[:, None, :].expand(-1, left.shape[1] - m, -1)

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
        return self._turn(torch.cat(parts)), torch.cat(owners)
