"""Campaigns in parts, times to certified gaps from hand-made records, the map, power laws, the benchmarks' counts."""

import csv
import importlib
import io
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from harness_fixtures import spiral_cell
from matplotlib.colors import to_hex
from rich.console import Console

import convexnn_bench as cnn
from convexnn_bench.harness.campaign import load_campaign
from convexnn_bench.harness.cell_run import blank_record
from convexnn_bench.harness.plan import plan
from convexnn_bench.house_style import FIXED
from convexnn_bench.report.figures.matrix import matrix_figure
from convexnn_bench.report.figures.scaling import scaling_figure
from convexnn_bench.report.ladder import csv_rows, markdown, print_ladder, time_rows
from convexnn_bench.report.matrix import matrix
from convexnn_bench.report.numbers.power_law import fit_power_law
from convexnn_bench.report.numbers.time_to_gap import by_rung, lead, quantile, solver_times, time_to_gap

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

PARTS = """
solvers = ["fista"]
seeds = 2
time_limit = 7.0
deadline = 11.0
[[part]]
datasets = ["spiral[n=9]"]
[[part]]
datasets = ["wine[patterns=3]"]
solvers = ["bm_gd", "fista"]
seeds = [4]
time_limit = 3
"""


def load(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return load_campaign(path)


@pytest.fixture
def benchmark_module(monkeypatch):
    """A module of benchmarks/, by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


# -- parts of a campaign ----------------------------------------------------------------------------------


def test_a_part_takes_from_the_campaign_what_it_does_not_set(tmp_path):
    cells = plan(*load(tmp_path, PARTS))
    told = [(c.problem_name, c.solver, c.seed, c.limits.time_limit, c.limits.wall_seconds) for c in cells]
    assert told == [
        ("spiral[n=9]", "fista", 0, 7.0, 11.0),
        ("spiral[n=9]", "fista", 1, 7.0, 11.0),
        ("wine[patterns=3]", "bm_gd", 4, 3.0, 16.0),  # its own limit comes with the deadline that follows from it
        ("wine[patterns=3]", "fista", 4, 3.0, 16.0),
    ]


def test_the_command_line_holds_in_every_part_and_its_data_sets_take_their_place(tmp_path):
    campaign, source = load(tmp_path, PARTS)

    def cells(**changed):
        found = plan(replace(campaign, **changed), source.without(changed))
        return [(c.problem_name, c.solver, c.seed, c.limits.time_limit, c.limits.wall_seconds) for c in found]

    assert cells(solvers=["bm_lbfgs"], seeds=1, time_limit=2.0, deadline=None) == [
        ("spiral[n=9]", "bm_lbfgs", 0, 2.0, 14.0),
        ("wine[patterns=3]", "bm_lbfgs", 0, 2.0, 14.0),
    ]
    assert {told[:2] for told in cells(datasets=["spiral[n=6]"])} == {("spiral[n=6]", "fista")}


def test_fresh_data_gives_every_seed_its_own_draw(tmp_path):
    text = 'datasets = ["spiral[n=9]", "wine[patterns=3]", "spiral[n=9,seed=7]"]\nsolvers = ["fista"]\nseeds = 2\n'
    cells = plan(*load(tmp_path, text + "fresh_data = true"))
    drawn = [
        (c.problem_name, c.dataset_parameters["seed"], c.problem_parameters["pattern_seed"], c.seed) for c in cells
    ]
    assert drawn == [
        ("spiral[n=9,seed=0]", 0, 0, 0),
        ("spiral[n=9,seed=1]", 1, 1, 1),
        ("wine[patterns=3,seed=0]", 0, 0, 0),
        ("wine[patterns=3,seed=1]", 1, 1, 1),
        ("spiral[n=9,seed=7]", 7, 7, 0),
        ("spiral[n=9,seed=7]", 7, 7, 1),
    ]
    problems = [cnn.make_problem(cell.dataset, **cell.problem_arguments) for cell in cells[:4]]
    assert not np.array_equal(problems[0].X, problems[1].X)
    assert not np.array_equal(problems[2].masks, problems[3].masks)
    assert [c.dataset_parameters["seed"] for c in plan(*load(tmp_path, text))[:2]] == [0, 0]


HEAD = 'solvers = ["fista"]\n[[part]]\ndatasets = ["spiral[n=9]"]\n[[part]]\n'


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (HEAD + 'datasetz = ["wine"]', 5, "unknown key 'datasetz': did you mean 'datasets'?"),
        (HEAD + 'datasets = ["wine"]\nthreads = 2', 6, "unknown key 'threads' of a part"),
        (HEAD + "datasets = 3", 5, "datasets must be a list of names"),
        (HEAD + 'datasets = ["wine"]\ntime_limit = 0', 6, "time_limit must be positive"),
        (HEAD + 'datasets = ["wine"]\nsolvers = ["fistb"]', 6, "did you mean 'fista'?"),
        (HEAD + 'datasets = ["spiral[n=9]", "wein"]', 5, "did you mean 'wine'?"),
        (HEAD + "seeds = 2", 0, "datasets is empty"),
        ('solvers = ["fista"]\npart = 3', 2, "part must be tables"),
        ('datasets = ["wine"]\nsolvers = ["fista"]\nfresh_data = 1', 3, "fresh_data must be true or false"),
    ],
)
def test_bad_parts_are_refused_with_their_line(tmp_path, text, line, words):
    with pytest.raises(cnn.InputError) as caught:
        plan(*load(tmp_path, text))
    assert words in str(caught.value)
    assert not line or f"line {line}:" in str(caught.value)


# -- from records to times --------------------------------------------------------------------------------


def record(solver, seed, curve, setup=0.5, status="gap_reached", problem="spiral[n=9]", formulation="convex", **fields):
    """curve: [(seconds, gap), ...]."""
    name, _, rest = problem.rstrip("]").partition("[")
    solve = curve[-1][0] if curve else 1.0
    return {
        **blank_record(spiral_cell("fista")),
        "key": f"{solver} {seed} {problem}", "problem_name": f"{name}[{rest},seed={seed}]", "solver_name": solver,
        "seed": 0, "formulation": formulation, "status": status, "reason": "", "setup_seconds": setup,
        "solve_seconds": solve, "wall_seconds": 9.0, "peak_memory_mb": 100.0 + seed, "scope": "complete",
        "curve": [[seconds, 1.0, gap] for seconds, gap in curve],
        "problem": {"n": 9, "d": 2, "c": 3, "N": 9, "p": 2, "q": 3, "P": 18, "beta_max": 5.0,
                    "activation": "gated_relu", "architecture": "mlp",
                    "loss": "squared", "beta": 0.5, "scope": "complete"},
        **fields,
    }  # fmt: skip


ITERATIVE = [
    record("bm_gd", 0, [(1.0, 0.5), (2.0, 1e-2), (4.0, 2e-3)], status="time_limit", formulation="burer_monteiro"),
    record("bm_gd", 1, [(1.0, 0.009), (3.0, 5e-5)], formulation="burer_monteiro"),
    record("bm_gd", 2, [(6.0, None), (7.0, 1e-4)], formulation="burer_monteiro"),
]
ONE_SHOT = [
    record(f"cvxpy_scs[tolerance={tolerance}]", seed, [(seconds + seed, gap)], setup=0.25)
    for seed in range(3)
    for tolerance, seconds, gap in ((1e-3, 1.0, 8e-3), (1e-5, 2.0, 2e-5), (1e-7, 5.0, 9e-8))
]


def test_the_first_point_at_or_below_the_gap_counts_and_nothing_between():
    run = time_to_gap(ITERATIVE[0], 1e-2)
    assert (run.seconds, run.setup, run.solve) == (2.5, 0.5, 2.0)
    missed = time_to_gap(ITERATIVE[0], 1e-4)
    assert (missed.seconds, missed.waited, missed.status) == (math.inf, 4.5, "time_limit")
    assert time_to_gap(ITERATIVE[2], 1e-2).seconds == 7.5  # a refused gap is no gap
    killed = record("bm_gd", 0, [(2.0, 1e-3)], setup=None, status="time_limit", wall_seconds=9.0)
    assert time_to_gap(killed, 1e-2).seconds == 9.0  # its set-up is bounded by what is left of the wall clock


def test_medians_and_quartiles_by_hand():
    found = {(o.solver, o.gap): o for o in solver_times([*ITERATIVE, *ONE_SHOT])}
    gd = found["bm_gd", 1e-2]
    # 2.5, 1.5 and 7.5 s
    assert (gd.total.median, gd.total.low, gd.total.high, gd.reached) == (2.5, 2.0, 5.0, 3)
    assert (gd.setup.median, gd.solve.median, gd.memory_mb) == (0.5, 2.0, 101.0)
    tighter = found["bm_gd", 1e-4]  # inf, 3.5 and 7.5 s
    assert (tighter.total.median, tighter.total.low, tighter.total.high) == (7.5, 5.5, math.inf)
    assert (tighter.reached, tighter.solve.median) == (2, 5.0)
    never = found["bm_gd", 1e-6]
    assert (never.done, never.bound, never.reached) == (False, 4.5, 0)  # 4.5 s is all that is known
    # all tolerances together are one curve: the least time among those that reached the gap
    assert [found["cvxpy_scs", gap].total.median for gap in (1e-2, 1e-4, 1e-6)] == [2.25, 3.25, 6.25]
    assert {o.rung for o in found.values()} == {"spiral[n=9]"}


def test_quantiles_do_not_mix_numbers_with_infinity():
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, math.inf], 0.5) == math.inf
    assert quantile([1.0, 2.0, math.inf], 0.25) == 1.5
    assert math.isnan(quantile([], 0.5))
    values = list(np.random.default_rng(0).standard_normal(8))
    assert quantile(values, 0.25) == pytest.approx(np.quantile(values, 0.25))


def test_ratios_against_the_best_other_solver_by_hand():
    quick = [record("fista", seed, [(0.5, 1e-3), (1.5, 1e-7)]) for seed in range(3)]
    stuck = [record("bm_adam", seed, [(1.0, 0.3)], status="stalled") for seed in range(3)]
    found = solver_times([*ITERATIVE, *ONE_SHOT, *quick, *stuck])
    groups = {gap: group for (_, gap), group in by_rung(found).items()}
    first = lead(groups[1e-2])
    assert (first.best.solver, first.other.solver, first.factor, first.bounded) == ("fista", "cvxpy_scs", 2.25, False)
    assert {o.solver: o.ratio for o in groups[1e-2]} == {
        "bm_gd": 2.5, "cvxpy_scs": 2.25, "fista": 1.0, "bm_adam": math.inf,
    }  # fmt: skip
    # at 1e-6 scs took 6.25 s and gd was given 4.5 s: it may have come second at 4.5 s
    last = lead(groups[1e-6])
    assert (last.best.solver, last.other.solver, last.factor, last.bounded) == ("fista", "bm_gd", 2.25, True)
    rows = dict(matrix(found, 1e-2).rows())
    assert rows == {"bm_gd": "2.5x", "cvxpy_scs": "2.25x", "fista": "1.00 s", "bm_adam": "never"}
    assert dict(matrix(found, 1e-6).rows())["bm_gd"] == "> 2.25x"
    assert dict(matrix(found, 1e-6).rows())["cvxpy_scs"] == "3.12x"
    assert lead(groups[1e-2][3:]) is None
    alone = lead([o for o in groups[1e-2] if o.solver in ("fista", "bm_adam")])
    assert (alone.other, alone.factor) == (None, math.inf)


def test_what_was_not_reached_is_no_number():
    skipped = record("rival", 0, [], status="skipped", peak_memory_mb=None)
    broken = record("network_gd", 0, [], setup=None, status="crashed", peak_memory_mb=None)
    found = solver_times([*ITERATIVE, skipped, broken])
    shown = time_rows(found)["spiral[n=9]"]
    assert [row[0] for row in shown] == ["bm_gd", "network_gd"]
    assert shown[0][1:5] == ["2.50 [2.00, 5.00]", "7.50 [5.50, -] 2/3", "> 4.50", "0.500"]
    assert shown[1][1:5] == ["crashed", "crashed", "crashed", "-"]
    row = next(row for row in csv_rows(found) if (row["solver"], row["gap"]) == ("bm_gd", 1e-6))
    assert row["total_seconds_median"] is None
    assert (row["not_reached_in_seconds"], row["reached"], row["runs"]) == (4.5, 0, 3)
    assert "| bm_gd | 2.50 [2.00, 5.00] | 7.50 [5.50, -] 2/3 | > 4.50 | 0.500 | 101 |" in markdown(found)


@pytest.mark.slow
def test_the_command_writes_tables_and_figures(tmp_path, benchmark_module, monkeypatch, capsys):
    lines = [json.dumps(entry) for entry in (*ITERATIVE, *ONE_SHOT)]
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(sys, "argv", ["ladder.py", str(tmp_path), "--out", str(tmp_path / "out"), "--map", "1e-2"])
    benchmark_module("ladder").main()
    assert "> 4.50" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"ladder.csv", "ladder.md", "ladder.png", "ladder.svg", "map.png", "map.svg"}
    with (tmp_path / "out" / "ladder.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert [row["total_seconds_median"] for row in rows if row["solver"] == "bm_gd"] == ["2.5", "7.5", ""]
    monkeypatch.setattr(sys, "argv", ["ladder.py", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit, match="there are no records"):
        benchmark_module("ladder").main()


# -- figures ----------------------------------------------------------------------------------------------


def test_the_map_compares_the_best_of_both_sides(benchmark_module):
    figures = benchmark_module("ladder_figures")
    map_figure, map_ratio = figures.map_figure, figures.map_ratio
    slow = [record("bm_adam", 0, [(9.0, 1e-3)], formulation="burer_monteiro")]
    rival = [record("rival_scnn", 0, [(0.1, 1e-3)], setup=0.0)]
    found = solver_times([*ITERATIVE, *ONE_SHOT, *slow, *rival], (1e-2, 1e-4, 1e-6))
    groups = {gap: group for (_, gap), group in by_rung(found).items()}
    ratio, sign, names = map_ratio(groups[1e-2])
    assert (ratio, sign, names) == (2.25 / 2.5, "", "gd 2.50 s\nscs 2.25 s")  # rivals take no part
    ratio, sign, _ = map_ratio(groups[1e-6])
    assert (ratio, sign) == (6.25 / 4.5, "<")
    assert map_ratio(solver_times([record("bm_gd", 0, [(1.0, 1.0)], status="stalled")], (1e-2,)))[2] == "neither"
    drawn = [text.get_text() for text in map_figure(solver_times([*ITERATIVE, *ONE_SHOT], (1e-2,)), 1e-2).axes[0].texts]
    assert drawn == ["0.9x", "gd 2.50 s\nscs 2.25 s"]
    twice = [*ITERATIVE, record("bm_gd", 0, [(1.0, 1e-3)], problem="spiral[n=9,noise=0.2]")]
    with pytest.raises(cnn.InputError, match=r"several with \(9, 18, 3\)"):
        map_figure(solver_times(twice, (1e-2,)), 1e-2)


def test_the_matrix_has_shades_by_ratio_and_says_what_was_not_reached():
    later = [record("cvxpy_scs", 0, [(2.0, 1e-7)], setup=0.0, problem="spiral[n=12]")]
    lost = [record("fista", 0, [], setup=None, status="crashed", problem="spiral[n=12]")]
    quick = [record("fista", seed, [(0.5, 1e-3), (1.5, 1e-7)]) for seed in range(3)]
    one = matrix(solver_times([*ITERATIVE, *quick, *later, *lost]), 1e-4)
    assert (one.rungs, one.solvers) == (["spiral[n=9]", "spiral[n=12]"], ["bm_gd", "fista", "cvxpy_scs"])
    best, gd = one.squares["spiral[n=9]", "fista"], one.squares["spiral[n=9]", "bm_gd"]
    assert (best.text, best.detail, best.level, best.reached, best.best) == ("2.00 s", "3 runs", 1.0, True, True)
    assert (gd.text, gd.detail, gd.reached, gd.best) == ("3.75x", "7.50 s, 2/3", True, False)
    assert gd.level == pytest.approx(1 - math.log(3.75) / math.log(100))
    assert ("spiral[n=9]", "cvxpy_scs") not in one.squares
    assert one.squares["spiral[n=12]", "fista"].text == "crashed"
    assert one.rows() == [["bm_gd", "3.75x", "-"], ["fista", "2.00 s", "crashed"], ["cvxpy_scs", "-", "2.00 s"]]
    nobody = matrix(solver_times(ITERATIVE), 1e-6).squares["spiral[n=9]", "bm_gd"]
    assert (nobody.text, nobody.detail, nobody.reached, nobody.level) == ("> 4.50 s", "", False, 0.0)


def test_the_figure_of_the_matrix_has_the_colours_of_its_solvers_and_is_hatched_where_nothing_was_reached():
    quick = [record("fista", seed, [(1.5, 1e-7)]) for seed in range(3)]
    one = matrix(solver_times([*ITERATIVE, *quick]), 1e-6)
    axis = matrix_figure(one, FIXED).axes[0]
    assert [text.get_text() for text in axis.texts] == ["> 2.25x", "2.00 s"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["bm_gd", "fista"]
    hatched, filled, border = axis.patches
    assert (hatched.get_hatch(), filled.get_hatch()) == ("////", None)
    assert to_hex(filled.get_facecolor()).upper() == to_hex(border.get_edgecolor()).upper() == FIXED["fista"].colour


def test_the_terminal_shows_the_matrix_in_as_many_parts_as_it_needs():
    records = [record("fista", 0, [(1.0 + n, 1e-7)], problem=f"spiral[n={n}]") for n in range(9, 29)]
    console = Console(file=io.StringIO(), width=60, highlight=False)
    print_ladder(records, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 60
    shown = text[text.index("Time to 1e-06 over the best, by problem") :]
    heads = [line.split()[1:] for line in shown.splitlines() if re.match(r"solver +\d", line)]
    assert [number for head in heads for number in head] == [str(k) for k in range(1, 21)]
    assert len(heads) > 1
    assert "20. spiral[n=28]" in text


# -- power laws, counts and rates -------------------------------------------------------------------------


def test_a_power_law_is_found_again():
    exact = fit_power_law([1, 2, 4, 8], [3 * x**1.5 for x in (1, 2, 4, 8)])
    assert (exact.exponent, exact.factor) == (pytest.approx(1.5), pytest.approx(3.0))
    assert exact.error < 1e-12
    # residuals e, -e, -e, e of log y at equal steps h: slope unchanged, error = sqrt(4 e^2 / 2 / (5 h^2))
    e, h = 0.01, math.log(2)
    noisy = fit_power_law([1, 2, 4, 8], [x * math.exp(s * e) for x, s in ((1, 1), (2, -1), (4, -1), (8, 1))])
    assert noisy.exponent == pytest.approx(1.0)
    assert noisy.error == pytest.approx(math.sqrt(2 * e**2 / (5 * h**2)))
    assert noisy.high - noisy.exponent == pytest.approx(4.302653 * noisy.error, rel=1e-6)  # t(0.975, 2)
    for sizes, costs in (([1, 2], [1, 2]), ([1, 2, 2], [1, 2, 2]), ([1, 2, 4], [1, 0, 2]), ([1, 2, 4], [1, 2])):
        with pytest.raises(cnn.InputError, match=r"power law|positive"):
            fit_power_law(sizes, costs)
    axis = scaling_figure({"n": {"step": [(1, 3.0), (2, 6.0), (4, 12.0)]}}, "seconds").axes[0]
    assert axis.get_legend().get_texts()[0].get_text() == "step: 1.00  [1.00, 1.00]"


@pytest.mark.parametrize("width", [200, 110, 80, 60])
def test_no_number_is_cut_in_a_narrow_terminal(width):
    """Quartiles are left out where they do not fit, and names are folded; what is printed of a number is all of it."""
    name = "rival_scnn[path=True,lambdas=10]"
    records = [
        {**record(name, seed, [(1.25 + seed, 1e-7)], setup=0.125), "peak_memory_mb": 12345.0} for seed in range(3)
    ]
    console = Console(file=io.StringIO(), width=width, highlight=False)
    print_ladder(records, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "12345" in text
    times = re.findall(r"(?<![\w.>])2\.38(?: \[(\S+), (\S+)\])?", text)
    assert len(times) == 3 + 1  # in the table, and in the matrix
    quartiles = [pair for pair in times if pair[0]]
    assert quartiles == ([("1.88", "2.88")] * 3 if width >= 110 else [])
    assert ("[quartiles]" in text.replace("\n", " ")) == (width >= 110)


def test_the_counted_operations_are_those_that_torch_counts(benchmark_module):
    from torch.utils.flop_counter import FlopCounterMode

    cost, teacher = benchmark_module("iteration_cost"), benchmark_module("common").teacher
    n, P, m, d, c = 40, 6, 3, 5, 4
    operator = teacher(n, d, P, c).operator()
    Phi, D = operator.Phi, operator.masks.double()
    U, dU = torch.randn(2, P, d, m, dtype=torch.float64)
    V, dV = torch.randn(2, P, c, m, dtype=torch.float64)
    R, dR = torch.randn(2, n, c, dtype=torch.float64)

    def flat(blocks):
        return blocks.permute(1, 0, 2).reshape(blocks.shape[1], -1)

    def masked(rows):
        return (D[:, :, None] * rows.view(n, P, -1)).reshape(n, -1)

    def counted(call):
        with FlopCounterMode(display=False) as counter:
            return call(), counter.get_total_flops()

    def hidden(left):
        return masked(Phi @ flat(left))

    def adjoint(residual):
        return (Phi.T @ masked(residual.repeat(1, P))).view(d, P, c).permute(1, 0, 2)

    def apply(blocks):
        return masked(Phi @ flat(blocks)).view(n, P, c).sum(dim=1)

    H = hidden(U)

    def by_neurons():
        units = hidden(U)
        return units @ flat(V).T, Phi.T @ masked(R @ flat(V)), R.T @ units

    def by_blocks():
        z, G = apply(U @ V.mT), adjoint(R)
        return z, flat(G @ V), flat(G.mT @ U)

    def product_by_neurons():
        units = hidden(dU)
        z, back = units @ flat(V).T + H @ flat(dV).T, dR @ flat(V) + R @ flat(dV)
        return z, Phi.T @ masked(back), dR.T @ H + R.T @ units

    def product_by_blocks():
        G, dG = held, adjoint(dR)
        z = apply(dU @ V.mT + U @ dV.mT)
        left, right = dG @ V + G @ dV, dG.mT @ U + G.mT @ dU
        return z, flat(left), flat(right)

    held = adjoint(R)
    z, pulled = operator.factored(U, V)
    expected = z, *map(flat, pulled(R))
    for what, *calls in (
        (cost.EVALUATION, by_neurons, by_blocks),
        (cost.PRODUCT, product_by_neurons, product_by_blocks),
        (cost.CERTIFICATE, lambda: (hidden(U) @ flat(V).T, adjoint(R)), lambda: (apply(U @ V.mT), adjoint(R))),
    ):
        (first, flops), (second, other_flops) = map(counted, calls)
        torch.testing.assert_close(first, second)
        assert [flops, other_flops] == [stated for stated, _ in cost.ways(what, n=n, P=P, m=m, d=d, c=c)]
        if what == cost.EVALUATION:
            torch.testing.assert_close(first, expected)


def test_a_linear_rate_is_found_again(benchmark_module):
    convergence = benchmark_module("convergence_rate")
    trace = [(k, 0.1 * k, 5.0 * 0.8**k) for k in range(120)]
    assert convergence.rate(trace, 0)[0] == pytest.approx(math.log10(0.8))
    assert convergence.rate(trace, 1)[0] == pytest.approx(10 * math.log10(0.8))
    assert math.isnan(convergence.rate(trace[:5], 0)[0])


def test_the_benchmark_of_networks_standardises_by_the_training_part_and_counts_right_classes(benchmark_module):
    module = benchmark_module("bm_against_network")
    X, Y, X_test, Y_test, loss = module.split("wine[standardize=false]", 0)
    assert (len(X), len(Y), len(X_test), len(Y_test), loss) == (134, 134, 44, 44, "cross_entropy")
    np.testing.assert_allclose((X.mean(axis=0), X.std(axis=0)), (np.zeros(13), np.ones(13)), atol=1e-12)
    assert module.accuracy(Y_test, Y_test) == 1.0
    assert module.accuracy(np.array([[0.5], [-2.0], [1.0]]), np.array([[1.0], [-1.0], [-1.0]])) == pytest.approx(2 / 3)
