"""The user's plug-ins of every kind on the command line, and the note that their files are run as code."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from convexnn_bench.cli import app
from convexnn_bench.errors import InputError
from convexnn_bench.harness.campaign import Campaign
from convexnn_bench.harness.plan import plan
from convexnn_bench.plugins import KINDS, add_plugins, plugin_files

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
# The examples of CONTRIBUTING.md by the kind of plug-in, each with its name.
EXAMPLES = {
    "solvers": "ista", "losses": "log_cosh", "architectures": "bags", "activations": "axis_gated", "datasets": "rings",
}  # fmt: skip


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def plugins(tmp_path):
    """A folder with the examples of CONTRIBUTING.md; the registries are put back afterwards."""
    before = {kind: (dict(registry.classes), list(registry._folders)) for kind, registry in KINDS.items()}
    blocks = re.findall(r"^`\S*?(\w+)\.py`:\n\n```python\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    texts = dict(blocks)
    for kind, name in EXAMPLES.items():
        folder = tmp_path / "mine" / kind
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(texts[name])
    yield tmp_path / "mine"
    for kind, registry in KINDS.items():
        registry._classes, registry._folders = before[kind]


def test_list_shows_plugins_of_every_kind(plugins):
    done = command("list", "--plugins-dir", plugins)
    assert done.exit_code == 0, done.output
    assert [name for name in EXAMPLES.values() if name not in done.output] == []
    assert "two rings in the plane" in done.output


def test_certify_takes_a_loss_of_ones_own(plugins, tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)).double()
    torch.save(module.state_dict(), tmp_path / "m.pt")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", X=rng.standard_normal((6, 2)), Y=rng.standard_normal(6))
    asked = ("certify", tmp_path / "m.pt", tmp_path / "d.npz", "--weight-decay", 0.1, "--loss", "log_cosh")
    assert "unknown loss 'log_cosh'" in command(*asked).stderr
    done = command(*asked, "--plugins-dir", plugins, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["loss"].startswith("log_cosh")
    assert 0 <= report["dual"] <= report["primal"]


def test_layerwise_takes_a_data_set_of_ones_own(plugins, tmp_path):
    """The data set is registered. It has no images, so that an error comes before any training."""
    asked = ("layerwise", "--dataset", "rings", "--out", tmp_path / "out")
    assert "unknown data set 'rings'" in command(*asked).stderr
    done = command(*asked, "--plugins-dir", plugins)
    assert done.exit_code == 2
    assert "rings" in done.stderr
    assert "unknown" not in done.stderr


@pytest.mark.process
def test_a_campaign_of_plugins_alone(plugins, tmp_path):
    """A user's solver, data set, loss and activation work in the process of a cell."""
    file = tmp_path / "mine.toml"
    file.write_text(
        f'plugins_dir = "{plugins}"\nsolvers = ["ista", "bm_gd"]\ntime_limit = 30\niterations = 20\ngap = 1e-2\n'
        'datasets = ["rings[n=12]"]\n[problem]\nloss = "log_cosh"\nactivation = "axis_gated"\nbeta_fraction = 0.2\n'
    )
    out = tmp_path / "out"
    dry = command("run", file, "--out", out, "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    assert f"note: these files are run as code (plugins_dir, named by {file}): " in dry.stderr
    assert all(f"{name}.py" in dry.stderr for name in EXAMPLES.values())
    assert not out.exists()
    done = command("run", file, "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    assert "note: these files are run as code" in done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(record["solver"], record["dataset"]) for record in records] == [("ista", "rings"), ("bm_gd", "rings")]
    assert {(record["problem"]["loss"], record["problem"]["activation"]) for record in records} == {
        ("log_cosh", "axis_gated")
    }
    assert all(record["gap"] >= 0 for record in records)
    # the table of the same records, for other programs
    rows = list(csv.DictReader(io.StringIO(command("report", out, "--csv").stdout)))
    assert [(row["solver"], float(row["beta_fraction"])) for row in rows] == [("ista", 0.2), ("bm_gd", 0.2)]
    assert [float(row["gap"]) for row in rows] == [record["gap"] for record in records]
    latex = command("report", out, "--latex").stdout
    assert latex.count(r"\\") == 3  # titles and two solvers
    assert r"bm\_gd & " in latex
    files = sorted(path.name for path in out.iterdir())
    assert files == ["finished.json", "records.jsonl", "records.parquet"]  # no page, no figures
    assert command("report", out, "--csv", "--latex").exit_code == 2


def test_dry_run_says_what_it_runs_before_it_does(tmp_path):
    """The note is printed on stderr before a file is imported, whether a campaign or the user named its folder."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "speaks.py").write_text("import sys\nprint('RUN', file=sys.stderr)\nraise ValueError('stop')\n")
    for arguments in (["--solvers-dir", folder], ["--plugins-dir", tmp_path / "kinds"]):
        if "--plugins-dir" in arguments:
            (tmp_path / "kinds").mkdir()
            folder.rename(tmp_path / "kinds" / "losses")
        done = command("run", "--dataset", "spiral[n=9]", "--solver", "fista", "--dry-run", *arguments)
        assert done.exit_code == 2
        note, rest = done.stderr.split("RUN")
        assert "note: these files are run as code" in note
        assert "named on the command line" in note
        assert "speaks.py" in note
        assert "does not load: ValueError: stop" in rest


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["loses/mine.py"], "'loses' is none of its subfolders solvers, datasets, losses, activations, architectures"),
        (["mine.py", "losses/x.py"], "'mine.py' is none of its subfolders"),
        (["README.txt"], "has none of the subfolders"),
    ],
)
def test_folders_that_would_be_left_out(files, words, tmp_path):
    for file in files:
        (tmp_path / "p" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / file).write_text("")
    with pytest.raises(InputError, match=words):
        add_plugins(plugins_dir=tmp_path / "p")
    done = command("run", "--dataset", "spiral[n=9]", "--solver", "fista", "--plugins-dir", tmp_path / "p")
    assert done.exit_code == 2
    assert words in done.stderr
    assert command("list", "--plugins-dir", tmp_path / "nowhere").exit_code == 2


def test_a_folder_in_a_campaign_file_is_named_with_its_line(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('datasets = ["spiral[n=9]"]\nsolvers = ["fista"]\nplugins_dir = "no/such"\n')
    done = command("run", file, "--dry-run")
    assert done.exit_code == 2
    assert f"{file}, line 3: plugins folder 'no/such' is not a directory" in done.stderr


def test_the_key_of_a_cell_knows_the_code_of_plugins(plugins):
    """A changed loss gives another key. Each solver has its own hash, which other solver files do not change."""
    campaign = Campaign(
        datasets=["rings[n=12]"], solvers=["ista"], problem={"loss": "log_cosh", "beta_fraction": 0.1},
        plugins_dir=str(plugins),
    )  # fmt: skip
    (before,) = plan(campaign)
    (plugins / "notes.txt").write_text("nothing that is imported")
    assert plan(campaign)[0].key == before.key
    (plugins / "losses" / "_helper.py").write_text("x = 1\n")
    (other,) = plan(campaign)
    assert other.key != before.key
    assert "_helper.py" not in [file.name for file in plugin_files(None, plugins)]  # imported by others, if at all
