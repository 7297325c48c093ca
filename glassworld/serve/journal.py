"""What a session needs to come back after its worker has died: snapshots and the logged actions.

Each generation is a snapshot before some block, `SESSION-NUMBER.gws`, and the inputs of the blocks
since then, `SESSION-NUMBER.log`, one line of JSON each. A line is written before its block is
generated, so no frame that a player has seen is missing. Two complete generations are kept: a
player's newest frame may be older than the newest snapshot.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from glassworld.engine.actions.track import Action
from glassworld.files import write_file
from glassworld.play.handover.session_bytes import pack_session
from glassworld.play.live_session import LiveSession, PlayerInput, Snapshot

logger = logging.getLogger("glassworld.serve")

SNAPSHOT_BLOCKS = 2
"""Blocks between two snapshots: as many may have to be generated again, twice as many at most."""

KEPT_GENERATIONS = 2

_FILE = re.compile(r"\.?([0-9a-f]{24})-[0-9]+(\.[0-9]+)?\.(gws|log)")
"""The name of a file of a session, also of a snapshot that was not written to its end."""

MAX_UNWRITTEN = 2
"""Snapshots of a session that wait for the disk; with a slow one, later blocks go without."""


class LoggedInput(msgspec.Struct, array_like=True):
    """The input of a block."""

    block: int
    id: int
    keyboard: tuple[float, ...]
    mouse: tuple[float, float] | None

    @property
    def player_input(self) -> PlayerInput:
        """The input as live play takes it."""
        return PlayerInput(self.id, Action(self.keyboard, self.mouse))


class _Generation(NamedTuple):
    snapshot: Path
    log: IO[bytes]
    written: Future[None]  # of the snapshot

    def remove(self) -> None:
        self.log.close()
        _remove(self.snapshot)


class Journal:
    """Writes the generations of one session. The device thread calls `note`.

    Snapshots are written by `executor`, so that no block waits for them.
    """

    def __init__(self, folder: Path, session: str, executor: ThreadPoolExecutor) -> None:
        self._folder, self._session, self._executor = folder, session, executor
        self._generations: list[_Generation] = []
        self._obsolete: list[_Generation] = []  # of a time line that a rewind or a start has left
        self._live: LiveSession | None = None
        self._next_block = -1
        self._swept = False  # what other workers wrote is removed
        self._closed = False

    def observe(self, live: LiveSession) -> None:
        """Journal a session from its next block on."""
        live.observer = lambda snapshot, player_input: self.note(live, snapshot, player_input)

    def note(self, live: LiveSession, snapshot: Snapshot, player_input: PlayerInput) -> None:
        """Note that a block starts from `snapshot` under an input.

        If that cannot be written, such as on a full disk, play goes on: the next block tries again.
        """
        if self._closed:
            return
        try:
            self._write(live, snapshot, player_input)
        except OSError as error:
            logger.warning("a session could not be written for recovery: %s", error)
            for generation in (*self._obsolete, *self._generations):
                self._executor.submit(generation.remove)  # after its snapshot is written
            self._obsolete, self._generations = [], []

    def _write(self, live: LiveSession, snapshot: Snapshot, player_input: PlayerInput) -> None:
        block = snapshot.block
        if block != self._next_block or live is not self._live:
            self._obsolete += self._generations
            self._generations = []
        unwritten = sum(not generation.written.done() for generation in self._generations)
        is_due = block % SNAPSHOT_BLOCKS == 0 and unwritten < MAX_UNWRITTEN
        if is_due or not self._generations:
            self._generations.append(self._begin(live, snapshot))
        self._next_block, self._live = block + 1, live
        action = player_input.action
        line = LoggedInput(block, player_input.id, action.keyboard, action.mouse)
        for generation in self._generations:
            generation.log.write(msgspec.json.encode(line) + b"\n")
        self._clean()

    def _begin(self, live: LiveSession, snapshot: Snapshot) -> _Generation:
        path = self._folder / f"{self._session}-{time.time_ns():020d}.gws"
        log = path.with_suffix(".log").open("ab", buffering=0)  # whole before the block begins

        def write() -> None:
            write_file(path, pack_session(live, snapshot))

        return _Generation(path, log, self._executor.submit(write))

    def _clean(self) -> None:
        """Remove what the newest complete snapshots make superfluous."""
        complete = [each for each in self._generations if _is_written(each)]
        if complete:
            while self._obsolete:
                self._obsolete.pop().remove()
            if not self._swept:
                self._swept = True
                for earlier in _generations_in(self._folder, self._session):
                    if earlier < self._generations[0].snapshot:
                        _remove(earlier)
        for generation in complete[:-KEPT_GENERATIONS]:
            self._generations.remove(generation)
            generation.remove()

    def close(self, keep: bool) -> None:
        """End the journal; remove its files unless the session goes on elsewhere."""
        self._closed = True
        for generation in (*self._obsolete, *self._generations):
            generation.log.close()
        self._obsolete, self._generations, self._live = [], [], None
        if not keep:
            self._executor.submit(remove_journal, self._folder, self._session)


def _is_written(generation: _Generation) -> bool:
    done = generation.written.done() and not generation.written.cancelled()
    return done and generation.written.exception() is None


class SavedBlocks(NamedTuple):
    """A snapshot and the inputs of the blocks that followed it."""

    data: bytes
    inputs: Sequence[LoggedInput]


def _generations_in(folder: Path, session: str) -> list[Path]:
    """Return the snapshots of a session, the oldest first."""
    return sorted(folder.glob(f"{session}-*.gws"))


def is_saved(folder: Path, session: str) -> bool:
    """Return whether anything was saved of a session."""
    return bool(_generations_in(folder, session))


def read_generations(folder: Path, session: str) -> list[SavedBlocks]:
    """Return what was saved of a session, the newest snapshot first."""
    saved = []
    for path in reversed(_generations_in(folder, session)):
        try:
            data, log = path.read_bytes(), path.with_suffix(".log").read_bytes()
        except FileNotFoundError:
            continue  # being removed
        inputs: list[LoggedInput] = []
        for line in log.splitlines():
            try:
                entry = msgspec.json.decode(line, type=LoggedInput)
            except (msgspec.DecodeError, UnicodeDecodeError):
                break  # the worker died while it wrote the line
            if inputs and entry.block != inputs[-1].block + 1:
                break
            inputs.append(entry)
        saved.append(SavedBlocks(data, inputs))
    return saved


def remove_journal(folder: Path, session: str) -> None:
    """Remove everything that was saved of a session."""
    for path in _generations_in(folder, session):
        _remove(path)
    for log in folder.glob(f"{session}-*.log"):
        log.unlink(missing_ok=True)


def remove_abandoned(folder: Path, living: Collection[str], seconds: float) -> None:
    """Remove what was written more than `seconds` ago of sessions that are not `living`.

    They are those of dead workers whose players never came back.
    """
    for path in folder.iterdir():
        found = _FILE.fullmatch(path.name)
        if found is None or found[1] in living:
            continue
        with suppress(FileNotFoundError):  # removed meanwhile
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()


def _remove(snapshot: Path) -> None:
    snapshot.unlink(missing_ok=True)
    snapshot.with_suffix(".log").unlink(missing_ok=True)
