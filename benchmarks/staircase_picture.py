"""A moving picture for lectures: gradient descent stalls at saddles, and the staircase leaves them until it can prove.

    OMP_NUM_THREADS=1 python benchmarks/staircase_picture.py [--out FOLDER]

A linear network with 4 inputs and 4 outputs on 40 samples of noisy targets, squared loss, beta = 0.05 beta_max, so that
Burer-Monteiro has one block U V^T. Gradient descent starts with one column. Where it stalls, the certificate's matrix
G = X^T grad F has a singular value above beta, and its singular vectors are a direction of descent for one column more,
which is added at a small size. On the left is the change of the objective along that direction. Prints the numbers that
are drawn, and writes staircase.gif and its last frame, staircase.png.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from hero import INK, as_image
from moving import draw_bounds, new_figure, output_folder, relative_gap, save
from PIL import Image

import convexnn_bench as cnn
from convexnn_bench.house_style import BLUE, GREY, PINK

STALLED, FIRST = 1e-6, 0.03  # gradient norm, relative to beta times that of the factors; size of a new column
EVERY, MOST = 20, 20_000  # steps of gradient descent between two frames, and in all
GAP, REACH = 1e-5, 1.6  # certified gap at the end; largest size of a column that is drawn
Factors = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Moment:
    """What is drawn of one certificate."""

    step: int
    columns: int
    objective: float
    bound: float  # the largest lower bound so far
    sizes: np.ndarray  # of one more column along the singular vectors of G
    along: np.ndarray  # objectives with that column
    stalled: bool

    @property
    def gap(self) -> float:
        return relative_gap(self)


def linear(seed: int = 0) -> cnn.Problem:
    """Targets of four directions of different strength."""
    draw = np.random.default_rng(seed)
    X = draw.standard_normal((40, 4))
    Y = X @ np.diag([3.0, 1.8, 1.0, 0.5]) @ np.linalg.qr(draw.standard_normal((4, 4)))[0]
    return cnn.Problem(X, Y + 0.1 * draw.standard_normal(Y.shape), activation="linear", beta_fraction=0.05)


def objective(problem: cnn.Problem, factors: Factors) -> float:
    """F + beta/2 times the squared factors, written out."""
    U, V = factors
    residual = problem.X @ U @ V.T - problem.Y
    return float(0.5 * (residual**2).sum() + problem.beta / 2 * ((U**2).sum() + (V**2).sum()))


def descent_direction(problem: cnn.Problem, factors: Factors) -> Factors:
    """Return the columns u and v, of norm one, along which one column more lowers the objective fastest."""
    U, V = factors
    left, _, right = np.linalg.svd(-problem.X.T @ (problem.X @ U @ V.T - problem.Y))
    return left[:, :1], right[:1].T


def with_column(factors: Factors, direction: Factors, size: float) -> Factors:
    U, V = (np.hstack([one, size * other]) for one, other in zip(factors, direction, strict=True))
    return U, V


def moments(problem: cnn.Problem, most: int = MOST) -> Iterator[Moment]:
    """Yield what is drawn while gradient descent runs, at every stall and at the end."""
    draw, bound, sizes = np.random.default_rng(1), -np.inf, np.linspace(-REACH, REACH, 81)
    U, V = 0.1 * draw.standard_normal((problem.p, 1)), 0.1 * draw.standard_normal((problem.q, 1))
    rate = 0.1 / (np.linalg.norm(problem.X, 2) ** 2)
    for step in range(most + 1):
        # 1. The gradient, and whether it says that descent has stalled.
        G = problem.X.T @ (problem.X @ U @ V.T - problem.Y)
        dU, dV = G @ V + problem.beta * U, G.T @ U + problem.beta * V
        stalled = np.hypot(np.linalg.norm(dU), np.linalg.norm(dV)) <= STALLED * problem.beta * np.linalg.norm([*U, *V])
        # 2. A certificate of the factors.
        if stalled or step % EVERY == 0:
            certificate = cnn.certify(problem, (U[None], V[None]))
            bound = max(bound, certificate.dual)
            direction = descent_direction(problem, (U, V))
            along = np.array([objective(problem, with_column((U, V), direction, size)) for size in sizes])
            yield Moment(step, U.shape[1], certificate.primal, bound, sizes, along, bool(stalled))
            if (certificate.primal - bound) / bound <= GAP:
                return
        # 3. The staircase: one column more along the direction of descent.
        if stalled:
            U, V = with_column((U, V), direction, FIRST)
        else:
            U, V = U - rate * dU, V - rate * dV


def frame(past: Sequence[Moment], whole: Sequence[Moment]) -> Image.Image:
    """Return one frame, the state at the last moment of `past`."""
    now, top = past[-1], 1.04 * whole[0].objective
    done = now.gap <= GAP
    percent = math.ceil(1000 * now.gap) / 10
    figure = new_figure(
        f"the global optimum, to one part in {1 / GAP:,.0f}" if done
        else f"at most {percent:g} % above the global optimum"
    )  # fmt: skip
    # 1. The objective along one more column.
    left = figure.add_axes((0.06, 0.145, 0.3, 0.671))
    left.plot(now.sizes, now.along - now.objective, color=BLUE, linewidth=2.8)
    left.plot([0], [0], "o", color=PINK if now.stalled else INK, markersize=8, zorder=5)
    left.set(ylim=(-0.22 * top, 0.3 * top), xlim=(-REACH, REACH), xticks=[0], yticks=[0])
    left.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    left.set_xlabel("size of one more column", fontsize=12)
    left.spines[["top", "right"]].set_visible(False)
    left.tick_params(labelsize=11)
    count = f"{now.columns} column{'s' if now.columns > 1 else ''}"
    state = f"{count}: " + ("no way down" if done else "stalled at a saddle" if now.stalled else "descending")
    figure.text(0.21, 0.838, state, fontsize=12.5, color=PINK if now.stalled and not done else BLUE, ha="center")
    # 2. Objective and bound against steps, with a mark at every stall.
    right = draw_bounds(figure, 0.49, past, "step", "steps of gradient descent")
    for one in past:
        if one.stalled:
            right.plot([one.step], [one.objective], "o", color=PINK, markersize=7, zorder=5)
    right.set(xlim=(0, 1.02 * whole[-1].step), ylim=(0, top))
    return as_image(figure)


def main() -> None:
    folder = output_folder(__doc__)
    whole = list(moments(linear()))
    for one in whole:
        if one.stalled:
            print(f"step {one.step:6d}  {one.columns} columns  objective {one.objective:.6f}  gap {one.gap:.2e}")
    frames = [(frame(whole[: k + 1], whole), 1.5 if one.stalled else 0.08) for k, one in enumerate(whole)]
    save(folder, "staircase", frames)


if __name__ == "__main__":
    main()
