"""The drawing of the three formulations with the certificate beneath.

    python benchmarks/drawing.py [--out docs/images]

Writes three_ways.svg, of which the documentation makes a variant for dark pages. The colours are those of the
formulations in every figure.
"""

import argparse
import itertools
from html import escape
from pathlib import Path

from convexnn_bench.house_style import INK, SHADES, WHITE

NETWORK, FACTORS, CONVEX = (SHADES[name][0] for name in ("network", "burer_monteiro", "convex"))
WIDTH, HEIGHT = 900, 430


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    out = parser.parse_args().out
    (out / "three_ways.svg").write_text(drawing(), encoding="utf-8")
    print(f"written: {out / 'three_ways.svg'}")


def drawing() -> str:
    """Return the drawing as SVG."""
    page, ink, soft = WHITE, INK, "#5f6368"
    parts = [
        *_panel(0, "network", NETWORK, "min  F(φ(X W₁) W₂ᵀ) + β/2 (‖W₁‖² + ‖W₂‖²)", ink, soft),
        *_panel(1, "Burer-Monteiro", FACTORS, "min  F(Σ Dₖ X Uₖ Vₖᵀ) + β/2 Σ (‖Uₖ‖² + ‖Vₖ‖²)", ink, soft),
        *_panel(2, "convex program", CONVEX, "min  F(Σ Dₖ X Zₖ) + β Σ ‖Zₖ‖⁎", ink, soft),
        *_neurons(),
        *_factors(ink),
        *_blocks(ink),
        *_arrow(283, 317, 140, ink, "sort neurons", "by pattern k"),
        *_arrow(583, 617, 140, ink, "Zₖ = Uₖ Vₖᵀ", ""),
        *_certificate(ink, soft),
    ]
    words = (
        "Three panels: the network with weights W1 and W2, the Burer-Monteiro factors U_k and V_k, and the blocks Z_k "
        "of the convex program. Beneath them one axis of objectives: the proven lower bound, the optimum that all "
        "three share, and the objective of a point; the gap is the distance between the bound and the objective."
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif">\n<title>{words}</title>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{page}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(
    x: float, y: float, words: str, fill: str, size: float = 14, anchor: str = "middle", bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    look = f'fill="{fill}" font-size="{size:g}" text-anchor="{anchor}"{weight}'
    return f'<text x="{x:g}" y="{y:g}" {look}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.5, more: str = "") -> str:
    ends = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width:g}" {more}/>'


def _box(x: float, y: float, width: float, height: float, fill: str, opacity: float = 0.25, stroke: str = "") -> str:
    size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return (
        f'<rect {size} rx="3" fill="{fill}" fill-opacity="{opacity:g}" stroke="{stroke or fill}" stroke-width="1.5"/>'
    )


def _panel(index: int, title: str, colour: str, program: str, ink: str, soft: str) -> list[str]:
    middle = 150 + 300 * index
    return [
        _box(middle - 132, 16, 264, 226, colour, 0.05),
        _text(middle, 42, title, colour, 17, bold=True),
        _text(middle, 228, program, ink, 11.5),
    ]


def _neurons() -> list[str]:
    parts, layers = [], [(75, (95, 140, 185)), (150, (76, 108, 140, 172, 204)), (225, (115, 165))]
    for (x1, ends1), (x2, ends2) in itertools.pairwise(layers):
        parts += [_line(x1, y1, x2, y2, NETWORK, 0.8, 'stroke-opacity="0.55"') for y1 in ends1 for y2 in ends2]
    for x, ends in layers:
        parts += [f'<circle cx="{x}" cy="{y}" r="8" fill="{NETWORK}"/>' for y in ends]
    return [*parts, _text(112, 75, "W₁", NETWORK), _text(190, 85, "W₂", NETWORK)]


def _factors(ink: str) -> list[str]:
    parts = []
    for k in range(3):
        x = 338 + 86 * k
        parts += [_box(x, 90, 18, 84, FACTORS), _box(x + 22, 90, 42, 18, FACTORS)]
        parts += [_text(x + 9, 192, f"U{'₁₂₃'[k]}", FACTORS, 13), _text(x + 43, 82, f"V{'₁₂₃'[k]}ᵀ", FACTORS, 13)]
    return parts


def _blocks(ink: str) -> list[str]:
    parts = []
    for k, opacity in enumerate((0.5, 0.08, 0.35)):
        x = 636 + 88 * k
        parts += [_box(x, 90, 52, 84, CONVEX, opacity), _text(x + 26, 192, f"Z{'₁₂₃'[k]}", CONVEX, 13)]
    return [*parts, _text(750, 82, "one block an activation pattern; most are zero", CONVEX, 11)]


def _arrow(x1: float, x2: float, y: float, ink: str, above: str, below: str) -> list[str]:
    middle = (x1 + x2) / 2
    heads = [
        f'<path d="M{x1 + 7} {y - 4}L{x1} {y}L{x1 + 7} {y + 4}M{x2 - 7} {y - 4}L{x2} {y}L{x2 - 7} {y + 4}" '
        f'fill="none" stroke="{ink}" stroke-width="1.5"/>'
    ]
    words = [_text(middle, 262, above, ink, 11.5), _text(middle, 276, below, ink, 11.5)]
    return [
        _line(x1, y, x2, y, ink),
        *heads,
        *words,
        _line(middle, y + 8, middle, 250, ink, 0.7, 'stroke-dasharray="2 3"'),
    ]


def _certificate(ink: str, soft: str) -> list[str]:
    axis, low, best, point = 352, 250, 330, 560
    return [
        _text(30, 312, "the certificate", ink, 15, "start", bold=True),
        _line(point, axis, 870, axis, soft, 1.2),
        _text(870, axis + 20, "training objective", soft, 12, "end"),
        _box(30, axis - 12, low - 30, 24, soft, 0.18),
        _box(low, axis - 12, point - low, 24, CONVEX, 0.18),
        _line(low, axis - 22, low, axis + 22, CONVEX, 3),
        _line(best, axis - 16, best, axis + 16, ink, 1.5, 'stroke-dasharray="3 3"'),
        f'<circle cx="{point}" cy="{axis}" r="8" fill="{NETWORK}"/>',
        _text(low, axis + 42, "proven lower bound", CONVEX, 13, bold=True),
        _text(low, axis + 58, "no network, of any width, is below", soft, 12),
        _text(best, axis - 24, "optimum p*, the same for all three", ink, 12, "start"),
        _text(point, axis + 42, "objective of a point", NETWORK, 13, bold=True),
        _text(point, axis + 58, "of any of the three", soft, 12),
        _text((best + point) / 2 - 2, axis + 5, "gap: so far above p* at most", ink, 12.5),
        _text(140, axis + 4, "impossible", soft, 12),
    ]


if __name__ == "__main__":
    main()
