"""Deadlines nest, follow the clock that they are given, and can be left aside."""

import math
from itertools import count

from convexnn_bench.deadline import (
    cut_short,
    cuts_counted,
    deadline,
    no_deadline,
    noted_by,
    part_of_deadline,
    seconds_left,
    time_is_up,
    working_on,
)


def test_the_earliest_deadline_counts():
    now = [0.0]

    def clock():
        return now[0]

    assert seconds_left() == math.inf
    with deadline(5.0, clock):
        now[0] = 2.0
        assert seconds_left() == 3.0
        with deadline(10.0, clock):
            assert seconds_left() == 3.0
        with deadline(1.0, clock):
            assert seconds_left() == 1.0
            now[0] = 4.0
            assert time_is_up()
        assert not time_is_up()
        now[0] = 5.0
        assert time_is_up()
        with no_deadline():
            assert seconds_left() == math.inf
        assert time_is_up()
    assert not time_is_up()


def test_no_seconds_are_no_deadline_and_none_left_are_one():
    for nothing in (None, math.inf):
        with deadline(nothing):
            assert seconds_left() == math.inf
    with deadline(0.0):
        assert time_is_up()


def test_a_deadline_ends_with_its_block_whatever_happens_inside():
    try:
        with deadline(0.0, count().__next__):
            raise ArithmeticError
    except ArithmeticError:
        assert not time_is_up()


def test_notes_go_to_whoever_listens():
    heard: list[str] = []
    working_on("nobody listens")
    with noted_by(heard.append):
        working_on("first")
    working_on("nobody listens any more")
    assert heard == ["first"]


def test_a_search_that_a_deadline_cut_short_is_noted_in_its_own_block_alone():
    now = count()
    cut_short()  # nobody counts
    with cuts_counted() as outer:
        with deadline(1.5, lambda: next(now)), cuts_counted() as inner:
            assert not time_is_up()
            assert not inner
            assert time_is_up()
            assert len(inner) == 1
        assert not time_is_up()
        assert not outer
        cut_short()
        assert len(outer) == 1


def test_a_part_of_a_deadline_runs_on_its_clock():
    """The clock of the test stands still, so that the block has half of ten seconds at its end as well."""
    with deadline(10.0, lambda: 3.0), part_of_deadline(0.5):
        assert seconds_left() == 5.0
        with part_of_deadline(0.5):
            assert seconds_left() == 2.5
    with part_of_deadline(0.5):
        assert seconds_left() == math.inf
