"""The one progress callback, and the bars that show it."""

from __future__ import annotations

import sys

import pytest

from stablekp_core.cli.bars import Bars
from stablekp_core.progress import Rounds, counted


def test_an_item_counts_once_the_work_on_it_is_done():
    seen, events = [], []
    for item in counted("abc", "x", lambda *a: events.append(a)):
        seen.append((item, len(events)))
    assert seen == [("a", 1), ("b", 2), ("c", 3)] and events == [("x", i, 3) for i in range(4)]
    list(counted(iter("ab"), "x", lambda *a: events.append(a)))
    assert events[-1] == ("x", 2, 0)
    assert list(counted("ab", "x", None)) == ["a", "b"]


def test_rounds_of_unknown_length_end_whole_and_never_go_back():
    events = []
    rounds = Rounds(lambda *a: events.append(a[1:]), "x", [3, 2], [1, 10])
    for ticks in (1, 5):  # fewer than planned, and more
        with rounds.next() as tick:
            for _ in range(ticks):
                tick()
    assert [done for done, _ in events] == [0, 0, 1, 3, 3, 13, 13, 13, 13, 13, 23] and {n for _, n in events} == {23}


def test_bars_say_what_how_far_and_how_long(capsys):
    with Bars(prefix="dolls: ") as bars:
        bars("training", 3, 4)  # as a run that goes on from a checkpoint
        bars.note(loss="0.1")
        bars("training", 4, 4)
        bars("detecting", 1, 0)
        bars("detecting", 2, 0)
        bars("detecting", 1, 2)  # once more, on other images
        bars("detecting", 2, 2)
    text = capsys.readouterr().err
    assert "dolls: training: 100%" in text and "4/4 [00:0" in text and "loss=0.1" in text
    assert "dolls: detecting: 2 [" in text and "dolls: detecting: 100%" in text and "None" not in text


def test_the_time_left_is_right_after_the_first_step(capsys, monkeypatch):
    """After a first step of 10 s: of two, of many, and of a run that goes on."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for first, total, left in ((0, 2, "00:10"), (0, 100, "16:30"), (90, 100, "01:30")):
        with Bars() as bars:
            bars("training", first, total)
            assert f" {first}/{total} [00:00<?]" in capsys.readouterr().err
            now[0] += 10
            bars("training", first + 1, total)
            assert f" {first + 1}/{total} [00:10<{left}]" in capsys.readouterr().err


def test_what_has_done_nothing_leaves_no_bar_in_a_log(capsys):
    with Bars() as bars:
        bars("drawing", 0, 4)
    assert capsys.readouterr().err == ""
    with Bars() as bars:
        bars("drawing", 0, 4)
        bars("drawing", 1, 4)
    assert " 1/4 [" in capsys.readouterr().err


def test_what_prepares_a_round_does_not_count_in_the_time_left(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Bars() as bars:
        rounds = Rounds(bars, "refining", [50, 50])
        now[0] += 100
        with rounds.next() as tick:
            for _ in range(2):
                now[0] += 1
                tick()
            assert " 2/100 [01:42<01:38]" in capsys.readouterr().err


def test_hidden_bars_are_silent(capsys):
    with Bars(show=False) as bars:
        bars("training", 1, 4)
    assert capsys.readouterr().err == ""


def test_a_callback_that_raises_stops_the_work():
    def stop(phase, done, total):
        if done:
            raise KeyboardInterrupt

    done = []
    with pytest.raises(KeyboardInterrupt):
        for item in counted("abc", "x", stop):
            done.append(item)
    assert done == ["a"]
