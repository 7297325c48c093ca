"""What a session needs to come back after its worker has died: snapshots and the logged inputs.

A time line is a session from its start on, until a rewind or another start leaves it. Its log,
`SESSION-NUMBER.log`, has the inputs of all blocks, one line of JSON each. A line is written before
its block is generated, so no frame that a player has seen is missing. Its snapshots before some
blocks, `SESSION-NUMBER-BLOCK.gws`, hold no inputs: they do not grow with the session. Two complete
ones are kept, because a player's newest frame may be older than the newest snapshot.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from glassworld.engine.actions.track import Action
from glassworld.files import write_file
from glassworld.play.handover.session_bytes import pack_session
from glassworld.play.live_session import LiveSession, PlayerInput, Snapshot
from glassworld.play.recording import HeldAction

logger = logging.getLogger("glassworld.serve")

SNAPSHOT_BLOCKS = 2
"""Blocks between two snapshots: as many may have to be generated again, twice as many at most."""

KEPT_SNAPSHOTS = 2

_FILE = re.compile(r"\.?([0-9a-f]{24})-[0-9]+(-[0-9]+)?(\.[0-9]+)?\.(gws|log)")
"""The name of a file of a session, also of a snapshot that was not written to its end."""

MAX_UNWRITTEN = 2
"""Snapshots of a session that wait for the disk; with a slow one, later blocks go without."""


class LoggedInput(msgspec.Struct, array_like=True):
    """The input of a block."""

    block: int
    frames: int
    id: int  # 0 in a block of an earlier time line
    keyboard: tuple[float, ...]
    mouse: tuple[float, float] | None

    @property
    def held(self) -> HeldAction:
        """The action of the block."""
        return HeldAction(Action(self.keyboard, self.mouse), self.frames)

    @property
    def player_input(self) -> PlayerInput:
        """The input as live play takes it."""
        return PlayerInput(self.id, self.held.action)


def _logged(block: int, id: int, held: HeldAction) -> LoggedInput:
    return LoggedInput(block, held.frames, id, held.action.keyboard, held.action.mouse)


class _SnapshotFile(NamedTuple):
    path: Path
    written: Future[None]

    @property
    def is_complete(self) -> bool:
        done = self.written.done() and not self.written.cancelled()
        return done and self.written.exception() is None


@dataclass(eq=False)
class _TimeLine:
    path: Path  # of the log
    log: IO[bytes]
    snapshots: list[_SnapshotFile] = field(default_factory=list)

    def append(self, *inputs: LoggedInput) -> None:
        """Write the inputs of blocks, so that they are whole before a block begins."""
        lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in inputs)
        if self.log.write(lines) != len(lines):  # the file has no buffer
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def remove(self) -> None:
        self.log.close()
        for snapshot in self.snapshots:
            snapshot.path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


class Journal:
    """Writes the time line of one session. The device thread calls `note`.

    Snapshots are written by `executor`, so that no block waits for them.
    """

    def __init__(self, folder: Path, session: str, executor: ThreadPoolExecutor) -> None:
        self._folder, self._session, self._executor = folder, session, executor
        self._line: _TimeLine | None = None
        self._obsolete: list[_TimeLine] = []  # which a rewind or a start has left
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
            for line in self._lines():
                self._executor.submit(line.remove)  # after its snapshots are written
            self._line, self._obsolete = None, []

    def _lines(self) -> list[_TimeLine]:
        return [*self._obsolete, *([] if self._line is None else [self._line])]

    def _write(self, live: LiveSession, snapshot: Snapshot, player_input: PlayerInput) -> None:
        block = snapshot.block
        if self._line is None or block != self._next_block or live is not self._live:
            self._obsolete, self._line = self._lines(), self._begin()
            self._line.append(*(_logged(i, 0, held) for i, held in enumerate(live.held[:block])))
        line = self._line
        unwritten = sum(not each.written.done() for each in line.snapshots)
        is_due = block % SNAPSHOT_BLOCKS == 0 and unwritten < MAX_UNWRITTEN
        if is_due or not line.snapshots:
            line.snapshots.append(self._save(line, live, snapshot))
        self._next_block, self._live = block + 1, live
        held = HeldAction(player_input.action, live.engine_session.next_frames)
        line.append(_logged(block, player_input.id, held))
        self._clean(line)

    def _begin(self) -> _TimeLine:
        path = self._folder / f"{self._session}-{time.time_ns():020d}.log"
        return _TimeLine(path, path.open("ab", buffering=0))

    def _save(self, line: _TimeLine, live: LiveSession, snapshot: Snapshot) -> _SnapshotFile:
        path = line.path.with_name(f"{line.path.stem}-{snapshot.block:010d}.gws")

        def write() -> None:
            write_file(path, pack_session(live, snapshot, with_actions=False))

        return _SnapshotFile(path, self._executor.submit(write))

    def _clean(self, line: _TimeLine) -> None:
        """Remove what the newest complete snapshots make superfluous."""
        complete = [each for each in line.snapshots if each.is_complete]
        if complete:
            while self._obsolete:
                self._obsolete.pop().remove()
            if not self._swept:
                self._swept = True
                for earlier in _files_of(self._folder, self._session):
                    if earlier.name < line.path.stem:
                        earlier.unlink(missing_ok=True)
        for snapshot in complete[:-KEPT_SNAPSHOTS]:
            line.snapshots.remove(snapshot)
            snapshot.path.unlink(missing_ok=True)

    def close(self, keep: bool) -> None:
        """End the journal; remove its files unless the session goes on elsewhere."""
        self._closed = True
        for line in self._lines():
            line.log.close()
        self._line, self._obsolete, self._live = None, [], None
        if not keep:
            self._executor.submit(remove_journal, self._folder, self._session)


class SavedBlocks(NamedTuple):
    """A snapshot, the actions of the blocks before it, and the inputs of those that followed."""

    data: bytes
    held: Sequence[HeldAction]
    inputs: Sequence[LoggedInput]


def _files_of(folder: Path, session: str, suffix: str = "*") -> list[Path]:
    """Return the files of a session, those of the oldest time line and block first."""
    return sorted(folder.glob(f"{session}-*.{suffix}"))


def is_saved(folder: Path, session: str) -> bool:
    """Return whether anything was saved of a session."""
    return bool(_files_of(folder, session, "gws"))


def read_snapshots(folder: Path, session: str) -> list[SavedBlocks]:
    """Return what was saved of a session, the newest snapshot first."""
    saved = []
    for path in reversed(_files_of(folder, session, "gws")):
        line, _, block = path.stem.rpartition("-")
        try:
            data, log = path.read_bytes(), path.with_name(f"{line}.log").read_bytes()
        except FileNotFoundError:
            continue  # being removed
        inputs = _read_log(log)
        held = [entry.held for entry in inputs[: int(block)]]
        saved.append(SavedBlocks(data, held, inputs[int(block) :]))
    return saved


def _read_log(log: bytes) -> list[LoggedInput]:
    """Return the inputs of a time line, as far as they were written."""
    inputs: list[LoggedInput] = []
    for line in log.splitlines():
        try:
            entry = msgspec.json.decode(line, type=LoggedInput)
        except (msgspec.DecodeError, UnicodeDecodeError):
            break  # the worker died while it wrote the line
        if entry.block != len(inputs):
            break
        inputs.append(entry)
    return inputs


def remove_journal(folder: Path, session: str) -> None:
    """Remove everything that was saved of a session."""
    for path in _files_of(folder, session):
        path.unlink(missing_ok=True)


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
