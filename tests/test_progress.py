"""Progress of long work: what it prints where the output is no terminal."""

import numpy as np
import pytest
import torch
from rich.console import Console

from glassworld.engine.actions.track import ActionTrack
from glassworld.engine.rollout import BlockReport
from glassworld.progress import BlockProgress, show_activity, show_progress


def test_show_progress_yields_all_items_and_says_when_it_begins_and_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(show_progress("abc", "spelling", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().out == "spelling: 0/3\nspelling: done in 0 s\n"


def test_show_progress_of_no_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(show_progress("", "spelling", 0)) == []
    assert capsys.readouterr().out == ""


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


def test_show_activity_prints_its_label_before_the_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with show_activity(Console(), "loading the world"):
        assert capsys.readouterr().out == "loading the world\n"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("times", "total", "expected"),
    [
        ([10, 11, 12, 13, 14], 20, ["0/20", "1/20", "2/20", "4/20"]),
        ([10, 15, 20, 85, 90], 400, ["0/400", "1/400", "4/400"]),
    ],
    ids=["ten-lines-in-all", "one-a-minute"],
)
def test_block_progress_prints_lines_where_the_output_is_no_terminal(
    times: list[float],
    total: int,
    expected: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(times)
    monkeypatch.setattr("glassworld.progress.time.perf_counter", lambda: next(clock))
    frames, latents = np.zeros((4, 8, 8, 3), np.uint8), torch.zeros(1, 16, 1, 1, 1)
    actions = ActionTrack(np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32))
    with BlockProgress(Console(), total) as progress:
        for index in range(len(times)):
            progress.block(BlockReport(index, total, frames, latents, actions, 10.0))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"block {done}" for done in expected]
