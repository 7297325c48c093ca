"""Snapshots and logged inputs: a session comes back as it was."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from glassworld.engine.actions.track import Action
from glassworld.errors import InputError
from glassworld.play.block_scheduler import DeviceThread
from glassworld.play.images import StartImage
from glassworld.play.live_session import LiveSession, PlayerInput
from glassworld.play.protocol import unpack_frame
from glassworld.play.recording import HeldAction
from glassworld.serve.directory import Directory
from glassworld.serve.journal import KEPT_SNAPSHOTS, Journal, read_snapshots
from glassworld.serve.options import FleetOptions
from glassworld.serve.recovery import recover_session
from glassworld.serve.seats import WorkerReport
from glassworld.serve.tickets import TOKEN_SECONDS, new_session
from tests.support import tiny

KEYS = [(1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0)]


def play(live: LiveSession, block: int) -> np.ndarray:
    player_input = PlayerInput(block + 10, Action(KEYS[block % 2], (0.0, 0.1)))
    live.prepare_block()
    live.announce_block(player_input)
    (frames,) = live.step([player_input.action], lambda *_: None)
    live.finish_block(player_input, frames, 0.0, 0.0, [])
    return frames


@pytest.fixture
def live() -> LiveSession:
    return session()


def session() -> LiveSession:
    world = tiny.world()
    image = tiny.picture().resize((world.spec.width, world.spec.height))
    return LiveSession(world, StartImage("smooth", image), seed=3)


def recovered(live: LiveSession, folder: Path, next_frame: int) -> Any:
    async def recover() -> Any:
        state: Any = SimpleNamespace(world=live.world, device_thread=DeviceThread())
        state.scheduler = SimpleNamespace(close_session=lambda session: session.close())
        try:
            return await recover_session(state, read_snapshots(folder, "s"), next_frame)
        finally:
            state.device_thread.close()

    return asyncio.run(recover())


def test_session_comes_back_with_the_frames_that_its_player_lacks(
    live: LiveSession, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(1) as executor:
        journal = Journal(tmp_path, "s", executor)
        journal.observe(live)
        frames = np.concatenate([play(live, block) for block in range(5)])
        executor.submit(lambda: None).result()  # the snapshots are written
        frames = np.concatenate([frames, play(live, 5)])
        journal.close(keep=True)
    assert len(list(tmp_path.glob("*.gws"))) == KEPT_SNAPSHOTS
    again = recovered(live, tmp_path, next_frame=50)
    assert again.live.next_block == 6
    assert again.input.id == 15
    numbers = [frame.frame for frame in again.frames]
    assert numbers[-1] == len(frames) - 1
    assert numbers[0] <= 50
    for queued in again.frames:
        header, image = unpack_frame(queued.message)
        assert header.frame == queued.frame
        assert image.startswith(b"\x89PNG")
    assert again.live.held == live.held
    np.testing.assert_array_equal(play(again.live, 6), play(live, 6))


def test_snapshot_of_a_long_session_is_no_larger(tmp_path: Path) -> None:
    sizes = []
    for blocks in (0, 5000):
        live, folder = session(), tmp_path / str(blocks)
        live.held = [HeldAction(Action(KEYS[block % 2], (0.0, 0.1)), 12) for block in range(blocks)]
        live.frame_count = 12 * blocks
        live.engine_session.state.block = blocks
        folder.mkdir()
        with ThreadPoolExecutor(1) as executor:
            journal = Journal(folder, "s", executor)
            journal.observe(live)
            play(live, blocks)
            journal.close(keep=True)
        (snapshot,) = folder.glob("*.gws")
        sizes.append(snapshot.stat().st_size)
        assert recovered(live, folder, next_frame=12 * blocks).live.held == live.held
    assert sizes[1] - sizes[0] < 100  # the digits of its counters


def test_rewind_leaves_no_inputs_of_the_time_before(live: LiveSession, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        journal = Journal(tmp_path, "s", executor)
        journal.observe(live)
        for block in range(4):
            play(live, block)
        live.rewind(1)
        play(live, 1)
        executor.submit(lambda: None).result()
        play(live, 2)
        journal.close(keep=True)
    assert [len(saved.inputs) for saved in read_snapshots(tmp_path, "s")][-1] == 2
    assert recovered(live, tmp_path, next_frame=9).live.next_block == 3


def test_half_written_line_and_missing_files_are_no_obstacle(
    live: LiveSession, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(1) as executor:
        journal = Journal(tmp_path, "s", executor)
        journal.observe(live)
        play(live, 0)
        executor.submit(lambda: None).result()
        journal.close(keep=True)
    (log,) = tmp_path.glob("*.log")
    with log.open("ab") as file:
        file.write(b"[1,2,[0")
    assert recovered(live, tmp_path, next_frame=0).live.next_block == 1
    with pytest.raises(InputError, match="was not saved"):
        recovered(live, tmp_path / "none", next_frame=0)


def test_closed_journal_leaves_nothing(live: LiveSession, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        journal = Journal(tmp_path, "s", executor)
        journal.observe(live)
        play(live, 0)
        journal.close(keep=False)
    assert not list(tmp_path.iterdir())


def test_directory_removes_what_nobody_can_ask_for_any_more(tmp_path: Path) -> None:
    living, abandoned, recent = (new_session() for _ in range(3))
    names = [f"{session}-17.{end}" for session in (living, abandoned) for end in ("gws", "log")]
    for name in (*names, f".{abandoned}-18.4711.gws", "notes.txt"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, time.time() - TOKEN_SECONDS - 60))
    (tmp_path / f"{recent}-17.gws").touch()
    directory = Directory(FleetOptions(worlds=(), state_folder=str(tmp_path)))
    directory._table.report(WorkerReport("a", "w", "node", sessions=frozenset({living})), 0)
    asyncio.run(directory._sweep())
    left = {f"{living}-17.gws", f"{living}-17.log", f"{recent}-17.gws", "notes.txt"}
    assert {path.name for path in tmp_path.iterdir()} == left
