"""Tables and figures of a ladder or a map, from the records of a campaign.

    convexnn-bench run ladder
    python benchmarks/ladder.py results/ladder [--out DIR] [--map 1e-6]

Prints the time of every solver to certified gaps on every problem, and the matrix of the times to the smallest gap over
the best. Writes ladder.csv, ladder.md and the matrix as ladder.png|svg to --out (the folder of the records if not
given); with --map also map.png|svg, of how much faster Burer-Monteiro is than the exact solvers over n, P and c
(campaign map).
"""

import argparse
import sys
from pathlib import Path

from common import save_figure
from ladder_figures import map_figure
from rich.console import Console

from convexnn_bench.errors import InputError
from convexnn_bench.house_style import find_styles
from convexnn_bench.report import (
    GAPS,
    csv_rows,
    markdown,
    matrix,
    matrix_figure,
    print_ladder,
    read_folder,
    solver_times,
    write_csv,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", help="folder with records.jsonl")
    parser.add_argument("--out", help="folder for files and figures")
    parser.add_argument("--gaps", type=float, nargs="+", default=list(GAPS), help="certified relative gaps")
    parser.add_argument("--map", type=float, metavar="GAP", help="draw the map at this gap")
    given = parser.parse_args()
    try:
        records = read_folder(Path(given.results))[0]
        out = Path(given.out or given.results)
        out.mkdir(parents=True, exist_ok=True)
        console = Console(highlight=False, markup=False)
        if not console.is_terminal:
            console.width = max(console.width, 160)
        gaps = tuple(sorted(given.gaps, reverse=True))
        found = print_ladder(records, console, gaps)
        written = [write_csv(csv_rows(found, gaps), out / "ladder.csv"), out / "ladder.md"]
        written[1].write_text(markdown(found, gaps))
        looks = find_styles({one.solver: one.formulation for one in found})
        written += save_figure(matrix_figure(matrix(found, gaps[-1]), looks), out / "ladder")
        if given.map is not None:
            written += save_figure(map_figure(solver_times(records, (given.map,)), given.map), out / "map")
    except InputError as error:
        sys.exit(f"error: {error}")
    console.print(f"written: {', '.join(map(str, written))}", soft_wrap=True)


if __name__ == "__main__":
    main()
