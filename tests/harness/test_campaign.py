"""Campaigns: what a file may say, what is refused before anything runs, the grid, and going on where one stopped."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from harness_fixtures import solvers_from

import convexnn_bench as cnn
from convexnn_bench.harness import campaign as campaign_module
from convexnn_bench.harness.campaign import Campaign, find_campaign, load_campaign, shipped_names
from convexnn_bench.harness.cell_run import blank_record
from convexnn_bench.harness.execute import run_campaign
from convexnn_bench.harness.plan import plan
from convexnn_bench.harness.repeat import cell_again, cell_campaign
from convexnn_bench.plugins import parse_spec
from convexnn_bench.plugins.registry import DATASETS, SOLVERS
from convexnn_bench.records.records import RecordFile
from convexnn_bench.statuses import STATUSES


class Watcher:
    """Observer that keeps what it is told."""

    def __init__(self):
        self.notes, self.ran, self.records, self.known = [], [], [], None

    def planned(self, cells, known):
        self.known = known

    def note(self, text):
        self.notes.append(text)

    def started(self, cell):
        self.ran.append(cell.solver_name)

    def message(self, cell, kind, content):
        pass

    def finished(self, record):
        self.records.append(record)


def written(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def planned(tmp_path, text):
    return plan(*load_campaign(written(tmp_path, text)))


GOOD = 'datasets = ["spiral[n=9]"]\nsolvers = ["fista"]\n'


def test_grid_of_data_sets_problem_parameters_solvers_and_seeds(tmp_path):
    cells = planned(
        tmp_path,
        """
        datasets = ["spiral[n=[9,12],beta=0.5]", "wine"]
        solvers = ["bm_lbfgs[m=[1,2]]", "fista"]
        seeds = 2
        time_limit = 3
        [problem]
        beta_fraction = [0.01, 0.1]
        """,
    )
    problems = list(dict.fromkeys(cell.problem_name for cell in cells))
    assert problems == [
        "spiral[beta=0.5,n=9]",
        "spiral[beta=0.5,n=12]",
        "wine[beta_fraction=0.01]",
        "wine[beta_fraction=0.1]",
    ]
    assert [cell.solver_name for cell in cells[:6:2]] == ["bm_lbfgs[m=1]", "bm_lbfgs[m=2]", "fista"]
    assert (len(cells), {cell.seed for cell in cells}) == (24, {0, 1})
    assert cells[0].limits.time_limit == 3
    assert cells[0].limits.wall_seconds == 16
    assert cells[0].dataset_parameters == {**DATASETS.get("spiral").parameters, "n": 9}
    assert len({cell.key for cell in cells}) == 24


def test_the_share_that_is_held_out_belongs_to_the_problem(tmp_path):
    """It is swept and inherited like a weight decay, its seed is that of the draw, and a report repeats it."""
    (tmp_path / "own.csv").write_text("a,y\n" + "\n".join(f"{k},{k * k % 7}" for k in range(20)))
    own = f"file[path={tmp_path / 'own.csv'},patterns=2]"
    text = f"""
        datasets = ["spiral[n=30,test=[0.1,0.2]]", "{own}"]
        solvers = ["fista"]
        seeds = 2
        fresh_data = true
        [problem]
        test = 0.3
        """
    cells = planned(tmp_path, text)
    split = [(cell.problem_parameters["test"], cell.problem_parameters["test_seed"]) for cell in cells]
    assert split == [(0.1, 0), (0.2, 0), (0.1, 1), (0.2, 1), (0.3, 0), (0.3, 1)]
    assert len({cell.key for cell in cells}) == 6
    for cell in cells[-2:]:
        assert planned(tmp_path, cell_campaign(blank_record(cell)))[0].key == cell.key
    first, second = (cnn.make_problem(cell.dataset, **cell.problem_arguments) for cell in cells[-2:])
    assert len(first.held_out.X) == len(second.held_out.X) == 6
    assert sorted(first.held_out.X[:, 0]) != sorted(second.held_out.X[:, 0])


def test_a_limit_in_iterations_belongs_to_the_cell(tmp_path):
    """It is part of the key, a part may set another one, and a report's command repeats it."""
    text = GOOD + "time_limit = 600\niterations = 7\n[[part]]\n[[part]]\niterations = 9\n"
    seven, nine = planned(tmp_path, text)
    (none,) = planned(tmp_path, GOOD + "time_limit = 600\n")
    assert [cell.limits.iterations for cell in (seven, nine, none)] == [7, 9, None]
    assert len({cell.key for cell in (seven, nine, none)}) == 3
    for cell in (seven, none):
        again = cell_again(blank_record(cell))
        assert ("--iterations 7" in again) == (cell is seven)
    fresh = cell_campaign(blank_record(nine))
    assert planned(tmp_path, fresh)[0].key == nine.key
    # Records of earlier versions do not say that they had no such limit.
    old = blank_record(none)
    del old["limits"]["iterations"]
    assert cell_again(old) == cell_again(blank_record(none))


def test_verified_bounds_belong_to_the_cell(tmp_path):
    """They are part of the key, and a report's command or campaign repeats them."""
    yes, no = planned(tmp_path, GOOD + "verified = true\n[[part]]\n[[part]]\nverified = false\n")
    assert (yes.limits.verified, no.limits.verified) == (True, False)
    assert yes.key != no.key
    for cell in (yes, no):
        assert ("--verified" in cell_again(blank_record(cell))) == (cell is yes)
        assert planned(tmp_path, cell_campaign(blank_record(cell)))[0].key == cell.key
    old = blank_record(no)
    del old["limits"]["verified"]
    assert cell_again(old) == cell_again(blank_record(no))
    with pytest.raises(cnn.InputError, match="verified must be true or false"):
        planned(tmp_path, GOOD + "verified = 1\n")


@pytest.mark.process
def test_a_campaign_with_a_limit_in_iterations_repeats_its_bits(tmp_path):
    solvers = ["bm_adam", "network_sgd", "bm_newton"]
    asked = Campaign(datasets=["spiral[n=9]"], solvers=solvers, gap=1e-12, iterations=5, time_limit=600.0)
    first, second = (run_campaign(asked, tmp_path / name, Watcher()).records for name in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        assert one["limits"]["iterations"] == 5
        assert one["solver"] == "bm_newton" or one["reason"].startswith("stopped after 5 iterations")
        for name in ("status", "objective", "lower_bound", "gap", "max_dual_norm"):
            assert one[name] == other[name]
        assert [point[1:] for point in one["curve"]] == [point[1:] for point in other["curve"]]


def test_the_same_cell_asked_for_twice_is_one_cell(tmp_path):
    assert (
        len(planned(tmp_path, 'datasets = ["spiral[n=9]", "spiral[n=9,noise=0.1]"]\nsolvers = ["fista", "fista"]')) == 1
    )


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (GOOD + 'solverz = ["fista"]', "line 3", "unknown key 'solverz': did you mean 'solvers'?"),
        (GOOD + 'time_limit = "ten"', "line 3", "time_limit must be a number of seconds, got 'ten'"),
        (GOOD + "time_limit = 0", "line 3", "time_limit must be positive and finite, got 0.0"),
        (GOOD + "gap = -1e-3", "line 3", "gap must be positive"),
        (GOOD + "gap = nan", "line 3", "gap must be positive and finite, got nan"),
        (GOOD + "seeds = 0", "line 3", "seeds must be at least 1"),
        (GOOD + "seeds = true", "line 3", "seeds must be a number of seeds"),
        (GOOD + "threads = 0", "line 3", "threads must be at least 1"),
        (GOOD + 'device = "gpu"', "line 3", "device must be 'cpu', 'cuda' or 'cuda:0', got 'gpu'"),
        (GOOD + 'name = "a/b"', "line 3", "must hold letters"),
        (GOOD + 'name = ".."', "line 3", "with '.', got '..'"),
        (GOOD + "[problem]\nbetta = 1.0", "line 4", "[problem] has no key 'betta': did you mean 'beta'?"),
        (GOOD + "[problem]\nbeta = -1.0", "line 4", "beta must be a positive finite number, got -1.0"),
        (GOOD + "[problem]\nbeta_fraction = []", "line 4", "beta_fraction=[] sweeps over nothing"),
        (GOOD + "[problem]\ntest = 1", "line 4", "test must be a number above 0 and below 1, got 1"),
        (GOOD + "[problem]\nactivation = ['relu', 'foo']", "line 4", "unknown activation 'foo'"),
        (GOOD + "solvers_dir = 'no/such'", "line 3", "solver folder 'no/such' is not a directory"),
        (
            GOOD + "time_limit = 60\ndeadline = 5",
            "line 4",
            "deadline is 5 s, but solving alone may take time_limit = 60 s",
        ),
        (GOOD + "seeds = 3000000", "line 3", "seeds must be at most 100000, got 3000000"),
        (
            GOOD + "[problem]\nbeta = 1.0\nbeta_fraction = 0.1",
            "line 5",
            "[problem] has both beta and beta_fraction: give one of them",
        ),
        (
            'datasets = ["spiral"]\nsolvers = ["bm_lbfgz"]',
            "line 2",
            "unknown solver 'bm_lbfgz': did you mean 'bm_lbfgs'?",
        ),
        (
            'datasets = ["spiral"]\nsolvers = ["bm_lbfgs[k=1]"]',
            "line 2",
            "has no parameter 'k'; it has: m, finish, history",
        ),
        (
            'datasets = ["spiral"]\nsolvers = [\n"fista",\n"bm_lbfgs[m=[2,-1]]"]',
            "line 4",
            "solver 'bm_lbfgs': m must be a whole number",
        ),
        ('datasets = ["spiral"]\nsolvers = ["cvxpy_scs[max_iters=x]"]', "line 2", "max_iters must be a whole number"),
        ('datasets = ["spiral[pattern_seed=-1]"]\nsolvers = ["fista"]', "line 1", "pattern_seed must be a whole"),
        ('datasets = ["spiral"]\nsolvers = ["bm_lbfgs[m=[]]"]', "line 2", "m=[] sweeps over nothing"),
        ('datasets = ["spiral"]\nsolvers = ["bm_lbfgs[m"]', "line 2", "cannot read 'bm_lbfgs[m'"),
        ('datasets = [\n "wine",\n "spirel",\n]\nsolvers = ["fista"]', "line 3", "did you mean 'spiral'?"),
        (
            'datasets = ["spiral[m=3]"]\nsolvers = ["fista"]',
            "line 1",
            "data set 'spiral' has no parameter 'm'",
        ),
        (
            'datasets = ["spiral[patterns=0]"]\nsolvers = ["fista"]',
            "line 1",
            'patterns must be "all" or a positive',
        ),
        ('datasets = ["spiral[loss=hinge]"]\nsolvers = ["fista"]', "line 1", "unknown loss 'hinge'"),
        ("datasets = []\nsolvers = ['fista']", "line 1", "datasets is empty"),
        ('datasets = "spiral"\nsolvers = ["fista"]', "line 1", "datasets must be a list of names"),
        ('datasets = ["spiral"', "", "is not valid TOML"),
    ],
)
def test_bad_campaigns_are_refused_with_line_value_and_what_is_allowed(tmp_path, text, place, words):
    with pytest.raises(cnn.InputError) as caught:
        planned(tmp_path, text)
    message = str(caught.value)
    assert "mine.toml" in message
    assert place in message
    assert words in message


def test_a_campaign_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("convexnn_bench.harness.plan.MOST_CELLS", 5)
    assert len(planned(tmp_path, GOOD + "seeds = 5")) == 5
    with pytest.raises(cnn.InputError, match=r"line 3: the campaign has more than 5 cells: ask for fewer seeds"):
        planned(tmp_path, GOOD + "seeds = 3\n[problem]\nbeta = [1.0, 2.0]")


@pytest.mark.process
def test_more_threads_than_cores_are_told(tmp_path):
    told = Watcher()
    run_campaign(Campaign(datasets=["spiral[n=9]"], solvers=["fista"], gap=0.5, threads=1000), tmp_path, told)
    assert [text for text in told.notes if text.startswith("warning: cells take 1000 threads, but")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("iris.data", b"5.1,3.5,1.4,0.2,Iris-setosa\n"),
        ("my table.csv", b"a,b,y\n1,2,3\n"),
        ("arrays.npz", b"PK\x03\x04\xff\xfe"),
        ("none.csv", None),
    ],
)
def test_a_file_of_data_in_the_place_of_a_campaign_gets_the_way_to_give_it(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(cnn.InputError) as caught:
        load_campaign(find_campaign(name))
    (spec,) = shlex.split(str(caught.value).split("a file of data is given by --dataset ")[1])
    assert parse_spec(spec) == ("file", {"path": name})


def test_campaigns_are_found_by_name_and_path(tmp_path):
    assert find_campaign("quickstart").name == "quickstart.toml"
    path = written(tmp_path, GOOD)
    assert find_campaign(str(path)) == path
    with pytest.raises(cnn.InputError, match="unknown campaign 'quikstart': did you mean 'quickstart'"):
        find_campaign("quikstart")
    with pytest.raises(cnn.InputError, match="there is no campaign file"):
        find_campaign("mein.toml")
    with pytest.raises(cnn.InputError, match=r"is a directory, not a campaign file"):
        find_campaign(str(tmp_path))


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_campaigns_are_valid(name):
    campaign, source = load_campaign(find_campaign(name))
    assert campaign.description
    assert plan(campaign, source)


def test_the_file_in_the_documentation_is_valid(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "campaigns.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    cells = planned(tmp_path, text)
    assert len(cells) == 5 * 4 * 3
    for name in shipped_names():
        assert f"`{name}`" in page
    for key in (*campaign_module.KEYS, *STATUSES):
        assert key in page, key


def test_quickstart_is_four_problems_under_five_solvers():
    cells = plan(*load_campaign(find_campaign("quickstart")))
    assert (len(cells), len({cell.problem_name for cell in cells})) == (20, 4)
    assert {cell.dataset for cell in cells} == {"spiral", "breast_cancer", "digits"}


@pytest.mark.process
def test_an_impossible_problem_is_refused_before_anything_runs(tmp_path):
    path = written(tmp_path, 'datasets = [\n "spiral[n=9]",\n "spiral[n=2]"]\nsolvers = ["fista"]')
    campaign, source = load_campaign(path)
    watcher = Watcher()
    with pytest.raises(cnn.InputError, match=r"mine.toml, line 3: .*n must be a whole number, at least 3, got 2"):
        run_campaign(campaign, tmp_path / "out", watcher, source)
    assert watcher.ran == []
    assert not (tmp_path / "out").exists()


@pytest.mark.process
def test_too_many_patterns_are_refused_with_a_way_out(tmp_path):
    campaign = Campaign(datasets=["digits[patterns=all]"], solvers=["fista"])
    with pytest.raises(cnn.InputError, match=r"digits.*cannot be built") as caught:
        run_campaign(campaign, tmp_path / "out", Watcher())
    assert "patterns" in str(caught.value)


@pytest.mark.process
def test_every_cell_has_one_record_and_a_second_run_does_nothing(tmp_path):
    with solvers_from(tmp_path / "bad", "zero", "exits", "skips") as folder:
        campaign = Campaign(
            name="mixed",
            datasets=["spiral[n=9]", "mnist5k[n=20]"],
            solvers=["zero", "exits", "skips"],
            time_limit=60.0,
            solvers_dir=folder,
        )
        first = Watcher()
        done = run_campaign(campaign, tmp_path / "out", first)
        lines = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
        second = Watcher()
        again = run_campaign(campaign, tmp_path / "out", second)
    by_cell = {(record["dataset"], record["solver"]): record for record in lines}
    assert len(lines) == len(by_cell) == len(done.records) == 6
    assert by_cell["spiral", "exits"]["status"] == "crashed"
    assert by_cell["spiral", "skips"]["status"] == "skipped"
    assert "P = 18" in by_cell["spiral", "skips"]["reason"]
    if DATASETS.get("mnist5k").unavailable():
        assert by_cell["mnist5k", "zero"]["status"] == "skipped"
        assert "pip install" in by_cell["mnist5k", "zero"]["reason"]
        assert first.ran == ["zero", "exits"]  # a cell that is skipped starts no process
    assert (second.ran, second.known, again.known) == ([], 6, 6)
    assert again.records == done.records
    assert (tmp_path / "out" / "records.parquet").is_file()


@pytest.mark.process
def test_only_cells_without_a_record_are_run(tmp_path):
    with solvers_from(tmp_path / "bad", "zero", "exits") as folder:
        campaign = Campaign(datasets=["spiral[n=9]"], solvers=["zero", "exits"], time_limit=60.0, solvers_dir=folder)
        out = tmp_path / "out"
        run_campaign(campaign, out, Watcher())
        file = RecordFile(out / "records.jsonl")
        lines = file.path.read_bytes().splitlines(keepends=True)
        file.path.write_bytes(lines[0] + lines[1][:25])  # a loss of power in the middle of the second record
        watcher = Watcher()
        done = run_campaign(campaign, out, watcher)
        assert watcher.ran == ["exits"]
        assert any("not a whole record" in note for note in watcher.notes)
        assert [record["solver"] for record in done.records] == ["zero", "exits"]
        longer = Campaign(datasets=["spiral[n=9]"], solvers=["zero"], time_limit=90.0, solvers_dir=folder)
        watcher = Watcher()
        run_campaign(longer, out, watcher)
        assert watcher.ran == ["zero"]  # a record under other limits is no answer
        assert len(file.read()[0]) == 3


def test_a_folder_of_solvers_that_does_not_load_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    campaign = Campaign(datasets=["spiral[n=9]"], solvers=["fista"], solvers_dir=str(tmp_path))
    with pytest.raises(cnn.RegistryError, match=r"broken.py does not load: ModuleNotFoundError"):
        plan(campaign)
    with pytest.raises(cnn.InputError, match="not a directory"):
        plan(Campaign(datasets=["spiral"], solvers=["fista"], solvers_dir=str(tmp_path / "none")))


def test_a_solver_that_raises_while_it_is_made_is_named(tmp_path):
    with solvers_from(tmp_path / "bad", "zero") as folder:
        cls = SOLVERS.get("zero")
        cls.__init__ = lambda self, **_: 1 / 0
        with pytest.raises(cnn.InputError, match=r"solver 'zero' refuses its parameters: ZeroDivisionError"):
            plan(Campaign(datasets=["spiral[n=9]"], solvers=["zero"], solvers_dir=folder))


@pytest.mark.process
def test_without_pandas_the_records_stay(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with solvers_from(tmp_path / "bad", "zero") as folder:
        campaign = Campaign(datasets=["spiral[n=9]"], solvers=["zero"], time_limit=60.0, solvers_dir=folder)
        done = run_campaign(campaign, tmp_path / "out", Watcher())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["records.jsonl"]
    assert "pip install pandas pyarrow" in done.complaint
    assert len(done.records) == 1


@pytest.mark.process
def test_cuda_without_a_device_is_refused(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    campaign = Campaign(datasets=["spiral[n=9]"], solvers=["fista"], device="cuda")
    with pytest.raises(cnn.InputError, match="torch sees no CUDA device"):
        run_campaign(campaign, tmp_path, Watcher())
