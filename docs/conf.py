"""Sphinx: `make docs` builds the site in docs/_build/html, warnings being errors."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from convexnn_bench import __version__  # noqa: E402

project = "convexnn-bench"
author = "The convexnn-bench developers"
copyright = author
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "convexnn-bench"
exclude_patterns = ["_build"]
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


def setup(app: Any) -> None:
    """Called by Sphinx."""
    _write_page()
    _copy_notebooks()
    _list_plugins()
    app.connect("autodoc-process-docstring", _readable, priority=400)  # before napoleon
