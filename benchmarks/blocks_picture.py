"""A moving picture for lectures: blocks enter and leave while `bm_newton` solves, until a bound proves the optimum.

    OMP_NUM_THREADS=1 python benchmarks/blocks_picture.py [--out FOLDER]

Three spiral arms in the plane, 60 samples, gated ReLU with all 120 gates, squared loss, beta = 0.05 beta_max. In the
plane a gate is a direction, so that all blocks lie on a circle, each where its gates are. The bars are nuclear norms of
blocks. `bm_newton` begins with no block, adds those with the largest dual norms, and drops those that fell to zero. It
is run anew with growing budgets of iterations, which makes the picture independent of the clock. Prints the numbers
that are drawn, and writes blocks.gif and its last frame, blocks.png.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from hero import INK, as_image, words
from matplotlib.ticker import MaxNLocator
from moving import draw_bounds, new_figure, output_folder, relative_gap, save
from PIL import Image

import convexnn_bench as cnn
from convexnn_bench.house_style import BLUE, GREY, PINK

GAP, MOST = 1e-6, 60  # certified gap at the end, and the most iterations
SMALL = 1e-7  # of the largest block, below which a block counts as zero
INNER = 1.0  # radius of the circle on which the bars stand


@dataclass(frozen=True)
class Moment:
    """The numbers that are drawn of one budget of iterations."""

    iterations: int
    objective: float
    bound: float  # the largest lower bound so far
    sizes: np.ndarray  # nuclear norm of each block

    @property
    def gap(self) -> float:
        return relative_gap(self)

    @property
    def active(self) -> np.ndarray:
        """Whether each block is in use."""
        return self.sizes > SMALL * max(float(self.sizes.max()), 1e-12)


def moments(problem: cnn.Problem, most: int = MOST) -> Iterator[Moment]:
    """Yield what is drawn of each budget, from the zero network to the certified gap."""
    zero = np.zeros((problem.P, problem.p, problem.q))
    start = cnn.certify(problem, zero)
    bound = start.dual
    yield Moment(0, start.primal, bound, np.zeros(problem.P))
    for iterations in range(1, most + 1):
        result = cnn.solve(problem, "bm_newton", iterations=iterations, gap=GAP, show_progress=False)
        assert result.certificate is not None, result.reason
        bound = max(bound, result.certificate.dual)
        sizes = np.linalg.svd(np.asarray(result.blocks), compute_uv=False).sum(axis=1)
        moment = Moment(iterations, result.objective, bound, sizes)
        yield moment
        if moment.gap <= GAP:
            return


def angles(problem: cnn.Problem) -> np.ndarray:
    """Return the direction of each block: the mean of the directions that have its mask."""
    turn = np.linspace(0, 2 * np.pi, 40_000, endpoint=False)
    masks = problem.X @ np.array([np.cos(turn), np.sin(turn)]) >= 0
    found = []
    for mask in problem.masks.T:
        same = turn[(masks == mask[:, None]).all(axis=0)]
        found.append(np.angle(np.exp(1j * same).mean()))
    return np.array(found)


def draw_ring(axis, where: np.ndarray, now: Moment, before: Moment, largest: float) -> None:
    """Draw a tick for each block, a bar for each active one, and rings round those that enter and leave."""
    scale = 1.25 / largest
    for angle, size, active, was, old in zip(where, now.sizes, now.active, before.active, before.sizes, strict=True):
        along = np.array([np.cos(angle), np.sin(angle)])
        axis.plot(*np.outer(along, [INNER - 0.06, INNER]), color=GREY, linewidth=1)
        if active:
            axis.plot(*np.outer(along, [INNER, INNER + scale * size]), color=BLUE, linewidth=3.4, solid_capstyle="butt")
            if not was:
                axis.plot(*(along * (INNER + scale * size)), "o", color=PINK, markersize=6, zorder=5)
        elif was:
            axis.plot(*np.outer(along, [INNER, INNER + scale * old]), color=GREY, linewidth=1.6, linestyle=":")
            axis.plot(*(along * INNER), "x", color=INK, markersize=6, zorder=5)
    axis.set(xlim=(-2.3, 2.3), ylim=(-2.3, 2.3), aspect="equal")
    axis.axis("off")
    entered, left = (now.active & ~before.active).sum(), (before.active & ~now.active).sum()
    axis.text(0, 0.28, f"{now.active.sum()}", fontsize=24, weight="bold", color=INK, ha="center", va="center")
    axis.text(0, -0.08, f"of {len(where)} blocks", fontsize=11, color=INK, ha="center", va="center")
    axis.text(0, -0.38, f"{entered} in, {left} out", fontsize=11, color=INK, ha="center", va="center")


def frame(where: np.ndarray, past: Sequence[Moment], whole: Sequence[Moment]) -> Image.Image:
    """Return one frame, the state at the last moment of `past`."""
    now, before = past[-1], past[-2] if len(past) > 1 else past[-1]
    figure = new_figure(words(now.gap) if now.gap < 10 else "nothing trained yet")
    # 1. The circle of blocks.
    ring = figure.add_axes((0.005, 0.02, 0.48, 0.8))
    draw_ring(ring, where, now, before, max(float(one.sizes.max()) for one in whole))
    figure.text(0.247, 0.838, "sizes of the blocks", fontsize=12.5, color=BLUE, ha="center")
    # 2. Objective and bound against iterations.
    right = draw_bounds(figure, 0.58, past, "iterations", "iterations of bm_newton")
    right.plot([now.iterations] * 2, [now.objective, now.bound], "o", color=INK, markersize=5, zorder=5)
    right.set(xlim=(0, whole[-1].iterations + 0.5), ylim=(0, 1.04 * whole[0].objective))
    right.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return as_image(figure)


def main() -> None:
    folder = output_folder(__doc__)
    problem = cnn.make_problem("spiral", n=60, beta_fraction=0.05)
    whole = []
    for one in moments(problem):
        whole.append(one)
        print(f"iteration {one.iterations:3d}  {one.active.sum():3d} blocks  objective {one.objective:.6f}  "
              f"gap {one.gap:.2e}", flush=True)  # fmt: skip
    where = angles(problem)
    save(folder, "blocks", [(frame(where, whole[: k + 1], whole), 0.55) for k in range(len(whole))])


if __name__ == "__main__":
    main()
