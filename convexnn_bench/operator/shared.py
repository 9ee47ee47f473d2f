"""A and its adjoint by several processes.

Each multiplies for its own samples, and all receive the whole result.

Predictions are gathered, n_out x c numbers. Adjoints and gradients are sums over samples, which are added over the
processes: P p q numbers for an adjoint, P (p + q) m for a gradient. Every process computes for all samples what is not
overridden here: `hidden`, the layers, and the bound on the adjoint's rounding, which holds for sums in any order.
"""

import torch

from convexnn_bench import parallel
from convexnn_bench.errors import InputError
from convexnn_bench.operator.layers import Blocks, Index, Left, Predictions, Pullback, Right
from convexnn_bench.operator.lifted import Operator


class SharedOperator(Operator):
    """An operator whose products the processes of torchrun share.

    All must form the same products in the same order.

    Parameters
    ----------
    whole : Operator
        The operator on all samples, whose tensors this one holds.

    Raises
    ------
    InputError
        If there are fewer samples than processes.
    """

    def __init__(self, whole: Operator):
        n, ranks = len(whole.X), parallel.size()
        if n < ranks:
            raise InputError(f"n = {n}, fewer samples than the {ranks} processes that share them: start at most {n}")
        samples, rank = parallel.rank_slices(n), parallel.rank()
        self.whole = whole
        # Every sample has N / n rows of Phi and n_out / n rows of outputs, consecutive, so that a slice of samples is a
        # slice of both.
        self._rows = [slice(part.start * whole.N // n, part.stop * whole.N // n) for part in samples]
        self._outputs = [slice(part.start * whole.n_out // n, part.stop * whole.n_out // n) for part in samples]
        self._own_outputs = self._outputs[rank]
        self.own = whole.restricted(samples[rank], self._rows[rank], self._own_outputs)
        self.__dict__.update(vars(whole))  # X, Y, masks, Phi: one copy

    def _gathered(self, z: Predictions) -> Predictions:
        return parallel.gather_rows(z, [rows.stop - rows.start for rows in self._outputs])

    def apply(self, Z: Blocks) -> Predictions:
        return self._gathered(self.own.apply(Z))

    def adjoint(self, L: Predictions) -> Blocks:
        # Phi^T D_k C^*(L) is a sum over samples: each process forms the terms of its own, and the sums are added.
        G = self.own.adjoint(L[self._own_outputs]).contiguous()
        parallel.sum_over_ranks(G)
        return G

    def apply_factors(self, U: Left, V: Right) -> Predictions:
        return self._gathered(self.own.apply_factors(U, V))

    def factored(self, U: Left, V: Right) -> tuple[Predictions, Pullback]:
        z, own_pullback = self.own.factored(U, V)

        def pullback(L: Predictions) -> tuple[Left, Right]:
            left, right = own_pullback(L[self._own_outputs])
            return self.summed(left, right)

        return self._gathered(z), pullback

    def sample_parts(self, columns: int) -> list[slice]:
        """Cut the rows of this process into parts; sums over them are completed by `summed`."""
        rows = self._rows[parallel.rank()]
        step = self.own.part_size(columns)
        return [slice(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)]

    def summed(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add both over the processes, in one message."""
        both = torch.cat([left.reshape(-1), right.reshape(-1)])
        parallel.sum_over_ranks(both)
        return both[: left.numel()].view(left.shape), both[left.numel() :].view(right.shape)

    def on_blocks(self, blocks: torch.Tensor) -> "SharedOperator":
        part = SharedOperator(self.whole.on_blocks(blocks))
        part.own = self.own.on_blocks(blocks)  # shares its pooled rows, which would be formed anew otherwise
        return part

    def tensors(self) -> dict[str, torch.Tensor]:
        return {**super().tensors(), **{f"own {name}": tensor for name, tensor in self.own.tensors().items()}}

    def restricted(self, samples: Index, rows: Index, outputs: Index) -> Operator:
        """Return an operator that is not shared: every process forms all of its products."""
        return self.whole.restricted(samples, rows, outputs)
