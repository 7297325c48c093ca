"""A player's walk through the world: the session, the way back, the recording, the capture.

All of it belongs to the worker's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glassworld.engine.actions.track import Action
from glassworld.engine.pipeline import OnFrames
from glassworld.engine.runtime.transfer import HostCopy
from glassworld.engine.state import SessionState
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.play.images import StartingPicture
from glassworld.play.protocol import StageTime
from glassworld.play.recording import Held, Recording, script
from glassworld.profiling import registry as tags
from glassworld.profiling.capture import profile
from glassworld.profiling.tags import tag

Frames = npt.NDArray[np.uint8]

RECORDED_PICTURE = "picture.png"

MOST_SNAPSHOTS = 8
MOST_SNAPSHOT_BYTES = 2**30
"""Of a session's snapshots together; one is always kept."""


class PlayerInput(NamedTuple):
    """What a player wants to be done: the act's id and its action."""

    id: int
    action: Action


@dataclass(frozen=True)
class FrameChunk:
    """The frames of one latent frame of a block, perhaps still on their way from the device."""

    number: int  # of the block
    first: int  # frame of the walk that the block begins with
    action: int
    frames: HostCopy  # [b, n, H, W, 3], of all walks whose blocks are made together
    row: int  # this one's


class Timing(NamedTuple):
    """When a block was begun (perf_counter), and the seconds that it and its stages took."""

    begun: float
    seconds: float
    stages: list[StageTime]


class Begun(NamedTuple):
    """A block that is being made."""

    number: int
    first: int  # frame of the walk
    order: PlayerInput


@dataclass(frozen=True)
class BlockResult:
    """A block and how it came about."""

    number: int
    first: int  # frame of the walk
    action: int
    frames: Frames  # uint8 [n, H, W, 3]
    timing: Timing
    captured: bool  # the capture ended with it
    film_full: bool  # the recording is full and took it no more


class FinishedRecording(NamedTuple):
    """A recording that has ended."""

    film: Recording
    script: str
    picture: StartingPicture


class Snapshot(NamedTuple):
    """The walk before a block."""

    block: int
    frame: int
    state: SessionState
    still: Frames  # uint8 [H, W, 3], the last frame before the block


class LiveSession:
    """One walk from one picture."""

    def __init__(self, world: World, picture: StartingPicture, seed: int) -> None:
        self.world, self.picture, self.seed = world, picture, seed
        self.session = world.start(picture.image, seed)
        self.held: list[Held] = []
        self.made = 0  # frames
        self.film: Recording | None = None
        self._still: Frames = np.asarray(picture.image)
        self._snapshots: deque[Snapshot] = deque(maxlen=MOST_SNAPSHOTS)
        self._capture: Capturing | None = None

    @property
    def captures(self) -> bool:
        """Whether its blocks are profiled."""
        return self._capture is not None

    def begin(self, order: PlayerInput) -> Begun:
        """Prepare for the next block, which is made under `order`."""
        number = self.session.state.block
        self._keep_snapshot(number)
        if self._capture is not None:
            self._capture.begin()
        return Begun(number, self.made, order)

    def step(self, actions: Sequence[Action], on_frames: OnFrames) -> list[Frames]:
        """The frames of its next block, made alone."""
        return [self.session.step(actions[0], on_frames)]

    def end(self, begun: Begun, frames: Frames, timing: Timing) -> BlockResult:
        """Take in the block that has been made."""
        self.held.append((begun.order.action, len(frames)))
        self.made += len(frames)
        self._still = frames[-1].copy()  # and not all the frames of the round
        full = self.film is not None and not self.film.write(frames)
        captured = self._capture is not None and self._capture.block_done()
        if captured:
            self._capture = None
        number, first, (action, _) = begun
        return BlockResult(number, first, action, frames, timing, captured, full)

    def rewind(self, block: int) -> Snapshot:
        """Go back to before block `block`, or as far as there are snapshots."""
        if not self._snapshots:
            raise InputError("there is nothing before this to go back to")
        while len(self._snapshots) > 1 and self._snapshots[-1].block > block:
            self._snapshots.pop()
        snapshot = self._snapshots.pop()
        self.session.restore(snapshot.state)
        self.made, self._still = snapshot.frame, snapshot.still
        del self.held[snapshot.block :]
        if self.film is not None:
            self.film.cut(snapshot.frame)
        return snapshot

    def capture(self, path: Path, blocks: int) -> None:
        """Profile the next `blocks` blocks into `path`."""
        self._capture = Capturing(path, blocks, self.world.name)

    def record(self) -> None:
        """Record from the next block on."""
        if self.film is not None:
            raise InputError("a recording is running")
        self.film = Recording(self.made)

    def stop_recording(self) -> FinishedRecording:
        """End the recording: its film, and the script of the whole walk."""
        film, self.film = self.film, None
        if film is None or film.count == 0:
            raise InputError("nothing has been recorded yet")
        held, name = self.held[: self._blocks_until(film.first + film.count)], RECORDED_PICTURE
        text = script(self.world.spec.mode, self.seed, name, held, film.first)
        return FinishedRecording(film, text, self.picture)

    def _blocks_until(self, frame: int) -> int:
        blocks = 0
        while frame > 0:
            frame -= self.held[blocks][1]
            blocks += 1
        return blocks

    def close(self) -> None:
        """Give back all that a walk holds; it is of no use afterwards.

        The session goes at once, not when the garbage collector comes by: it may hold a gigabyte
        that the collector does not see.
        """
        if self._capture is not None:
            self._capture.close()
        if self.film is not None:
            self.film.close()
        self._snapshots.clear()
        del self.session

    def _keep_snapshot(self, number: int) -> None:
        state = self.session.save()
        self._snapshots.append(Snapshot(number, self.made, state, self._still))
        most = max(1, MOST_SNAPSHOT_BYTES // max(1, state.tensors_bytes()))
        while len(self._snapshots) > most:
            self._snapshots.popleft()


class Capturing:
    """A full capture of a walk's next blocks, begun with the first of them.

    Blocks that other players have made in the meantime are in the trace too: it shows the device.
    """

    def __init__(self, path: Path, blocks: int, world: str) -> None:
        self._path, self._left, self._world = path, blocks, world
        self._stack = ExitStack()
        self._begun = False

    def begin(self) -> None:
        """Start the profiler unless it runs; an `InputError` if another capture is running."""
        if not self._begun:
            self._stack.enter_context(profile(self._path, "full"))
            self._stack.enter_context(tag(tags.PIPELINE_INFERENCE))
            self._begun = True

    def block_done(self) -> bool:
        """Whether this was the last block; the trace is then written."""
        self._left -= 1
        if self._left == 0:
            self.close()
        return self._left == 0

    def close(self) -> None:
        self._stack.close()
