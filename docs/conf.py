"""Sphinx: `make docs` builds the site in docs/_build/html, warnings being errors."""

import base64
import html
import importlib.util
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from convexnn_bench import __version__  # noqa: E402
from convexnn_bench.house_style import on_dark  # noqa: E402

project = "convexnn-bench"
author = "The convexnn-bench developers"
copyright = author
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "convexnn-bench"
exclude_patterns = ["_build", "notebooks/gallery.md"]  # which notebooks/index.md includes
nb_execution_mode = "off"  # notebooks are executed by notebooks/build.py and committed with their outputs
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the sections of a docstring say the types
napoleon_google_docstring = False
napoleon_use_ivar = True  # attributes as fields, since :members: may list them again
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_extra"]  # the page of `convexnn-bench play`
_mathjax = importlib.util.find_spec("sphinx-mathjax-offline")
if _mathjax is not None and _mathjax.origin is not None:  # else formulas need a connection
    html_static_path.append(str(Path(_mathjax.origin).parent / "static" / "mathjax" / "tex-svg-full.js"))
    mathjax_path = "tex-svg-full.js"


def _copy_notebooks() -> None:
    """Sphinx takes pages from its own folder only."""
    target = HERE / "notebooks"
    target.mkdir(exist_ok=True)
    for path in [*target.glob("*.ipynb")]:
        path.unlink()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy(path, target / path.name)


def _make_gallery() -> None:
    """Make thumbnails of the notebooks, and notebooks/gallery.md with a card for each: its title, question and picture.

    The picture is the first one of the notebook. A notebook without one has a card without a picture.
    """
    thumbnails = HERE / "_static" / "thumbnails"
    shutil.rmtree(thumbnails, ignore_errors=True)
    thumbnails.mkdir(parents=True)
    cards = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        title = "".join(cells[0]["source"]).partition("\n")[0].removeprefix("# ")
        words = "".join(cells[0]["source"]).partition("**The question.**")[2].partition("\n\n")[0]
        picture = _thumbnail(cells, thumbnails / f"{path.stem}.png")
        image = f'<img src="../_static/thumbnails/{path.stem}.png" alt="" loading="lazy">' if picture else ""
        question = re.sub(r"\*+(.*?)\*+", r"\1", " ".join(words.split()))
        text = f"<b>{html.escape(title)}</b><span>{html.escape(_first_sentences(question))}</span>"
        cards.append(f'<a class="card" href="{path.stem}.html">{image}{text}</a>')
    gallery = "\n".join(['<div class="cards gallery">', *cards, "</div>"])
    (HERE / "notebooks" / "gallery.md").write_text(f"{gallery}\n", encoding="utf-8")


def _make_dark_images() -> None:
    """Write images/NAME_dark.svg beside every figure that is an SVG."""
    for path in sorted((HERE / "images").glob("*.svg")):
        if not path.stem.endswith("_dark"):
            dark = on_dark(path.read_text(encoding="utf-8"))
            path.with_name(f"{path.stem}_dark.svg").write_text(dark, encoding="utf-8")


def _both_images(app: Any, page: str, source: list[str]) -> None:
    """Show an SVG figure of a page in its variant for the theme that the reader has chosen."""

    def both(match: re.Match[str]) -> str:
        shown = []
        for suffix, theme in (("", "light"), ("_dark", "dark")):
            options = f":alt: {match['words']}\n:class: only-{theme}"
            shown.append(f"```{{image}} {match['stem']}{suffix}.svg\n{options}\n```\n")
        return "\n".join(shown)

    source[0] = re.sub(r"^!\[(?P<words>[^\]]*)\]\((?P<stem>\S*images/\w+)\.svg\)$", both, source[0], flags=re.MULTILINE)


def _first_sentences(text: str, most: int = 170) -> str:
    """Return as many whole sentences as fit, at least one, without those that have formulas."""
    sentences = [one for one in re.split(r"(?<=[.?]) ", text) if "$" not in one]
    kept = sentences[:1]
    for sentence in sentences[1:]:
        if len(" ".join([*kept, sentence])) > most:
            break
        kept.append(sentence)
    return " ".join(kept).replace("`", "")


def _thumbnail(cells: list[Any], path: Path) -> bool:
    """Write the first picture of a notebook at a third of a page's width; return whether there is one."""
    from PIL import Image

    for cell in cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {}).get("image/png")
            if data:
                with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                    image.convert("RGB").resize((480, round(480 * image.height / image.width))).save(path)
                return True
    return False


def _list_plugins() -> None:
    """plugins.md: what is registered, from the classes themselves."""
    import inspect

    from convexnn_bench.plugins import DATASETS, SOLVERS

    lines = [
        "# Solvers and data sets",
        "",
        "As `convexnn-bench list` shows them, with their parameters and defaults.",
        "",
    ]
    for title, registry in (("Solvers", SOLVERS), ("Data sets", DATASETS)):
        lines += [f"## {title}", ""]
        for name in registry.names():
            cls = registry.get(name)
            kind = getattr(cls, "formulation", "").replace("_", "-")
            defaults = {key: value[0] if isinstance(value, list) else value for key, value in cls.parameters.items()}
            given = ", ".join(f"{key}={value!r}" for key, value in defaults.items())
            summary = getattr(cls, "summary", "")  # a method of solvers that state what their backend said
            texts = [summary if isinstance(summary, str) else "", inspect.getdoc(cls) or ""]
            lines += [f"### {name}", ""] + ([f"Formulation: {kind}.", ""] if kind else [])
            lines += [f"`{name}[{given}]`" if given else f"`{name}`", ""]
            lines += ["```text", *filter(None, texts), "```", ""]
    (HERE / "plugins.md").write_text("\n".join(lines), encoding="utf-8")


def _readable(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let docstrings be read as reStructuredText, though their formulas use its special characters.

    Docstrings with numpydoc sections keep their markup, with bars escaped. Plain paragraphs are escaped altogether.
    Every other docstring is shown as it is written.
    """
    if any(re.fullmatch(r"\s*-{3,}", line) for line in lines):
        in_example = False
        for number, line in enumerate(lines):
            in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
            if not in_example and "``" not in line:
                lines[number] = line.replace("|", "\\|")
    elif not any(line.startswith(" ") for line in lines):
        lines[:] = [re.sub(r"([*|`_\\])", r"\\\1", line) for line in lines]
    else:
        lines[:] = [".. code-block:: text", "", *(f"   {line}" for line in lines), ""]


def _write_page() -> None:
    """The page to play with, as the command writes it."""
    from convexnn_bench.playground import write_page

    (HERE / "_extra").mkdir(exist_ok=True)
    write_page(HERE / "_extra" / "see_it.html")


def _captions_have_levels(app: Any, name: str, template: str, context: dict[str, Any], document: Any) -> None:
    """Say the level of the headings in the sidebar, without which assistive software cannot place them."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def setup(app: Any) -> None:
    """Called by Sphinx."""
    _write_page()
    _copy_notebooks()
    _make_gallery()
    _make_dark_images()
    _list_plugins()
    app.connect("source-read", _both_images)
    app.connect("autodoc-process-docstring", _readable, priority=400)  # before napoleon
    app.connect("html-page-context", _captions_have_levels, priority=900)  # after the theme
