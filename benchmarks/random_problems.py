"""Small random training problems for `soundness.py`: every architecture, activation and loss, at every scale.

A problem follows from its number alone. It is kept as the lines of code that state it, and these lines are what runs,
so that a finding is printed as a program that anybody can run.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from exact_objective import Architecture, Loss, Weighted

Array = np.ndarray
Rng = np.random.Generator

SCALES = ("ordinary", "degenerate", "scaled", "mixed")
MOST_ROWS = 27  # rows of Phi
MOST_PATTERNS, MOST_DEGENERATE = 40, 130  # number of patterns up to which all are used, and that for degenerate rows


@dataclass
class Case:
    """One problem, and the code that states it for the package.

    X, Y: the data as a statement of the problem takes them, Y being n_out x c. lines: the code that makes `problem`, or
    `report` and `problem` from a torch module. network: (W1, W2, b) of that module.
    """

    number: int
    architecture: Architecture
    activation: str
    loss: Loss | Weighted
    scale: str
    X: Array
    Y: Array
    lines: list[str]
    output_bias: str | None = None
    network: tuple[Array, Array, Array | None] | None = None
    factor: float = 1.0  # of the module's weight decay, in units of the problem's
    decay: float = 0.0

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """Return the key by which the table is sorted."""
        bias = "" if self.output_bias is None else f" + {self.output_bias} bias"
        return self.architecture.kind, self.activation, self.loss.name + bias, self.scale


def code(value: Any) -> str:
    """Return code that makes the same array or number again."""
    if isinstance(value, np.ndarray):
        kind = ", dtype=bool" if value.dtype == bool else ""
        shape = "" if value.size else f".reshape({value.shape})"
        return f"np.array({value.tolist()!r}{kind}){shape}"
    if isinstance(value, tuple):
        return f"({', '.join(map(code, value))})"
    return repr(float(value)) if isinstance(value, np.floating) else repr(value)


def power(rng: Rng, low: float, high: float) -> float:
    """Return 10 to a uniform power."""
    return float(10.0 ** rng.uniform(low, high))


def draw(number: int) -> Case:
    """Return the problem of this number."""
    rng = np.random.default_rng(number)
    scale = str(rng.choice(SCALES, p=[0.4, 0.2, 0.2, 0.2]))
    as_module = rng.random() < 0.15
    architecture, shape = _architecture(rng)
    activation = str(rng.choice(["linear", "relu"] if as_module else ["linear", "gated_relu", "relu", "relu"]))
    X = _data(rng, shape, scale)
    if as_module:
        return _module(rng, number, architecture, activation, X, scale)
    loss, Y, given = _targets(rng, architecture, X, scale)
    named, beta, _ = _loss_and_beta(rng, loss, architecture, X, Y, scale, allow_fraction=True)
    arguments = {
        "architecture": class_of(architecture),
        "activation": repr(activation),
        "loss": class_of_loss(named),
        **beta,
    }
    arguments |= _patterns(rng, architecture, activation, X, scale)
    lines = [f"X = {code(X)}", f"Y = {code(given)}"]
    # Every other problem that needs no entries of X gets it as a sparse matrix.
    enumerates = arguments.get("patterns") == '"all"'
    if number % 2 and architecture.kind == "mlp" and activation != "relu" and not enumerates:
        lines.append("X = scipy.sparse.csr_array(X)")
    lines.append(f"problem = cnn.Problem(X, Y, {', '.join(f'{key}={text}' for key, text in arguments.items())})")
    return Case(number, architecture, activation, named, scale, X, Y, lines)


def with_weights(case: Case) -> Case:
    """Return the problem with sample weights and perhaps an output bias; modules do not change."""
    if case.network is not None or isinstance(case.loss, Weighted):
        return case
    rng = np.random.default_rng([case.number, 2])
    n = case.X.shape[0]
    way = rng.integers(0, 4)
    weights = rng.integers(0, 4, n).astype(float) if way < 2 else rng.lognormal(0, float(rng.choice([0.5, 3.0])), n)
    if way == 3:  # weights of classes, and some samples left out
        weights = np.where(case.Y.reshape(n, -1)[:, 0] > 0, *power_pair(rng))
        weights[rng.random(n) < 0.2] = 0.0
    if not weights.any():
        weights[int(rng.integers(n))] = 1.0
    if case.scale in ("scaled", "mixed") and rng.random() < 0.5:
        weights = weights * power(rng, -30, 30)
    bias = [None, None, "free", "penalised"][int(rng.integers(4))]
    if bias == "penalised" and "beta_fraction" in case.lines[-1]:
        bias = "free"
    line = f"{case.lines[-1].removesuffix(')')}, sample_weight={code(weights)}, output_bias={bias!r})"
    loss = Weighted(case.loss, np.repeat(weights, len(case.Y) // n))
    return replace(case, loss=loss, output_bias=bias, lines=[*case.lines[:-1], line])


def power_pair(rng: Rng) -> tuple[float, float]:
    """Return two weights of different size."""
    return power(rng, -2, 2), power(rng, -2, 2)


# -- architecture and data ----------------------------------------------------------------------------------------


def _architecture(rng: Rng) -> tuple[Architecture, tuple[int, ...]]:
    """Return an architecture and the shape of X."""
    kind = rng.choice(["mlp", "cnn", "attention"], p=[0.6, 0.22, 0.18])
    if kind == "mlp":
        return Architecture("mlp"), (int(rng.integers(1, 9)), int(rng.integers(1, 5)))
    if kind == "attention":
        shape = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(1, 3))
        return Architecture("attention", output=str(rng.choice(["tokens", "mean"]))), shape
    while True:
        channels, side, patch = int(rng.integers(1, 3)), int(rng.integers(2, 4)), int(rng.integers(1, 3))
        stride, padding, n = int(rng.integers(1, 3)), int(rng.integers(0, 2)), int(rng.integers(1, 4))
        bias = bool(rng.random() < 0.3)
        grid = (side + 2 * padding - patch) // stride + 1
        if n * grid**2 <= MOST_ROWS and channels * patch**2 + bias <= 5:
            break
    pool: Any = rng.choice(["global", "identity", "grid", "matrix"])
    if pool == "grid":
        pool = int(rng.integers(1, min(grid, 2) + 1))
    elif pool == "matrix":
        pool = tuple(map(tuple, rng.standard_normal((int(rng.integers(1, 3)), grid**2)).tolist()))
    elif pool == "identity" and grid > 2:
        pool = "global"
    pool = str(pool) if isinstance(pool, str) else pool
    return Architecture("cnn", patch, stride, padding, pool, bias), (n, channels, side, side)


def class_of(architecture: Architecture) -> str:
    """Return the code that makes the architecture."""
    if architecture.kind == "mlp":
        return '"mlp"'
    if architecture.kind == "attention":
        return f'cnn.Attention(output="{architecture.output}")'
    pool = code(np.array(architecture.pool)) if isinstance(architecture.pool, tuple) else repr(architecture.pool)
    return (
        f"cnn.CNN(patch={architecture.patch}, stride={architecture.stride}, padding={architecture.padding}, "
        f"pool={pool}, bias={architecture.bias})"
    )


def class_of_loss(loss: Loss) -> str:
    """Return the code that makes the loss."""
    return f"cnn.Huber(delta={loss.delta!r})" if loss.name == "huber" else repr(loss.name)


def _data(rng: Rng, shape: tuple[int, ...], scale: str) -> Array:
    X = rng.standard_normal(shape)
    if rng.random() < 0.1:
        X = rng.integers(-2, 3, shape).astype(float)
    if len(shape) == 2 and rng.random() < 0.08:  # orthogonal rows
        X = np.where(np.eye(*shape) > 0, X, 0.0)
    rows = X.reshape(-1, shape[-1])  # samples, tokens, or lines of an image
    if scale == "ordinary":
        return X * power(rng, -1, 1)
    if scale == "degenerate" or rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 4))):
            _degrade(rng, rows)
    if scale == "mixed":
        for _ in range(int(rng.integers(1, 3))):
            _spread(rng, rows)
    if scale in ("scaled", "mixed"):
        X = X * (power(rng, -150, 150) if rng.random() < 0.15 else power(rng, -39, 39) if rng.random() < 0.6 else 1.0)
    return X


def _degrade(rng: Rng, rows: Array) -> None:
    """Make rows equal, nearly equal, opposite, collinear or zero."""
    i, j = (int(k) for k in rng.integers(0, len(rows), 2))
    what = rng.integers(0, 7)
    if what == 0:
        rows[i] = rows[j]
    elif what in (1, 2):
        rows[i] = rows[j] * (1 + power(rng, -15, -8) * rng.standard_normal(rows.shape[1]))
    elif what == 3:
        rows[i] = -rows[j] * (1 + (power(rng, -15, -8) if rng.random() < 0.5 else 0.0))
    elif what == 4:
        rows[i] = rows[j] * float(rng.choice([2.0, -0.5, 4.0, 3.0, 1024.0]))
    elif what == 5:
        rows[i] = 0.0
    else:
        rows[:, int(rng.integers(rows.shape[1]))] = 0.0


def _spread(rng: Rng, rows: Array) -> None:
    """Give rows, columns or entries scales of their own, down to subnormal numbers."""
    what, low = rng.integers(0, 4), float(rng.choice([-8, -30, -100, -160]))
    if what == 0:
        rows *= 10.0 ** rng.uniform(low, 0, (len(rows), 1))
    elif what == 1:
        rows *= 10.0 ** rng.uniform(low, 0, (1, rows.shape[1]))
    elif what == 2:
        rows *= np.where(rng.random(rows.shape) < 0.4, 10.0 ** rng.uniform(low, 0, rows.shape), 1.0)
    else:
        rows[rng.random(rows.shape) < 0.3] *= float(rng.choice([1e-310, 5e-324, 1e-300]))


# -- targets, loss and weight decay -------------------------------------------------------------------------------


def _targets(rng: Rng, architecture: Architecture, X: Array, scale: str) -> tuple[str, Array, Array]:
    """Return (loss, Y as n_out x c, Y as the package is given it)."""
    tokens = architecture.kind == "attention" and architecture.output == "tokens"
    rows = len(X) * (X.shape[1] if tokens else 1)
    loss = str(rng.choice(Loss.NAMES, p=[0.4, 0.15, 0.15, 0.15, 0.15]))
    if loss == "cross_entropy":
        c = int(rng.integers(2, 4))
        labels = rng.integers(0, c, rows)
        Y = np.eye(c)[labels]
        if rng.random() < 0.2:  # soft rows whose sums are exact
            Y = Y / 2 + np.roll(Y, 1, axis=1) / 2
        elif len(np.unique(labels)) == c and rng.random() < 0.5 and not tokens:
            return loss, Y, labels
        return loss, Y, Y
    c = int(rng.integers(1, 4)) if rng.random() < 0.5 else 1
    if loss in ("logistic", "squared_hinge"):
        Y = rng.choice([-1.0, 1.0], (rows, c))
        return loss, Y, Y
    Y = rng.standard_normal((rows, c))
    if rng.random() < 0.05:
        Y[:] = 0.0
    elif rng.random() < 0.1:
        Y[rng.random(Y.shape) < 0.5] = 0.0
    if scale == "mixed" and rng.random() < 0.6:
        Y = Y * 10.0 ** rng.uniform(float(rng.choice([-10, -100])), 0, (rows, 1))
    if scale in ("scaled", "mixed"):
        Y = Y * (power(rng, -150, 150) if rng.random() < 0.15 else power(rng, -39, 39) if rng.random() < 0.6 else 1.0)
    return loss, Y, Y[:, 0] if c == 1 and rng.random() < 0.5 and not tokens else Y


def _loss_and_beta(
    rng: Rng, name: str, architecture: Architecture, X: Array, Y: Array, scale: str, allow_fraction: bool
) -> tuple[Loss, dict[str, str], float]:
    """Return the loss, the argument beta or beta_fraction in code, and a value for it."""
    size = float(np.abs(Y).max())
    delta = float(np.clip(power(rng, -2, 1) * (size or 1.0), 1e-300, 1e300)) if name == "huber" else 1.0
    loss = Loss(name, delta)
    fraction = power(rng, -8, 0.5) if rng.random() < 0.85 else float(rng.choice([1.0, 1 - 1e-12, 1 + 1e-12, 1e-12]))
    if allow_fraction and rng.random() < 0.35:
        return loss, {"beta_fraction": repr(fraction)}, fraction
    if scale in ("scaled", "mixed") and rng.random() < 0.1:
        value = power(rng, -150, 150) if rng.random() < 0.8 else power(rng, -320, -280)
        return loss, {"beta": repr(value)}, value
    # About the dual norm of one row, or of all rows, at the zero network: there the optimum begins to move.
    with np.errstate(all="ignore"):
        long_X = X.astype(np.longdouble)
        rows = architecture.rows(long_X, np.longdouble(1))
        lengths = np.sqrt((rows * rows).sum(axis=1))
        gradient = np.abs(loss.gradient(np.zeros(Y.shape, dtype=np.longdouble), Y.astype(np.longdouble)))
        slope = gradient.max(axis=1)
        pairs = lengths.reshape(len(X), -1).max(axis=1) * slope.reshape(len(X), -1).max(axis=1)
        if architecture.kind == "attention":
            pairs = pairs * np.abs(long_X).reshape(len(X), -1).max(axis=1)
        about = pairs[int(rng.integers(len(pairs)))] if rng.random() < 0.5 else pairs.sum()
        value = float(fraction * about)
    value = value if np.isfinite(value) and value > 0 else 1.0
    return loss, {"beta": repr(value)}, value


# -- patterns -----------------------------------------------------------------------------------------------------


def _patterns(rng: Rng, architecture: Architecture, activation: str, X: Array, scale: str) -> dict[str, str]:
    """Return the arguments patterns and seed in code."""
    if activation == "linear":
        return {}
    rows = architecture.rows(X, 1.0)
    N, p = rows.shape
    # Nearly equal rows are what an enumeration may stumble over, so that it gets more of them.
    most = MOST_DEGENERATE if scale == "degenerate" and rng.random() < 0.3 else MOST_PATTERNS
    few = 2 * sum(_choose(N - 1, k) for k in range(min(N, p))) <= most
    way = rng.random()
    if way < (0.65 if few else 0.05 if N <= 10 else 0.0):
        return {"patterns": '"all"'}
    if way < 0.8:
        return {"patterns": str(int(rng.integers(1, 7))), "seed": str(int(rng.integers(0, 100)))}
    size = (N, int(rng.integers(1, 5)))
    if activation == "gated_relu" and rng.random() < 0.5:  # any masks may be gates
        masks = rng.random(size) < 0.6
    else:
        with np.errstate(all="ignore"):
            masks = rows @ rng.standard_normal((p, size[1])) >= 0
    return {"patterns": code(masks)}


def _choose(n: int, k: int) -> int:
    out = 1
    for i in range(k):
        out = out * (n - i) // (i + 1)
    return out


# -- torch modules ------------------------------------------------------------------------------------------------


def _module(rng: Rng, number: int, architecture: Architecture, activation: str, X: Array, scale: str) -> Case:
    """Return a case in which `certify_module` is given a network with random weights."""
    first, last = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    if architecture.kind == "attention":
        first = last = False
    loss, Y, given = _targets(rng, architecture, X, scale)
    c = Y.shape[1]
    named, _, decay = _loss_and_beta(rng, loss, architecture, X, Y, scale, allow_fraction=False)
    M = int(rng.integers(1, 4))
    size = float(rng.choice([0.3, 1.0, 3.0]))
    if scale in ("scaled", "mixed") and rng.random() < 0.3:
        size *= power(rng, -30, 30)
    relu = "torch.nn.ReLU(), " if activation == "relu" else ""
    stated = X
    if architecture.kind == "mlp":
        layers = f"torch.nn.Linear({X.shape[1]}, {M}, bias={first}), {relu}torch.nn.Linear({M}, {c}, bias={last})"
        shapes = [(M, X.shape[1]), (c, M)]
        if first:
            stated = np.concatenate([X, np.ones((len(X), 1))], axis=1)
    elif architecture.kind == "cnn":
        pool = architecture.pool if isinstance(architecture.pool, int) else 1
        architecture = Architecture("cnn", architecture.patch, architecture.stride, architecture.padding, pool, first)
        settings = f"stride={architecture.stride}, padding={architecture.padding}, bias={first}"
        layers = (
            f"torch.nn.Conv2d({X.shape[1]}, {M}, {architecture.patch}, {settings}), {relu}"
            f"torch.nn.AdaptiveAvgPool2d({pool}), torch.nn.Flatten(), torch.nn.Linear({M * pool**2}, {c}, bias={last})"
        )
        shapes = [(M, X.shape[1], architecture.patch, architecture.patch), (c, M * pool**2)]
    else:
        shapes = [(M, X.shape[2], X.shape[2]), (M, X.shape[2], c)]
    weights = [size * rng.standard_normal(shape) for shape in shapes]
    biases = [size * rng.standard_normal(k) if used else None for k, used in ((M, first), (c, last))]
    if architecture.kind == "attention":
        made = f'cnn.AttentionBlock({X.shape[2]}, {c}, {M}, "{activation}", "{architecture.output}").double()'
        W1, W2 = weights[0].reshape(M, -1).T, weights[1].reshape(M, -1).T
    else:
        made = f"torch.nn.Sequential({layers}).double()"
        W1 = weights[0].reshape(M, -1).T
        W1 = W1 if biases[0] is None else np.concatenate([W1, biases[0][None]])
        a = weights[1].shape[1] // M
        W2 = weights[1].reshape(c, M, a).transpose(2, 0, 1).reshape(a * c, M)
    bias_kind = str(rng.choice(["penalised", "free"]))
    reduction = str(rng.choice(["sum", "mean"]))
    values = [array for pair in zip(weights, biases, strict=True) for array in pair if array is not None]
    lines = [
        f"X = {code(X)}",
        f"Y = {code(given)}",
        f"module = {made}",
        f"for parameter, value in zip(module.parameters(), [{', '.join(map(code, values))}]):",
        "    parameter.data = torch.as_tensor(value)",
        f"report = cnn.certify_module(module, X, Y, {class_of_loss(named)}, {decay!r}, "
        f'reduction="{reduction}", output_bias="{bias_kind}")',
        "problem = report.problem",
    ]
    factor = 1.0
    if reduction == "mean":
        factor = {"cross_entropy": float(len(Y)), "squared": Y.size / 2}.get(loss, float(Y.size))
    return Case(
        number, architecture, activation, named, scale, stated, Y, lines,
        bias_kind if last else None, (W1, W2, biases[1]), factor, decay,
    )  # fmt: skip
