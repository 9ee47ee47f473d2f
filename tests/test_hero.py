"""The moving picture of the README is made of certificates, and of nothing else."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convexnn_bench as cnn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import blocks_picture  # noqa: E402
import hero  # noqa: E402
import staircase_picture  # noqa: E402

PICTURE = ROOT / "docs/images/hero.gif"


@pytest.fixture(scope="module")
def problem():
    return hero.spiral(8)


@pytest.fixture(scope="module")
def whole(problem):
    return list(hero.moments(problem, steps=30))


@pytest.mark.slow
def test_the_numbers_drawn_are_those_of_certificates(problem, whole):
    weights = dict(hero.trained(problem, 30))
    adam = [one for one in whole if one.stage == "Adam"]
    assert [one.step for one in adam] == list(weights)
    certificates = [cnn.certify(problem, weights[one.step]) for one in adam]
    np.testing.assert_allclose([one.objective for one in adam], [one.primal for one in certificates])
    np.testing.assert_allclose([one.bound for one in adam], np.maximum.accumulate([one.dual for one in certificates]))
    # The network's outputs are those of its weights, by a formula of their own.
    W1, W2 = weights[30]
    outputs = (np.maximum(hero.grid() @ W1, 0) @ W2.T).reshape(hero.POINTS, hero.POINTS)
    np.testing.assert_allclose(adam[-1].surface, outputs)


@pytest.mark.slow
def test_no_bound_is_above_the_optimum_and_the_end_is_the_optimum(problem, whole):
    optimum = cnn.solve(problem, "column_generation", gap=1e-9, show_progress=False).objective
    assert all(one.bound <= optimum * (1 + 1e-9) <= one.objective * (1 + 2e-9) for one in whole)
    assert whole[-1].stage == "Newton"
    assert whole[-1].gap <= hero.GAP
    assert whole[-1].objective == pytest.approx(optimum, rel=1e-6)


@pytest.mark.slow
def test_the_file_shows_every_moment_and_ends_with_the_last(problem, whole, tmp_path):
    made = list(hero.frames(problem, whole[:2] + whole[-1:]))
    assert len(made) == 3 + 1 + hero.ZOOM
    hero.write(tmp_path / "hero.gif", made)
    with Image.open(tmp_path / "hero.gif") as picture:
        assert picture.n_frames <= len(made)
        assert picture.size == made[0][0].size
        assert picture.info["loop"] == 0


@pytest.mark.parametrize(
    ("gap", "title"),
    [
        (65.239, "at most 6524 %"),
        (0.0341, "at most 3.5 %"),
        (0.0027201, "at most 0.28 %"),
        (1.27e-5, "at most 0.0013 %"),
    ],
)
def test_an_upper_bound_is_rounded_upwards(gap, title):
    assert hero.words(gap).startswith(title)
    assert float(re.search(r"[\d.]+", hero.words(gap)).group()) >= 100 * gap


def test_the_picture_is_small_and_stands_in_readme_and_docs():
    assert PICTURE.stat().st_size < 1_000_000
    with Image.open(PICTURE) as picture, Image.open(PICTURE.with_suffix(".png")) as still:
        assert picture.n_frames > 40
        assert picture.size == still.size
    assert "docs/images/hero.gif" in (ROOT / "README.md").read_text()
    assert "images/hero.gif" in (ROOT / "docs/index.md").read_text()


@pytest.mark.slow
def test_the_staircase_stalls_above_the_optimum_and_ends_at_it():
    problem = staircase_picture.linear()
    whole = list(staircase_picture.moments(problem))
    stalls = [one for one in whole if one.stalled]
    assert [one.columns for one in stalls] == [1, 2, 3]
    optimum = cnn.solve(problem, "bm_newton", gap=1e-9, show_progress=False).objective
    assert all(one.bound <= optimum * (1 + 1e-9) <= one.objective * (1 + 2e-9) for one in whole)
    assert all(one.objective > 1.05 * optimum for one in stalls)
    assert whole[-1].gap <= staircase_picture.GAP
    # The slice through a saddle goes down on both sides, and nowhere at the end.
    middle = len(whole[0].sizes) // 2
    for one in stalls:
        assert one.along[middle] == pytest.approx(one.objective)
        assert max(one.along[middle - 5], one.along[middle + 5]) < one.objective
    assert whole[-1].along.min() >= whole[-1].objective * (1 - staircase_picture.GAP)


@pytest.mark.slow
def test_blocks_enter_and_leave_until_the_optimum_is_proven():
    problem = cnn.make_problem("spiral", n=15, beta_fraction=0.05)
    whole = list(blocks_picture.moments(problem))
    optimum = cnn.solve(problem, "semismooth_newton", gap=1e-9, show_progress=False).objective
    assert all(one.bound <= optimum * (1 + 1e-9) <= one.objective * (1 + 2e-9) for one in whole)
    assert whole[-1].gap <= blocks_picture.GAP
    # The nuclear norms are the regulariser of the objective, whose other part is not negative.
    assert all(problem.beta * one.sizes.sum() <= one.objective for one in whole)
    assert 0 == whole[0].active.sum() < whole[-1].active.sum() < problem.P


def test_a_block_is_drawn_where_its_gates_are():
    problem = cnn.make_problem("spiral", n=15, beta_fraction=0.05)
    where = blocks_picture.angles(problem)
    np.testing.assert_array_equal(problem.X @ np.array([np.cos(where), np.sin(where)]) >= 0, problem.masks)


def test_the_picture_of_blocks_is_small_and_stands_in_the_docs():
    assert (ROOT / "docs/images/blocks.gif").stat().st_size < 1_000_000
    assert "images/blocks.gif" in (ROOT / "docs/explanation.md").read_text()
