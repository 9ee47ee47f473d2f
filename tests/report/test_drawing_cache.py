"""A report is drawn again if records, code or files have changed, and only then."""

import json
import math

import pytest
from rich.console import Console
from test_report_page import campaign_records

from convexnn_bench.records import RecordFile
from convexnn_bench.report import drawing_cache, figures, make, make_report
from convexnn_bench.report.figures import campaign
from convexnn_bench.report.numbers import fit_power_law


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A campaign whose report has two figures, one of them empty."""
    two = {name: campaign.FIGURES[name] for name in ("ranks", "performance_profile")}
    for module in (figures, campaign, make):
        monkeypatch.setattr(module, "FIGURES", two)
    file = RecordFile(tmp_path / "records.jsonl")
    for record in campaign_records(1):
        file.append(record)
    return tmp_path


def report(folder) -> tuple[str, int]:
    """What is printed, and how many figures were drawn."""
    drawn = []
    genuine = make.save_all

    def watched(records, target):
        for one, paths in genuine(records, target):
            drawn.append(one.name)
            yield one, paths

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "save_all", watched)
        console = Console(width=200, record=True, quiet=False, file=(folder / "printed").open("w"))
        assert make_report(folder, console)
    return console.export_text(), len(drawn)


@pytest.mark.slow
def test_nothing_is_drawn_twice_and_the_same_is_printed(folder):
    first, drawn = report(folder)
    assert drawn == 2
    page = (folder / "report.html").read_bytes()
    again, drawn = report(folder)
    assert drawn == 0
    assert again.replace(" (the records have not changed since it was made)", "") == first
    assert "have not changed" in again
    assert (folder / "report.html").read_bytes() == page


@pytest.mark.slow
@pytest.mark.parametrize("change", ["record", "odd line", "page", "missing page", "state", "not JSON", "version"])
def test_what_has_changed_is_drawn_again(folder, change, monkeypatch):
    report(folder)
    if change == "record":
        RecordFile(folder / "records.jsonl").append({**campaign_records(1)[0], "key": "another", "seed": 7})
    elif change == "odd line":
        with (folder / "records.jsonl").open("a") as stream:
            stream.write('{"half')
    elif change == "page":
        with (folder / "report.html").open("a") as stream:
            stream.write(" ")
    elif change == "missing page":
        (folder / "report.html").unlink()
    elif change == "state":
        (folder / "figures" / drawing_cache.NAME).write_text(json.dumps({"records": None, "figures": 3}))
    elif change == "not JSON":
        (folder / "figures" / drawing_cache.NAME).write_text("[")
    else:
        monkeypatch.setattr(drawing_cache, "installed", lambda package: "another")
    printed, drawn = report(folder)
    assert drawn == 2
    assert "have not changed" not in printed
    assert report(folder)[1] == 0
    if change == "odd line":
        assert "not a whole record" in (folder / "report.html").read_text()


def test_a_power_law_is_that_of_a_textbook_regression():
    from scipy.stats import linregress, t

    sizes, costs = [10, 20, 40, 80, 160], [1.0, 2.3, 3.9, 8.8, 15.0]
    law = fit_power_law(sizes, costs)
    other = linregress([math.log(x) for x in sizes], [math.log(y) for y in costs])
    assert law.exponent == pytest.approx(other.slope, rel=1e-12)
    assert law.factor == pytest.approx(math.exp(other.intercept), rel=1e-12)
    assert law.error == pytest.approx(other.stderr, rel=1e-10)
    assert law.high - law.exponent == pytest.approx(t.ppf(0.975, 3) * other.stderr, rel=1e-10)
    exact = fit_power_law([1, 2, 4], [3.0, 6.0, 12.0])
    assert exact.exponent == pytest.approx(1.0, rel=1e-12)
    assert exact.error < 1e-12
