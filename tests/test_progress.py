"""Progress of long work: what it prints where the output is no terminal."""

import pytest

from glassworld.progress import show_progress


def test_show_progress_yields_all_items_and_says_when_it_begins_and_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(show_progress("abc", "spelling", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().out == "spelling: 0/3\nspelling: done in 0 s\n"


def test_show_progress_prints_lines_in_between_when_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0, 0, 70, 80, 140, 150])
    monkeypatch.setattr("glassworld.progress.time.monotonic", lambda: next(clock))
    assert list(show_progress(iter("abcd"), "spelling", 4)) == ["a", "b", "c", "d"]
    assert capsys.readouterr().out.splitlines() == [
        "spelling: 0/4",
        "spelling: 1/4, 210 s left",
        "spelling: 3/4, 47 s left",
        "spelling: done in 150 s",
    ]


def test_show_progress_says_nothing_of_the_end_when_interrupted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for item in show_progress("abc", "spelling", 3):
        if item == "b":
            break
    assert capsys.readouterr().out == "spelling: 0/3\n"
