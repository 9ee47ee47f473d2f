"""What the moving pictures for lectures have in common: the frame, the panel with both bounds, and the files."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hero import INK, PAPER, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from convexnn_bench.house_style import BLUE, ORANGE


class Bounded(Protocol):
    """A moment of a picture: an objective, and the largest lower bound so far."""

    objective: float
    bound: float


def relative_gap(moment: Bounded) -> float:
    """Return how far the objective is above the bound, relative to the bound."""
    return (moment.objective - moment.bound) / moment.bound


def new_figure(headline: str) -> Figure:
    """Return the empty frame of a picture under its headline."""
    figure = Figure(figsize=(7.0, 4.2), dpi=120, facecolor=PAPER)
    figure.text(0.5, 0.985, headline, fontsize=16, weight="bold", color=INK, ha="center", va="top")
    return figure


def draw_bounds(figure: Figure, left: float, past: Sequence[Bounded], count: str, label: str) -> Axes:
    """Draw objective and lower bound against a count, such as "step", in a panel from `left` on; return its axes."""
    axis = figure.add_axes((left, 0.145, 0.98 - left, 0.671))
    x, high, low = ([getattr(one, name) for one in past] for name in (count, "objective", "bound"))
    axis.fill_between(x, low, high, color=ORANGE, alpha=0.13, linewidth=0)
    axis.plot(x, high, color=BLUE, linewidth=2.8)
    axis.plot(x, low, color=ORANGE, linewidth=2.8)
    axis.set_xlabel(label, fontsize=12)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=11)
    figure.text(left, 0.838, "objective", fontsize=12.5, color=BLUE)
    figure.text(0.98, 0.838, "proven lower bound", fontsize=12.5, color=ORANGE, ha="right")
    return axis


def output_folder(description: str | None) -> Path:
    """Return the folder that the command line names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder for the .gif and the .png")
    return parser.parse_args().out


def save(folder: Path, name: str, frames: list[tuple[Image.Image, float]]) -> None:
    """Write the frames, each with its seconds, as a .gif, and the last one as a .png."""
    path = folder / f"{name}.gif"
    write(path, frames)
    frames[-1][0].save(path.with_suffix(".png"), optimize=True)
    print(f"written: {path}, {len(frames)} frames, {path.stat().st_size:,} bytes")
