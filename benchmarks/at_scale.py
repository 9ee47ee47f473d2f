"""What a million ImageNet-sized images would take: memory, time, machines and messages, from constants measured here.

    python benchmarks/at_scale.py [--threads 2] [--memory 24] [--link GBIT] [--out DIR]

Two problems with n = 10^6 images of 3 x 224 x 224 pixels and c = 1000 outputs:

  rows     a gated MLP, every image a row of p = 150528 features, P = 1000 gates, m = 1
  patches  a stage of `convexnn_bench.layerwise`: 3 x 3 patches, p = 27, P = 256 gates, m = 1, global average pooling

Measured on this machine, medians of 3 on pieces that fit: operations a second of objective and gradient
(`Operator.factored` in float64; a training step of a stage in float32) and of a certificate (`Operator.adjoint` on a
twentieth of the features and a hundredth of the outputs; `certify_stage`; float64), and bytes a second of an all-reduce
between two gloo processes. All else is arithmetic, written out in `Case`.
memory: GiB of one machine. link: Gbit/s between machines, where it is another than what was measured between processes.
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from common import median_seconds, parser, print_machine
from torch import distributed, multiprocessing

from convexnn_bench.architectures import MLP
from convexnn_bench.layerwise import LayerwiseNetwork, Stage, StagePlan, StageTraining, Training, certify_stage
from convexnn_bench.operator import Operator
from convexnn_bench.plugins import LOSSES
from convexnn_bench.records import to_json, whole_file

GIB = 2**30
IMAGES, PIXELS, OUTPUTS = 10**6, 3 * 224 * 224, 1000
STEP = 128  # samples of a training step
MESSAGE = 2**24  # float32 numbers, 64 MiB


@dataclass(frozen=True)
class Case:
    """n samples of K rows of p features; P blocks of m columns; a pooled values; c outputs."""

    name: str
    K: int
    p: int
    P: int
    m: int
    a: int
    n: int = IMAGES
    c: int = OUTPUTS

    @property
    def q(self) -> int:
        return self.a * self.c

    @property
    def factors(self) -> int:
        """Numbers of U and V."""
        return self.P * (self.p + self.q) * self.m

    @property
    def blocks(self) -> int:
        """Numbers of Z, and of the adjoint."""
        return self.P * self.p * self.q

    def gradient(self) -> float:
        """Operations a sample of objective and gradient: Phi U and its transpose, H V^T and its two gradients; a stage
        makes its masks anew."""
        masks = 0.0 if self.K == 1 else 2.0 * self.K * self.p * self.P
        return masks + 4.0 * self.K * self.p * self.P * self.m + 6.0 * self.a * self.P * self.m * self.c

    def certificate(self) -> float:
        """Operations a sample of predictions and A^*(Lambda): hidden units and outputs, then rows times Lambda; of a
        stage the masks before, and pooled patches in the place of the rows."""
        before = 0.0 if self.K == 1 else 4.0 * self.K * self.p * self.P
        predictions = 2.0 * self.K * self.p * self.P * self.m + 2.0 * self.a * self.P * self.m * self.c
        return before + predictions + 2.0 * self.a * self.p * self.P * self.c


CASES = (Case("rows", 1, PIXELS, 1000, 1, 1), Case("patches", 224 * 224, 27, 256, 1, 1))


def rates() -> dict[str, dict[str, float]]:
    """Operations a second of gradient and certificate of both cases."""
    rows, patches = CASES
    n, generator = 256, torch.Generator().manual_seed(0)

    def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    def operator(P: int, c: int) -> Operator:
        masks = torch.rand(n, P, generator=generator) < 0.5
        return Operator(MLP(), drawn(n, rows.p).numpy(), drawn(n, c).numpy(), masks.numpy())

    full = operator(rows.P, rows.c)
    U, V, L = drawn(rows.P, rows.p, 1), drawn(rows.P, rows.q, 1), drawn(n, rows.c)
    seconds = median_seconds(lambda: full.factored(U, V)[1](L), repetitions=3, warm_up=1)
    found = {"rows": {"gradient": rows.gradient() * n / seconds}}
    del full, U, V
    fewer = rows.p // 20  # the adjoint of all blocks is a matrix of P x p c numbers
    masks = (torch.rand(n, rows.P, generator=generator) < 0.5).numpy()
    part = Operator(MLP(), drawn(n, fewer).numpy(), drawn(n, 10).numpy(), masks)
    L = drawn(n, 10)
    seconds = median_seconds(lambda: part.adjoint(L), repetitions=3, warm_up=1)
    found["rows"]["certificate"] = 2.0 * n * rows.P * fewer * 10 / seconds
    del part

    batch, side = 4, 224
    plan = StagePlan(gates=patches.P, m=patches.m, pool=1)
    stage = Stage(plan, 3, patches.c)
    stage.draw(generator)
    X = drawn(batch, 3, side, side, dtype=torch.float32)
    loss = LOSSES.make("cross_entropy")
    Y = torch.as_tensor(loss.prepare_targets(torch.eye(patches.c)[:batch].numpy()))
    how = Training(batch=batch, epochs=10)
    training = StageTraining(stage, LayerwiseNetwork(), X, Y, loss, 1.0, how, generator)
    seconds = median_seconds(training.run_epoch, repetitions=3, warm_up=1)
    found["patches"] = {"gradient": patches.gradient() * batch / seconds}
    images = lambda: iter([(slice(0, batch), X)])  # noqa: E731
    seconds = median_seconds(lambda: certify_stage(stage, images, Y, loss, 1.0), repetitions=3, warm_up=1)
    found["patches"]["certificate"] = patches.certificate() * batch / seconds
    return found


def _send(rank: int, meeting: str, told: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    message = torch.ones(MESSAGE)
    seconds = median_seconds(lambda: distributed.all_reduce(message), repetitions=5)
    if rank == 0:
        Path(told).write_text(str(4 * MESSAGE / seconds), encoding="utf-8")
    distributed.destroy_process_group()


def bandwidth() -> float:
    """Bytes a second of a message that two processes add up."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        multiprocessing.spawn(_send, args=(f"{folder}/meeting", str(told)), nprocs=2)
        return float(told.read_text(encoding="utf-8"))


def figures(case: Case, rate: dict[str, float], sent: float, memory: float) -> list[tuple[str, str]]:
    """(what, value in words) of one case. sent: bytes a second between machines; memory: GiB of one."""
    n, data = case.n, float(case.n * PIXELS)
    masks = n * case.K * case.P if case.K == 1 else 0  # a stage keeps its gates only
    fixed = 16.0 * case.factors + 4.0 * case.P * case.p  # weights, gradient and Adam's two moments, gates; float32
    room = memory * GIB - fixed
    machines = math.ceil((data + masks) / room) if room > 0 else math.inf
    gradient, certificate = (n * per / rate[what] for what, per in
                             (("gradient", case.gradient()), ("certificate", case.certificate())))  # fmt: skip
    hour = math.ceil(max(gradient / 3600, 1))
    by_samples, by_blocks, step = 4.0 * case.factors, 4.0 * n * case.c, 4.0 * STEP * case.c
    crossing = case.factors / case.c
    return [
        ("textbook matrix [D_1 Phi .. D_P Phi], float64", _bytes(8.0 * n * case.K * case.P * case.p)),
        ("images, one byte a pixel", _bytes(data)),
        ("masks, one byte each", _bytes(float(n * case.K * case.P)) + ("" if masks else " (not kept)")),
        ("blocks Z, float32", _bytes(4.0 * case.blocks)),
        ("factors U and V, float32", _bytes(4.0 * case.factors)),
        ("on every machine: factors, gradient, two moments, gates", _bytes(fixed)),
        ("the certificate's G, float64", _bytes(8.0 * case.blocks)),
        (f"machines of {memory:g} GiB that hold images and masks between them", f"{machines}"),
        ("operations of a gradient over all samples", f"{n * case.gradient():.1e}"),
        ("measured operations a second, gradient", f"{rate['gradient']:.1e}"),
        ("one machine, one pass over the samples with gradients", _time(gradient)),
        ("machines for a pass in an hour", f"{hour}"),
        ("operations of a certificate", f"{n * case.certificate():.1e}"),
        ("measured operations a second, certificate", f"{rate['certificate']:.1e}"),
        ("one machine, one certificate", _time(certificate)),
        ("samples sharded, a gradient: added up", f"{_bytes(by_samples)}, {_time(by_samples / sent)}"),
        ("blocks sharded, all samples: added up", f"{_bytes(by_blocks)}, {_time(by_blocks / sent)}"),
        (f"blocks sharded, {STEP} samples: added up", f"{_bytes(step)}, {_time(step / sent)}"),
        (f"blocks sharded, {STEP} samples: their pixels, where not everyone has them", _bytes(float(STEP * PIXELS))),
        ("samples of a step below which sharding blocks adds up less", f"{crossing:,.0f}"),
        ("samples sharded, a certificate: added up", f"{_bytes(8.0 * case.blocks)}"),
        ("blocks sharded, a certificate: added up", f"{_bytes(8.0 * n * case.c)}"),
    ]  # fmt: skip


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if number < 1024 or unit == "PiB":
            break
        number /= 1024
    return f"{number:.3g} {unit}"


def _time(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} s"


def main() -> None:
    made = parser(__doc__, "at_scale")
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--memory", type=float, default=24.0, help="GiB of one machine")
    made.add_argument("--link", type=float, help="Gbit/s between machines; measured between two processes if not given")
    given = made.parse_args()
    torch.set_num_threads(given.threads)
    print_machine("cpu")
    sent = bandwidth() if given.link is None else 1e9 / 8 * given.link
    measured = rates()
    print(f"bytes a second of an all-reduce: {sent:.2e}\n")
    columns = [figures(case, measured[case.name], sent, given.memory) for case in CASES]
    print(f"| | {' | '.join(case.name for case in CASES)} |\n|---|---|---|")
    for row in zip(*columns, strict=True):
        print(f"| {row[0][0]} | {' | '.join(value for _, value in row)} |")
    given.out.mkdir(parents=True, exist_ok=True)
    with whole_file(given.out / "at_scale.json") as partial:
        partial.write_text(to_json({"bytes_a_second": sent, "operations_a_second": measured}), encoding="utf-8")
    print(f"\nwritten: {given.out / 'at_scale.json'}")


if __name__ == "__main__":
    main()
