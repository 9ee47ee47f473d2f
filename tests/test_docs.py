"""The documentation builds without a warning, its Python runs as printed, and what it names exists."""

import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import axe_core_python
import pytest
from filelock import FileLock
from typer.testing import CliRunner

import convexnn_bench as cnn
from convexnn_bench.cli import app

pytestmark = pytest.mark.docs

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts and path.stem != "plugins")
WITH_PYTHON = [page for page in PAGES if "```python\n" in page.read_text()]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation, built once for all workers: its folder of pages, and what Sphinx wrote."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    copied, told = shared / "site", shared / "site.json"
    with FileLock(shared / "site.lock"):
        if not told.exists():
            for name in ("docs", "notebooks", "convexnn_bench", "solvers"):
                ignored = shutil.ignore_patterns("_build", "__pycache__", ".*")
                shutil.copytree(ROOT / name, copied / name, ignore=ignored, dirs_exist_ok=True)
            for name in ("CONTRIBUTING.md", "pyproject.toml", "verify_proof.py"):
                shutil.copy(ROOT / name, copied)
            command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "site"]
            done = subprocess.run(command, cwd=copied, capture_output=True, text=True, check=False)
            told.write_text(json.dumps([done.returncode, done.stderr]))
    return copied / "site", json.loads(told.read_text())


def test_the_site_is_built_without_a_warning(site):
    folder, told = site
    assert told == [0, ""]
    for page in ("index", "reference", "notebooks/03_certificates", "howto/extend"):
        assert (folder / f"{page}.html").stat().st_size > 10_000
    assert "cvxpy_clarabel" in (folder / "plugins.html").read_text()


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_python_blocks_of_a_page_run_in_order(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a page may save files
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, page.name, "exec"), names)
    assert capsys.readouterr().out


def test_the_reference_lists_all_that_is_exported():
    text = (ROOT / "docs/reference.md").read_text()
    listed = set(re.findall(r"convexnn_bench\.(\w+)$", text, re.MULTILINE)) | set(re.findall(r"cnn\.(\w+)", text))
    assert set(cnn.__all__) - listed == {"__version__"}


def test_there_are_pages_with_python():
    assert len(WITH_PYTHON) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_commands_and_options_that_a_page_names_exist(page):
    for line in re.findall(r"^convexnn-bench .*$", page.read_text(), re.MULTILINE):
        words = line.partition("  #")[0].split()
        helped = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "200"})
        assert helped.exit_code == 0, line
        for option in re.findall(r"(?<!\S)--[a-z-]+", line.partition("  #")[0]):
            assert option in helped.output, (line, option)
    for script in re.findall(r"python (benchmarks/\w+\.py|notebooks/\w+\.py)", page.read_text()):
        assert (ROOT / script).is_file(), script


# -- in a browser ---------------------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = Path(axe_core_python.__file__).with_name("axe.min.js")
# Opens each page in a frame of the given width. It tells which blocks of code are cut, whether the page is wider than
# its frame, what it asks of other servers, and what axe finds about contrasts, labels, names and alternative texts.
LOOK = """<!doctype html><body><script type="module">
const found = {};
for (const [page, width, axe] of PAGES) {
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 900; frame.src = page;
  await new Promise(loaded => { frame.onload = loaded; document.body.append(frame); });
  const inside = frame.contentDocument, told = found[`${page} at ${width}`] = {};
  told.cut = [...inside.querySelectorAll("article pre")].filter(block => block.scrollWidth > block.clientWidth + 1)
    .map(block => block.textContent.slice(0, 120));
  told.wide = Math.max(0, inside.documentElement.scrollWidth - width);
  told.elsewhere = frame.contentWindow.performance.getEntriesByType("resource").map(one => one.name)
    .filter(name => !name.startsWith(location.origin) && !name.startsWith("data:"));
  if (axe) {
    const script = inside.createElement("script");
    script.src = "/axe.min.js";
    await new Promise(loaded => { script.onload = loaded; inside.body.append(script); });
    const runOnly = ["cat.color", "cat.forms", "cat.name-role-value", "cat.text-alternatives"];
    const rules = { "color-contrast-enhanced": { enabled: false } };  // 7:1, level AAA
    const result = await frame.contentWindow.axe.run(inside, { runOnly, rules, resultTypes: ["violations"] });
    told.axe = result.violations.map(one => [one.id, one.nodes.length, one.nodes[0].html.slice(0, 200)]);
  }
  frame.remove();
}
const out = document.createElement("pre");
out.id = "found"; out.textContent = JSON.stringify(found);
document.body.append(out);
</script>
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *arguments):
        """Say nothing of requests."""


@pytest.mark.process
@pytest.mark.skipif(BROWSER is None, reason="needs a browser to open the pages in: install chromium")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_in_a_browser_no_code_is_cut_and_axe_finds_no_fault(site, tmp_path, dark):
    folder = tmp_path / "pages"
    shutil.copytree(site[0], folder)
    shutil.copy(AXE, folder)
    pages = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.html") if "_modules" not in path.parts)
    assert len(pages) > 40
    seen = ("index.html", "tutorial.html", "benchmarks.html", "see_it.html", "notebooks/08_your_own_network.html")
    looks = [(page, 1440, page in seen) for page in pages if not dark or page in seen]
    looks += [(page, 420, False) for page in seen if not dark]
    (folder / "look.html").write_text(LOOK.replace("PAGES", json.dumps(looks)))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=600000", "--dump-dom"]
    own = [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={tmp_path / 'profile'}"]
    address = f"http://127.0.0.1:{server.server_port}/look.html"
    try:
        dom = subprocess.run([BROWSER, *options, *own, address], capture_output=True, text=True, check=True).stdout
    finally:
        server.shutdown()
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL).group(1)))
    assert len(found) == len(looks)
    assert {page: told["axe"] for page, told in found.items() if told.get("axe")} == {}
    assert {page: told["elsewhere"] for page, told in found.items() if told["elsewhere"]} == {}
    assert {page: told["cut"] for page, told in found.items() if told["cut"] and page.endswith("1440")} == {}
    assert {page: told["wide"] for page, told in found.items() if told["wide"]} == {}
