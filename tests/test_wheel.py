"""A wheel holds the whole package, and works where there is no checkout."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.process


def run(*command, folder, **environment):
    """Run a command in a folder; return what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from the sdist, as for a release."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "hatchling", "build", "-t", "sdist", "-d", folder, folder=ROOT)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source = next(path for path in folder.iterdir() if path.is_dir())
    run("-m", "hatchling", "build", "-t", "wheel", "-d", folder, folder=source)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A function that runs Python with the installed wheel, outside the checkout."""
    site, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    run("-m", "pip", "install", "--no-index", "--no-deps", "--target", site, wheel, folder=elsewhere)

    def python(*command):
        # PYTHONPATH comes before an editable install of the checkout
        return run(*command, folder=elsewhere, PYTHONPATH=str(site), OMP_NUM_THREADS="1")

    where = "import convexnn_bench, pathlib; print(pathlib.Path(convexnn_bench.__file__).parent)"
    assert Path(python("-c", where).strip()) == site / "convexnn_bench"
    return python


def sources(folder):
    """The files of a folder of the checkout that belong into the wheel."""
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_the_wheel_holds_every_file_of_the_package_and_the_solvers(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    copies = {f"convexnn_bench/{name}" for name in sources("solvers")} | {"convexnn_bench/proofs/verify_proof.py"}
    assert held == sources("convexnn_bench") | copies
    for name in ("py.typed", "__main__.py", "campaigns/quickstart.toml", "rivals/run_scnn.py", "solvers/bm_newton.py"):
        assert f"convexnn_bench/{name}" in held
    assert any(name.endswith("page.html.jinja") for name in held)


def test_the_wheel_says_which_version_and_licence_it_has(wheel):
    import convexnn_bench

    assert wheel.name == f"convexnn_bench-{convexnn_bench.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        about = next(name for name in archive.namelist() if name.endswith("METADATA"))
        text = archive.read(about).decode()
        assert f"\nVersion: {convexnn_bench.__version__}\n" in text
        assert "\nLicense-Expression: BSD-3-Clause\n" in text
        assert f"{about.rpartition('/')[0]}/licenses/LICENSE" in archive.namelist()


def test_an_installed_wheel_lists_what_the_checkout_registers(installed):
    import convexnn_bench as cnn

    shown = installed("-m", "convexnn_bench", "list")
    for name in [*cnn.SOLVERS.names(), *cnn.DATASETS.names(), "quickstart", "ladder"]:
        assert name in shown


def test_an_installed_wheel_runs_cells_of_the_quickstart_and_reports_them(installed):
    cells = ["--dataset", "spiral[targets=binary,activation=relu]", "--solver", "cvxpy_clarabel"]
    cells += ["--solver", "bm_lbfgs"]
    limits = ["--gap", "1e-3", "--time-limit", "30"]
    shown = installed("-m", "convexnn_bench", "run", "quickstart", *cells, *limits, "--out", "out", "--json")
    records = [json.loads(line) for line in shown.splitlines()]
    assert [record["solver"] for record in records] == ["cvxpy_clarabel", "bm_lbfgs"]
    assert records[0]["status"] == "gap_reached"
    assert records[1]["status"] in ("gap_reached", "time_limit")  # the machine may be busy
    (campaign,) = {record["campaign"] for record in records}
    assert campaign.startswith("quickstart-spiral-cvxpy_clarabel-bm_lbfgs-")
    assert all(record["machine"]["commit"] is None for record in records)
    installed("-m", "convexnn_bench", "report", "out")
    page = "import pathlib; print(pathlib.Path('out/report.html').read_text().count('bm_lbfgs'))"
    assert int(installed("-c", page)) > 0
