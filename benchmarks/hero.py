"""Draw the animation of the README: the objective of a network falls, and a proven bound rises.

    OMP_NUM_THREADS=1 python benchmarks/hero.py [--out FOLDER]

The data are two spiral arms in the plane, 40 samples with a bias and labels +-1. The loss is squared, and beta is 0.02
beta_max. Adam with a falling rate trains a ReLU network of 24 neurons from weights that depend on the seed alone. At
growing numbers of steps `cnn.certify` bounds the global optimum of all such networks, of any width. All bounds hold for
the same optimum, so that the largest one so far is drawn. Then `bm_newton` starts at the trained weights, and ends at
the optimum. The lines in the plane show where each neuron begins to be active. The script prints the numbers that are
drawn, and writes hero.gif and its last frame, hero.png.
"""

import argparse
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

import convexnn_bench as cnn
from convexnn_bench.house_style import BLUE, GREEN, GREY, ORANGE

WIDTH, STEPS, RATE, GAP = 24, 3000, 0.03, 1e-6
CERTIFIED = 40  # steps of Adam at which a certificate is computed
NEWTON = (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32)  # iterations after which a certificate is drawn
SIDE, POINTS = 1.25, 121  # half the side of the drawn square, and the points of its grid along a side
SIZE, DPI = (7.0, 4.2), 120  # inches, and dots per inch: 840 x 504 pixels
PAPER, INK = "white", "#1c1c1e"
COLOURS = 64  # number of colours of the GIF
SECONDS, ZOOM, LAST = 0.13, 10, 4.0  # seconds of a frame; frames in which the axis zooms; seconds of the last frame
SURFACE = LinearSegmentedColormap.from_list("surface", ["#a98bb5", "#e3d8e8", "white", "#e9e2c8", "#c9b46a"])


@dataclass(frozen=True)
class Moment:
    """The numbers that are drawn of one certificate."""

    stage: str  # "Adam" or "Newton"
    step: int
    objective: float
    bound: float  # the largest lower bound so far
    gap: float  # (objective - bound) / bound
    surface: np.ndarray  # POINTS x POINTS outputs of the network
    neurons: np.ndarray  # (3, m) first-layer weights, times the sizes of the second-layer weights


def spiral(n: int, seed: int = 0) -> cnn.Problem:
    """Return samples and labels of two spiral arms with n / 2 samples each."""
    turn = np.linspace(0.15, 1.0, n // 2)
    arm = np.column_stack([turn * np.cos(1.5 * np.pi * turn), turn * np.sin(1.5 * np.pi * turn)])
    points = np.vstack([arm, -arm]) + 0.03 * np.random.default_rng(seed).standard_normal((2 * (n // 2), 2))
    X = np.column_stack([points, np.ones(len(points))])
    y = np.repeat([1.0, -1.0], n // 2)
    return cnn.Problem(X, y, activation="relu", loss="squared", beta_fraction=0.02, patterns="all")


def grid() -> np.ndarray:
    """Return the points at which the surface is drawn, with a column of ones."""
    side = np.linspace(-SIDE, SIDE, POINTS)
    x, y = np.meshgrid(side, side)
    return np.column_stack([x.ravel(), y.ravel(), np.ones(x.size)])


def trained(problem: cnn.Problem, steps: int, seed: int = 3) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """Yield (step, (W1, W2)) at growing numbers of steps of Adam, the last one included."""
    generator = torch.Generator().manual_seed(seed)
    W1, W2 = (
        (0.3 * torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64)).requires_grad_()
        for rows in (problem.p, problem.q)
    )
    X, Y = (torch.as_tensor(array, dtype=torch.float64) for array in (problem.X, problem.Y))
    adam = torch.optim.Adam([W1, W2], lr=RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(adam, 0.01 ** (1 / max(steps, 1)))
    shown = {0, *(round(step) for step in np.geomspace(1, steps, CERTIFIED))}
    for step in range(steps + 1):
        if step in shown:
            yield step, (W1.detach().numpy().copy(), W2.detach().numpy().copy())
        adam.zero_grad()
        residual = torch.relu(X @ W1) @ W2.T - Y
        decay = W1.square().sum() + W2.square().sum()
        (0.5 * residual.square().sum() + problem.beta / 2 * decay).backward()
        adam.step()
        schedule.step()


def moments(problem: cnn.Problem, steps: int = STEPS) -> Iterator[Moment]:
    """Yield the numbers of each frame: first while Adam trains, then while bm_newton continues."""
    bound, where = -np.inf, grid()
    # 1. Train the network, and certify its weights.
    for step, start in trained(problem, steps):
        certificate = cnn.certify(problem, start)
        bound = max(bound, certificate.dual)
        surface = np.maximum(where @ start[0], 0) @ start[1].T
        gap = (certificate.primal - bound) / bound
        neurons = start[0] * np.linalg.norm(start[1], axis=0)
        yield Moment("Adam", step, certificate.primal, bound, gap, surface.reshape(POINTS, POINTS), neurons)
    # 2. Continue with the Burer-Monteiro factors. Budgets of iterations make the picture independent of the clock.
    for iterations in NEWTON:
        result = cnn.solve(problem, "bm_newton", start=start, iterations=iterations, gap=GAP, show_progress=False)
        assert result.certificate is not None, result.reason
        bound = max(bound, result.certificate.dual)
        gap = (result.objective - bound) / bound
        surface = np.asarray(result.predict(where)).reshape(POINTS, POINTS)
        W1, W2 = result.network
        yield Moment("Newton", iterations, result.objective, bound, gap, surface, W1 * np.linalg.norm(W2, axis=0))
        if gap <= GAP:
            break


def draw_plane(axis: Axes, problem: cnn.Problem, moment: Moment) -> None:
    """Draw the surface, the samples, and the line on which each neuron begins to be active."""
    side = np.linspace(-SIDE, SIDE, POINTS)
    levels = np.array([-9.0, -1.2, -0.8, -0.4, 0.0, 0.4, 0.8, 1.2, 9.0])
    axis.contourf(side, side, moment.surface, levels, colors=SURFACE(np.linspace(0, 1, len(levels) - 1)), extend="both")
    axis.contour(side, side, moment.surface, [0.0], colors=INK, linewidths=1.8)
    sizes = np.linalg.norm(moment.neurons, axis=0)
    for weights, size in zip(moment.neurons.T, sizes / max(sizes.max(), 1e-12), strict=True):
        if size > 0.02:
            level = (grid() @ weights).reshape(POINTS, POINTS)
            colour = GREEN if moment.stage == "Adam" else BLUE
            axis.contour(side, side, level, [0.0], colors=colour, linewidths=0.6 + 1.6 * size, alpha=0.75)
    for label, marker, fill in ((1.0, "o", INK), (-1.0, "s", PAPER)):
        chosen = problem.Y[:, 0] == label
        axis.plot(*problem.X[chosen, :2].T, marker, color=fill, markeredgecolor=INK, markersize=5.5, linestyle="")
    axis.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), xticks=[], yticks=[], aspect="equal")


def draw_curves(left: Axes, right: Axes, past: Sequence[Moment], whole: Sequence[Moment], closeness: float) -> None:
    """Draw objective and bound against steps of Adam (left) and of Newton (right).

    closeness: from 0, where the vertical axis shows all values, to 1, where it shows what Adam left of the gap.
    """
    adam = [one for one in past if one.stage == "Adam"]
    newton = [adam[-1], *(one for one in past if one.stage == "Newton")]
    for axis, part, colour in ((left, adam, GREEN), (right, newton, BLUE))[: 1 + (len(newton) > 1)]:
        x = [max(one.step, 0.7) if axis is left else one.step * (one.stage == "Newton") for one in part]
        high, low = [one.objective for one in part], [one.bound for one in part]
        axis.fill_between(x, low, high, color=ORANGE, alpha=0.13, linewidth=0)
        axis.plot(x, high, color=colour, linewidth=2.8)
        axis.plot(x, low, color=ORANGE, linewidth=2.8)
        if part[-1] is past[-1]:
            axis.plot(x[-1:] * 2, [high[-1], low[-1]], "o", color=INK, markersize=5, zorder=5, clip_on=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=11)
    last = [one for one in whole if one.stage == "Adam"][-1]
    margin = 0.6 * (last.objective - last.bound)
    close, far = (last.bound - margin, last.objective + margin), (0.0, 1.04 * whole[0].objective)
    left.set_ylim(*((1 - closeness) * a + closeness * b for a, b in zip(far, close, strict=True)))
    left.yaxis.set_major_locator(MaxNLocator(4))
    left.set(xscale="log", xlim=(0.6, 1.1 * last.step))
    ticks = [tick for tick in (1, 10, 100, 1000) if tick <= last.step]
    left.set_xticks(ticks, [str(tick) for tick in ticks])
    left.set_xticks([], minor=True)
    right.set(xlim=(-0.4, whole[-1].step + 0.4), xticks=range(10, whole[-1].step + 1, 10))
    left.set_xlabel("steps of Adam", fontsize=12)
    right.set_xlabel("of Newton", fontsize=12)
    right.tick_params(left=False, labelleft=False)
    right.spines["left"].set(linestyle=":", color=GREY)


def words(gap: float) -> str:
    """Return the title: how far above the global optimum the objective can be."""
    if gap <= GAP:
        return f"the global optimum, to one part in {1 / GAP:,.0f}"
    percent = 100 * gap
    digits = 0 if percent >= 10 else 1 if percent >= 1 else 2 if percent >= 0.1 else 4
    # An upper bound is rounded upwards.
    return f"at most {math.ceil(percent * 10**digits) / 10**digits:.{digits}f} % above the global optimum"


def as_image(figure: Figure) -> Image.Image:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return Image.open(stream).convert("RGB")


def frame(problem: cnn.Problem, past: Sequence[Moment], whole: Sequence[Moment], closeness: float) -> Image.Image:
    """Return one frame, the state at the last moment of `past`."""
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor=PAPER)
    # Every frame has the same layout, so that only the numbers change.
    plane = figure.add_axes((0.012, 0.03, 0.471, 0.786))
    left = figure.add_axes((0.578, 0.145, 0.255, 0.671))
    right = figure.add_axes((0.846, 0.145, 0.138, 0.671), sharey=left)
    now = past[-1]
    training = now.stage == "Adam"
    colour = GREEN if training else BLUE
    draw_plane(plane, problem, now)
    draw_curves(left, right, past, whole, closeness)
    figure.text(0.5, 0.985, words(now.gap), fontsize=16, weight="bold", color=INK, ha="center", va="top")
    kind = f"the network, step {now.step} of Adam" if training else f"Burer-Monteiro, step {now.step} of Newton"
    figure.text(0.247, 0.838, kind, fontsize=12.5, color=colour, ha="center")
    figure.text(0.578, 0.838, "objective", fontsize=12.5, color=colour)
    figure.text(0.984, 0.838, "proven lower bound", fontsize=12.5, color=ORANGE, ha="right")
    return as_image(figure)


def frames(problem: cnn.Problem, whole: Sequence[Moment]) -> Iterator[tuple[Image.Image, float]]:
    """Yield (frame, seconds that it is shown)."""
    for count, moment in enumerate(whole, start=1):
        past, newton = whole[:count], moment.stage == "Newton"
        yield frame(problem, past, whole, float(newton)), 3 * SECONDS if newton or count == 1 else SECONDS
        # Between Adam and Newton the axis zooms to the remaining gap.
        if not newton and whole[count].stage == "Newton":
            yield frame(problem, past, whole, 0.0), 8 * SECONDS
            for part in range(1, ZOOM + 1):
                rest = 1 - part / ZOOM
                yield frame(problem, past, whole, 1 - rest**3), SECONDS if rest else 6 * SECONDS


def write(path: Path, made: Sequence[tuple[Image.Image, float]]) -> None:
    """Write an animated GIF with one palette, made of the first frame, the middle one and the last one."""
    images, seconds = [image for image, _ in made], [shown for _, shown in made]
    seconds[-1] = LAST
    sheet = Image.new("RGB", (images[0].width, 3 * images[0].height))
    for row, image in enumerate((images[0], images[len(images) // 2], images[-1])):
        sheet.paste(image, (0, row * image.height))
    palette = sheet.quantize(COLOURS, dither=Image.Dither.NONE)
    flat = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    milliseconds = [round(1000 * one) for one in seconds]
    flat[0].save(path, save_all=True, append_images=flat[1:], duration=milliseconds, loop=0, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder for hero.gif and hero.png")
    out = parser.parse_args().out
    problem, whole = spiral(40), []
    for moment in moments(problem):
        whole.append(moment)
        print(
            f"{moment.stage:6s} {moment.step:5d}  objective {moment.objective:10.6f}  best bound {moment.bound:10.6f}  "
            f"gap {moment.gap:.2e}", flush=True,
        )  # fmt: skip
    made = list(frames(problem, whole))
    write(out / "hero.gif", made)
    made[-1][0].save(out / "hero.png", optimize=True)
    print(f"written: {out / 'hero.gif'} ({(out / 'hero.gif').stat().st_size:,} bytes) and {out / 'hero.png'}")


if __name__ == "__main__":
    main()
