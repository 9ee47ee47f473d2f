"""Time one application of the operator against the same network in plain torch, and print a table.

    OMP_NUM_THREADS=1 python benchmarks/operator_cost.py [--repetitions 30] [--only WORD] [--scale 1.0]

forward: `operator.apply_factors(U, V)` against the forward pass of the network that holds the same neurons, written
with torch.nn.Linear, Conv2d and pooling, for attention with Linear layers and batched products, without any gradient.
gradient: `hidden`, `combine` and `factor_gradients` against forward and backward of the same torch network for the
same output gradient. pullback: the same by `factored`, which evaluates once.

Both sides are first checked to give the same numbers. Gated ReLU multiplies by 0/1 masks: N x P for the operator,
whose blocks share them, one for each neuron in torch. Times are medians of interleaved repetitions in float64 on one
thread, in milliseconds of wall clock.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

import convexnn_bench as cnn
from convexnn_bench.architectures import CNN, MLP, Attention, BaseArchitecture

BLOCKS, COLUMNS = 10, 5  # gates, and neurons a gate
Network = tuple[torch.nn.Module, torch.Tensor]  # and its input


class Gate(torch.nn.Module):
    """h -> mask * h, or h itself."""

    def __init__(self, mask: torch.Tensor | None):
        super().__init__()
        self.mask = mask

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h if self.mask is None else h * self.mask


class Heads(torch.nn.Module):
    """Heads mask * (X_i U_j X_i^T) X_i V_j, summed over j: two Linear layers for all heads, two batched products."""

    def __init__(self, U: torch.Tensor, V: torch.Tensor, gate: Gate, output: str):
        super().__init__()
        M, d, self.c = V.shape
        self.queries = torch.nn.Linear(d, M * d, bias=False, dtype=U.dtype)  # U is M x d x d, V is M x d x c
        self.values = torch.nn.Linear(d, M * self.c, bias=False, dtype=U.dtype)
        self.queries.weight.data = U.transpose(1, 2).reshape(M * d, d).contiguous()
        self.values.weight.data = V.transpose(1, 2).reshape(M * self.c, d).contiguous()
        self.gate, self.output = gate, output

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        n, s, d = X.shape
        queries = self.queries(X).view(n, -1, d)
        scores = self.gate(torch.bmm(queries, X.transpose(1, 2)).view(n, s, -1, s))  # (i, s, j, t)
        if self.output == "mean":
            scores = scores.mean(dim=1, keepdim=True)
        values = self.values(X).view(n, s, -1, self.c).transpose(1, 2).reshape(n, -1, self.c)  # (i, (j, t), c')
        return torch.bmm(scores.view(n, scores.shape[1], -1), values).view(-1, self.c)


def plain_mlp(problem: "cnn.Problem", W1: torch.Tensor, W2: torch.Tensor, masks: torch.Tensor | None) -> Network:
    first = torch.nn.Linear(problem.p, W1.shape[1], bias=False, dtype=torch.float64)
    last = torch.nn.Linear(W1.shape[1], problem.c, bias=False, dtype=torch.float64)
    first.weight.data, last.weight.data = W1.T.contiguous(), W2.contiguous()
    return torch.nn.Sequential(first, Gate(masks), last), torch.as_tensor(problem.X)


def plain_cnn(problem: "cnn.Problem", W1: torch.Tensor, W2: torch.Tensor, masks: torch.Tensor | None) -> Network:
    """Conv2d, gate, pooling, Flatten and Linear."""
    shape, X, M = problem.architecture, torch.as_tensor(problem.X), W1.shape[1]
    assert isinstance(shape, CNN)
    convolution = torch.nn.Conv2d(
        X.shape[1], M, shape.patch, shape.stride, shape.padding, bias=shape.bias, dtype=torch.float64
    )
    pixels = X.shape[1] * shape.patch**2
    convolution.weight.data = W1[:pixels].T.reshape(convolution.weight.shape).contiguous()
    if convolution.bias is not None:
        convolution.bias.data = W1[-1].clone()
    height, width = convolution(X[:1]).shape[2:]
    if masks is not None:
        masks = masks.view(len(X), height, width, M).permute(0, 3, 1, 2).contiguous()
    pool: torch.nn.Module = torch.nn.Identity()
    if shape.pool != "identity":
        pool = torch.nn.AdaptiveAvgPool2d(1 if shape.pool == "global" else shape.pool)
    a = problem.q // problem.c
    last = torch.nn.Linear(a * M, problem.c, bias=False, dtype=torch.float64)
    last.weight.data = W2.view(a, problem.c, M).permute(1, 2, 0).reshape(problem.c, -1).contiguous()
    return torch.nn.Sequential(convolution, Gate(masks), pool, torch.nn.Flatten(), last), X


def plain_attention(problem: "cnn.Problem", W1: torch.Tensor, W2: torch.Tensor, masks: torch.Tensor | None) -> Network:
    assert isinstance(problem.architecture, Attention)
    n, s, d = problem.X.shape
    if masks is not None:
        masks = masks.view(n, s, s, -1).transpose(2, 3).contiguous()
    U = W1.T.reshape(-1, d, d).contiguous()
    V = W2.T.reshape(-1, d, problem.c).contiguous()
    return Heads(U, V, Gate(masks), problem.architecture.output), torch.as_tensor(problem.X)


PLAIN = {"mlp": plain_mlp, "cnn": plain_cnn, "attention": plain_attention}


def cases(scale: float) -> Iterator[tuple[str, BaseArchitecture, tuple[int, ...], int]]:
    """(label, architecture, shape of X, outputs)."""
    n = max(2, round(400 * scale))
    yield "MLP, 64 features", MLP(), (5 * n, 64), 10
    yield "CNN 8x8, patch 3, global", CNN(), (n, 1, 8, 8), 10
    yield "CNN 8x8, patch 3, pool 2, bias", CNN(pool=2, bias=True), (n, 1, 8, 8), 10
    yield "CNN 8x8, patch 3, identity", CNN(pool="identity"), (n, 1, 8, 8), 10
    yield "CNN 3x16x16, patch 5, stride 2, padding 2", CNN(5, 2, 2, pool=4), (n, 3, 16, 16), 10
    yield "attention 8x8, tokens", Attention(), (n, 8, 8), 1
    yield "attention 8x8, tokens, 10 outputs", Attention(), (n, 8, 8), 10
    yield "attention 16x16, tokens", Attention(), (n, 16, 16), 4
    yield "attention 8x8, mean", Attention("mean"), (n, 8, 8), 10


def pair(problem: "cnn.Problem", rng: np.random.Generator) -> dict[str, tuple[Callable, Callable]]:
    """{what: (operator's, torch's)} for random factors, after checking that both give the same numbers."""
    operator = problem.operator()
    P, m = problem.P, COLUMNS * (BLOCKS if problem.P == 1 else 1)
    U = torch.as_tensor(rng.standard_normal((P, problem.p, m)))
    V = torch.as_tensor(rng.standard_normal((P, problem.q, m)))
    L = torch.as_tensor(rng.standard_normal((problem.n_out, problem.c)))
    masks = None if problem.activation.name == "linear" else operator.masks.repeat_interleave(m, dim=1)
    W1, W2 = (factor.permute(1, 0, 2).reshape(factor.shape[1], -1) for factor in (U, V))
    network, X = PLAIN[problem.architecture.name](problem, W1, W2, masks)
    parameters = list(network.parameters())

    def forward() -> torch.Tensor:
        return operator.apply_factors(U, V)

    def gradient() -> tuple[torch.Tensor, ...]:
        H = operator.hidden(U)
        return (operator.combine(H, V), *operator.factor_gradients(H, L, V))

    def pullback() -> tuple[torch.Tensor, ...]:
        z, pulled = operator.factored(U, V)
        return (z, *pulled(L))

    def torch_forward() -> torch.Tensor:
        with torch.no_grad():
            return network(X)

    def torch_gradient() -> tuple[torch.Tensor, ...]:
        z = network(X)
        return (z.detach(), *torch.autograd.grad(z, parameters, L))

    torch.testing.assert_close(forward(), torch_forward(), rtol=1e-9, atol=1e-9)
    sizes = [
        sum(float(part.square().sum()) for part in parts[1:]) for parts in (gradient(), pullback(), torch_gradient())
    ]
    np.testing.assert_allclose(sizes[:2], sizes[2], rtol=1e-9)
    return {
        "forward": (forward, torch_forward),
        "gradient": (gradient, torch_gradient),
        "pullback": (pullback, torch_gradient),
    }


def medians(calls: tuple[Callable, Callable], repetitions: int) -> tuple[float, float]:
    """Milliseconds of both, in turns."""
    times = np.empty((repetitions, 2))
    for row in times:
        for column, call in enumerate(calls):
            start = time.perf_counter()
            call()
            row[column] = time.perf_counter() - start
    first, second = 1e3 * np.median(times[repetitions // 10 :], axis=0)
    return float(first), float(second)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--only", default="", help="cases whose label contains this word")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of samples")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    print(f"{'architecture':<42} {'activation':<11} {'what':<9} {'operator':>9} {'torch':>9} {'ratio':>6}")
    for label, architecture, shape, c in cases(options.scale):
        if options.only not in label:
            continue
        X = rng.standard_normal(shape)
        rows = shape[0] * (shape[1] if getattr(architecture, "output", "") == "tokens" else 1)
        for activation in ("linear", "gated_relu"):
            Y = rng.standard_normal((rows, c))
            problem = cnn.Problem(X, Y, architecture, activation, beta=1.0, patterns=BLOCKS)
            for what, calls in pair(problem, rng).items():
                ours, theirs = medians(calls, options.repetitions)
                print(
                    f"{label:<42} {activation:<11} {what:<9} {ours:9.3f} {theirs:9.3f} {ours / theirs:6.2f}", flush=True
                )


if __name__ == "__main__":
    main()
