"""The HTML of problems, certificates, results, comparisons and reports in notebooks is short, safe and readable."""

import dataclasses
import re
from decimal import Decimal
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from problems import random_problem
from properties import example, given, strategies

import convexnn_bench as cnn
from convexnn_bench.certificates import bar, certificate_html, enclosure_words
from convexnn_bench.certificates.picture import ACCENT
from convexnn_bench.comparison import Comparison

NUMBERS = strategies.floats(-1e6, 1e6, allow_nan=False)


class Tags(HTMLParser):
    """Every tag with its attributes; a tag that is closed in the wrong order is an error."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def rectangles(svg):
    """(left, right) of the grey part, the coloured one and the mark."""
    rects = [attributes for tag, attributes in Tags(svg).found if tag == "rect"]
    return [(float(one["x"]), float(one["x"]) + float(one["width"])) for one in rects]


@given(dual=NUMBERS, above=strategies.floats(0, 1e6))
@example(dual=0.0, above=5e-324)
@example(dual=-5e-324, above=0.0)
def test_the_bar_and_its_sentence_say_what_is_proven(dual, above):
    primal = dual + above
    words = enclosure_words(primal, dual)
    low, high = (
        Decimal(x) for x in re.match(r"The optimum lies between (\S+) and the objective, ([^,:;]+)", words).groups()
    )
    # printed digits are rounded outwards, up to the digits of a float
    assert low <= Decimal(dual) + abs(Decimal(dual)) * Decimal("1e-15")
    assert high >= Decimal(primal) - abs(Decimal(primal)) * Decimal("1e-15")
    (zero, grey), (start, end), (mark, right) = rectangles(bar(primal, dual, words))
    assert 0 <= zero <= grey <= 1000
    assert grey == pytest.approx(start, abs=0.11)
    assert start < end
    assert (mark, right) == (pytest.approx(end - 5, abs=0.11), pytest.approx(end, abs=0.11))
    assert right <= 1000.1


def test_places_on_the_bar():
    """A bound of a quarter of the objective; a bound below zero; no gap at all; a common axis."""
    assert rectangles(bar(4.0, 1.0, ""))[1] == (250, 1000)
    assert rectangles(bar(3.0, -1.0, ""))[:2] == [(0, 0), (0, 1000)]
    assert rectangles(bar(3.0, 3.0, ""))[1] == (990, 1000)  # still to be seen
    assert rectangles(bar(4.0, 2.0, "", (0.0, 8.0)))[1] == (250, 500)
    assert bar(float("inf"), 1.0, "") == bar(float("nan"), 1.0, "") == ""


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((1.5, 1.0), "between 1 and the objective, 1.5, which is at most 50 % above"),
        ((1.0012345, 1.0), "at most 0.13 % above"),
        ((50.0, 1.0), "at most 50 times the optimum"),
        ((2.0, 2.0), "the point is optimal"),
        ((2.0, -1.0), "no percentage can be stated"),
        ((2.0, 1.0, "the point is outside"), "at least 1. No gap is stated: the point is outside."),
        ((float("nan"), float("nan")), "Nothing was proven"),
    ],
)
def test_sentences(numbers, words):
    assert words in enclosure_words(*numbers)


def shown():
    """One object of every class that has HTML, by name."""
    problem = random_problem(1, "logistic", patterns=30, n=40)
    result = cnn.solve(problem, "bm_gd", iterations=5)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).double()
    rng = np.random.default_rng(0)
    refused = dataclasses.replace(result.certificate, refused="the point violates its cones <by far>")
    return {
        "result": result,
        "skipped": cnn.solve(problem, "column_generation"),
        "certificate": result.certificate,
        "refused": refused,
        "loose": dataclasses.replace(result.certificate, dual_norm_lower=0.1, infeasibility=1e-9),
        "report": cnn.certify_module(module, rng.standard_normal((9, 3)), rng.standard_normal(9), weight_decay=0.1),
        "comparison": cnn.compare(problem, ["bm_gd", "fista", "column_generation"], iterations=3),
        "failed": Comparison(problem, [{**cnn.compare(problem, ["bm_gd"], iterations=1).records[0], "gap": None}]),
    }


@pytest.fixture(scope="module")
def objects():
    return shown()


def test_reprs_are_short(objects):
    for name, one in {**objects, "problem": objects["result"].problem}.items():
        lines = repr(one).splitlines()
        assert len(lines) <= (11 if isinstance(one, Comparison) else 3), name
        assert max(map(len, lines)) <= 260, name
        assert "array(" not in repr(one), name
        assert "tensor(" not in repr(one), name
    assert f"gap={objects['certificate'].gap:.3g}" in repr(objects["certificate"])
    assert "column_generation, skipped" in repr(objects["skipped"])
    assert "refused='the point violates" in repr(objects["refused"])


def test_html_is_whole_and_asks_for_nothing(objects):
    for name, one in objects.items():
        html = one._repr_html_()
        tags = Tags(html)
        assert {tag for tag, _ in tags.found} <= {
            "div", "strong", "svg", "title", "rect", "span", "table", "thead", "tbody", "tr", "th", "td",
        }, name  # fmt: skip
        assert not any(key in attributes for _, attributes in tags.found for key in ("src", "href", "onclick")), name
        assert "url(" not in html
        assert "http" not in html
        # The text has the colour of its surroundings, and only the place of the optimum has one of its own.
        assert set(re.findall(r"#[0-9a-f]{6}", html)) <= {ACCENT.lower()}, name
        for tag, attributes in tags.found:
            if tag == "svg":
                assert attributes["role"] == "img"
                assert attributes["aria-label"].startswith("The optimum lies between")
    assert all("<svg" in objects[name]._repr_html_() for name in ("result", "certificate", "report", "comparison"))
    assert not any("<svg" in objects[name]._repr_html_() for name in ("skipped", "refused", "failed"))


def test_words_of_the_user_are_escaped(objects):
    assert "<by far>" in Tags(objects["refused"]._repr_html_()).text
    assert "<b>" in Tags(certificate_html("<b>", 2.0, 1.0, lines=["a < b & c"])).text
    result = dataclasses.replace(objects["result"], solver="<script>alert(1)</script>", reason="1 < 2 & 3")
    assert "<script>" not in result._repr_html_()
    assert "1 < 2 & 3" in Tags(result._repr_html_()).text
