"""The page "See it" and its command: offline, readable, correct in a browser, usable by keyboard and finger."""

import html
import json
import re
import shutil
import subprocess
import sys
import webbrowser
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_house_style import contrast
from typer.testing import CliRunner

from convexnn_bench.cli import app
from convexnn_bench.house_style import DARK, PINK, SHADES, WHITE, style
from convexnn_bench.playground import page_text, write_page
from convexnn_bench.playground.page import FOLDER, HUES, SCRIPTS

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 120_000  # bytes of the page
OUTSIDE = re.compile(r"https?:|//[a-z]|url\(|@import|\bfetch\(|XMLHttpRequest|WebSocket|\bimport\(")
sys.path.insert(0, str(ROOT / "benchmarks"))
import play_cases  # noqa: E402


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.all = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.all.append((tag, dict(attributes)))


def without_comments(text):
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("//"))


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_page_is_one_small_file_that_asks_for_nothing_else():
    text = page_text()
    assert len(text.encode()) < LARGEST
    assert OUTSIDE.findall(without_comments(text)) == []
    loads = [attributes.get("src", attributes.get("href")) for _, attributes in Elements(text).all]
    assert set(filter(None, loads)) == {"data:,"}  # an empty icon, so that a browser asks for none
    assert not re.search(r"@\w+@", text)  # every mark of the template is filled


@pytest.mark.parametrize(
    "line", ['fetch("a")', "https://a.b", "<i style='background: url(a)'>", "@import a", '"//cdn"']
)
def test_what_would_need_a_connection_is_noticed(line):
    assert OUTSIDE.search(line)


def test_every_script_is_on_the_page():
    assert {path.stem for path in (FOLDER / "scripts").glob("*.js")} == set(SCRIPTS)


def test_every_id_that_a_script_names_is_in_the_template_once():
    ids = [attributes["id"] for _, attributes in Elements(page_text()).all if "id" in attributes]
    assert len(ids) == len(set(ids))
    scripts = "".join((FOLDER / "scripts" / f"{name}.js").read_text() for name in SCRIPTS)
    assert set(re.findall(r'byId\("([\w-]+)"\)', scripts)) <= set(ids)


def variables(dark):
    """The colours of the page by name, as a browser reads them."""
    blocks = re.findall(r":root \{([^}]*)\}", page_text())
    return dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[dark]))


@pytest.mark.parametrize("dark", [False, True])
def test_the_colours_are_those_of_the_house_and_stand_out(dark):
    """WCAG 2.1: 3 to 1 for marks, 4.5 to 1 for text."""
    found, paper = variables(dark), DARK if dark else WHITE
    assert (found["paper"], found["ink"], found["pink"]) == (paper, style(dark)["text.color"], PINK)
    for name, hue in HUES.items():
        assert found[name] == SHADES[hue][0]
        assert found[f"{name}-text"] in SHADES[hue]
    for name in (*HUES, "pink"):
        assert contrast(found[name], paper) >= 3, name
    for name in ("ink", "soft", *(f"{one}-text" for one in HUES)):
        assert contrast(found[name], paper) >= 4.5, name
    assert contrast(found["ink"], found["panel"]) >= 4.5
    assert contrast(found["blue-text"], found["panel"]) >= 3  # the squares of the matrix
    # Marks on the bluest tint of the landscape and of the cells, which is 62 % blue: ink, and halos of paper.
    parts = [(int(paper[at : at + 2], 16), int(found["blue"][at : at + 2], 16)) for at in (1, 3, 5)]
    tint = "#" + "".join(f"{round(0.38 * light + 0.62 * blue):02x}" for light, blue in parts)
    assert contrast(found["ink"], tint) >= 4.5


def test_everything_that_can_be_reached_has_a_name():
    elements, text = Elements(page_text()).all, page_text()
    for tag, attributes in elements:
        if tag == "input":
            name = attributes["id"]
            assert f'for="{name}"' in text or re.search(rf'<label><input[^>]*id="{name}"', text), name
        if tag == "svg" and "aria-hidden" not in attributes:
            assert attributes["role"] in ("img", "group")
            assert attributes["aria-label"]
    assert {"lang": "en"} in [attributes for tag, attributes in elements if tag == "html"]


# -- the stored cases -------------------------------------------------------------------------------------------------


def close(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float):
        return other == pytest.approx(one, rel=play_cases.TOLERANCE, abs=1e-12)
    return one == other


@pytest.mark.slow
def test_the_stored_cases_are_what_the_package_computes():
    stored = json.loads((FOLDER / "cases.json").read_text())
    made = json.loads(json.dumps(play_cases.make_cases()))
    assert close(made, stored)
    assert not close(made, {**stored, "tolerance": 1.0})
    counts = {len(one["masks"]) == one["formula"] for one in stored["patterns"]}
    assert counts == {True, False}  # in general position, and in special ones
    assert all(abs(one["objectives"][-1] / one["optimum"] - 1) < 1e-10 for one in stored["stairs"])


# -- in a browser -----------------------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs a browser to open the page in: install chromium")


def opened(tmp_path, text, hash_="", dark=False, motion=True):
    """The document after its scripts have run. Without motion, a descent is over when its button returns."""
    path = tmp_path / "page.html"
    path.write_text(text)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000", "--dump-dom"]
    own = [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={tmp_path / 'profile'}"]
    own += [] if motion else ["--force-prefers-reduced-motion"]
    command = [BROWSER, *options, *own, path.as_uri() + hash_]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


@pytest.mark.process
@needs_browser
def test_the_page_computes_what_the_package_does(tmp_path):
    dom = opened(tmp_path, page_text(), "#selftest")
    found = json.loads(html.unescape(re.search(r'<section id="selftest".*?<pre>(.*?)</pre>', dom, re.DOTALL)[1]))
    assert found["wrong"] == []
    assert found["compared"] > 100


@pytest.mark.process
@needs_browser
def test_the_comparison_notices_a_wrong_bound_and_a_missing_pattern(tmp_path):
    broken = page_text().replace("const bound = -0.5 * s * s", "const bound = -0.49 * s * s", 1)
    broken = broken.replace("for (const side of [1, -1])", "for (const side of [1])", 1)
    dom = opened(tmp_path, broken, "#selftest")
    found = json.loads(html.unescape(re.search(r'<section id="selftest".*?<pre>(.*?)</pre>', dom, re.DOTALL)[1]))
    wrong = {one["what"].rpartition(": ")[2] for one in found["wrong"]}
    assert {"bound", "patterns"} <= wrong


PROBE = """
<script>
{
  const found = {}, text = (id) => byId(id).textContent, frames = [];
  requestAnimationFrame = (frame) => frames.push(frame);  // frames come when flush asks for them
  const flush = () => { while (frames.length) { frames.shift()(); found.frames += 1; } };
  found.frames = 0;
  const key = (element, name, shiftKey = false) =>
    element.dispatchEvent(new KeyboardEvent("keydown", { key: name, shiftKey, bubbles: true, cancelable: true }));
  const pointer = (element, type, x, y) => element.dispatchEvent(new PointerEvent(type,
    { pointerId: 1, pointerType: "touch", isPrimary: true, clientX: x, clientY: y, bubbles: true, cancelable: true }));
  const counts = () => [text("count"), text("formula")].map(Number);
  found.start = counts();
  // 1. By keyboard: point 1 moves to the opposite of point 2, so that both have one line.
  const marks = [...document.querySelectorAll("#plane .mark")];
  marks[0].focus();
  found.focus = document.activeElement === marks[0];
  found.label = marks[0].getAttribute("aria-label");
  for (let k = 0; k < 30; k += 1) key(marks[0], "ArrowLeft");
  for (let k = 0; k < 7; k += 1) key(marks[0], "ArrowDown", true);
  for (let k = 0; k < 3; k += 1) key(marks[0], "ArrowDown");
  found.special = [counts(), text("cells-words"), marks[0].getAttribute("aria-label")];
  key(marks[4], "Delete");
  found.four = counts();
  // 2. By finger: a drag of point 1 by a tenth of the plane.
  marks[0].setPointerCapture = () => {};
  marks[0].hasPointerCapture = () => true;
  const box = byId("plane").getBoundingClientRect(), at = marks[0].getBoundingClientRect();
  const before = [...cells.points[0]];
  pointer(marks[0], "pointerdown", at.x + at.width / 2, at.y + at.height / 2);
  pointer(marks[0], "pointermove", box.x + box.width * 0.6, box.y + box.height * 0.3);
  found.dragged = [before, [...cells.points[0]]];
  found.action = getComputedStyle(marks[0]).touchAction;
  found.finger = marks[0].querySelector(".touch").getBoundingClientRect().width;
  byId("bias").click();
  found.bias = counts();
  byId("block").value = 3;
  byId("block").dispatchEvent(new Event("input"));
  found.block = [text("block-words"), cells.patterns[2].mask === maskAt(cells.rows, cells.u)];
  // 3. The landscape: a click starts a descent to a minimum; from u = -v it ends at the saddle.
  const frame = byId("surface").getBoundingClientRect();
  const own = { clientX: frame.x + frame.width * 0.8, clientY: frame.y + frame.height * 0.6, bubbles: true };
  byId("surface").dispatchEvent(new MouseEvent("click", own));
  flush();
  found.minimum = text("valley-gap");
  byId("ridge").click();
  flush();
  found.saddle = [text("valley-gap"), text("valley-numbers")];
  key(byId("start"), "ArrowUp");
  found.moved = byId("start").getAttribute("aria-label");
  byId("beta").value = 1.1;
  byId("beta").dispatchEvent(new Event("input"));
  found.above = text("landscape-words");
  // 4. The staircase, to its end.
  found.stairs = [];
  while (!byId("climb").disabled) { found.stairs.push(text("stair-gap")); byId("climb").click(); flush(); }
  found.stairs.push(text("stair-gap"));
  found.end = [text("stair-numbers"), text("direction")];
  // 5. The layout.
  found.fits = document.documentElement.scrollWidth <= window.innerWidth;
  found.width = window.innerWidth;
  found.paper = getComputedStyle(document.body).backgroundColor;
  found.small = [...document.querySelectorAll("button, input[type=range]")].filter(
    (one) => one.getBoundingClientRect().height < 24).map((one) => one.id);
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  parent.document.body.append(out);
}
</script>
"""


@pytest.mark.process
@needs_browser
@pytest.mark.parametrize(("width", "dark", "motion"), [(420, True, False), (1440, False, True)])
def test_it_can_be_used_by_keyboard_and_finger(tmp_path, width, dark, motion):
    # No window is narrower than 500 px, but a frame is.
    page = html.escape(page_text().replace("</body>", f"{PROBE}</body>"))
    frame = f'<!doctype html><body><iframe width="{width}" height="900" srcdoc="{page}"></iframe></body>'
    dom = opened(tmp_path, frame, dark=dark, motion=motion)
    found = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)[1]))
    assert found["start"] == [10, 10]
    assert found["focus"]
    assert found["label"].startswith("point 1 at 1.20, 0.50")
    counts, words, label = found["special"]
    assert counts == [8, 10]
    assert "points 1 and 2 lie on one line through the origin" in words
    assert label.startswith("point 1 at -0.30, -1.40")
    assert found["four"] == [6, 8]
    before, after = found["dragged"]
    assert (before, after) == ([-6, -28], [9, 18])
    assert found["action"] == "none"  # a finger on a point moves it, and beside it scrolls the page
    assert found["finger"] >= 24
    assert found["bias"] == [14, 14]
    assert found["block"][0].startswith("block 3 of 14: active on 1 of 4")
    assert found["block"][1]
    assert found["minimum"] == "the global optimum, to one part in a million"
    gap, numbers = found["saddle"]
    assert re.match(r"at most \d+ % above the global optimum", gap)
    assert "stuck at the saddle" in numbers
    assert "v = -1.05" in found["moved"]
    assert "zero is the only stationary point" in found["above"]
    assert all(words.startswith("at most") for words in found["stairs"][:-1])
    assert len(found["stairs"]) == 4
    assert found["stairs"][-1] == "the global optimum, to one part in a million"
    assert found["end"][0].startswith("3 columns")
    assert (found["frames"] > 50) == motion
    assert (found["width"], found["fits"], found["small"]) == (width, True, [])
    assert found["paper"] == ("rgb(20, 22, 26)" if dark else "rgb(255, 255, 255)")


# -- the command ------------------------------------------------------------------------------------------------------


class Window:
    """A browser that remembers what it was to open."""

    basename = "firefox"

    def __init__(self, answer=True):
        self.answer, self.opened = answer, []

    def open(self, address):
        self.opened.append(address)
        return self.answer


def play(*arguments):
    return CliRunner().invoke(app, ["play", *map(str, arguments)])


def test_play_opens_the_page(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    window = Window()
    monkeypatch.setattr(webbrowser, "get", lambda: window)
    done = play()
    assert (done.exit_code, done.stderr) == (0, "")
    assert window.opened == [done.stdout.strip()]
    (file,) = tmp_path.rglob("*.html")
    assert file.as_uri() == done.stdout.strip()
    assert file.read_text() == page_text()


@pytest.mark.parametrize("kind", ["none", "text", "fails"])
def test_play_without_a_browser_says_what_to_do(monkeypatch, tmp_path, kind):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    window = Window(answer=kind != "fails")

    def get():
        if kind == "none":
            raise webbrowser.Error("could not locate runnable browser")
        window.basename = "lynx" if kind == "text" else "firefox"
        return window

    monkeypatch.setattr(webbrowser, "get", get)
    done = play()
    assert done.exit_code == 0
    assert done.stdout.startswith("file://")
    assert done.stderr == "no browser could be started: open this address in one, or write a copy with --out FILE\n"
    assert len(window.opened) == (kind == "fails")


def test_play_out_writes_a_copy_and_opens_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(webbrowser, "get", lambda: pytest.fail("a browser was asked for"))
    path = tmp_path / "page.html"
    done = play("--out", path)
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"written: {path}\n", "")
    assert path.read_text() == page_text() == write_page(tmp_path / "again.html").read_text()
    done = play("--out", tmp_path / "nowhere" / "page.html")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: No such file or directory")


def test_the_site_has_the_page_and_links_it():
    conf = (ROOT / "docs/conf.py").read_text()
    assert 'html_extra_path = ["_extra"]' in conf
    assert 'write_page(HERE / "_extra" / "see_it.html")' in conf
    assert '<a href="../see_it.html">' in (ROOT / "docs/howto/play.md").read_text()
    assert "howto/play\n" in (ROOT / "docs/index.md").read_text()
