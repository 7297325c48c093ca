"""A player's session: its blocks, the snapshots to rewind to, the recording and the capture.

Only the device thread uses a session, except where a method says otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glassworld.engine.actions.track import Action
from glassworld.engine.pipeline import OnFrames
from glassworld.engine.runtime.transfer import HostCopy
from glassworld.engine.session import Session
from glassworld.engine.state import SessionState
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.play.images import StartImage
from glassworld.play.recording import (
    EmptyRecordingError,
    FinishedRecording,
    HeldAction,
    Recording,
    action_script,
    write_failure,
)
from glassworld.play.traces.block_capture import BlockCapture
from glassworld.profiling.stage_timer import StageTime

Frames = npt.NDArray[np.uint8]

MAX_SNAPSHOTS = 8
MAX_SNAPSHOT_BYTES = 2**30
"""Size of all snapshots of a session; the newest stays even if it alone is larger."""


class PlayerInput(NamedTuple):
    """The action a player holds, and the id of the message that asked for it."""

    id: int
    action: Action


@dataclass(frozen=True)
class FrameChunk:
    """The frames of one latent frame of a block, perhaps still being copied from the device."""

    block: int
    first_frame: int  # of the block, in the session
    input_id: int
    frames: HostCopy  # uint8 [b, n, H, W, 3], of all sessions in the batch
    row: int  # of this session in the batch


@dataclass(frozen=True)
class BlockResult:
    """A generated block."""

    number: int
    first_frame: int  # in the session
    input_id: int
    frames: Frames  # uint8 [n, H, W, 3]
    started: float  # perf_counter seconds; equal for blocks generated in one batch
    seconds: float
    stages: list[StageTime]
    capture: BlockCapture | None = None  # ended with this block, to be exported
    recording_end: str | None = None  # why the recording could not take this block


class Snapshot(NamedTuple):
    """A session before a block."""

    block: int
    frame_count: int
    state: SessionState
    last_frame: Frames  # uint8 [H, W, 3]


BlockObserver = Callable[[Snapshot, PlayerInput], None]
"""Called by the device thread when a block starts."""


class LiveSession:
    """One session of one player, from a start image on.

    `engine_session`: one to go on with instead; its start image and seed are those given.
    """

    def __init__(
        self,
        world: World,
        start_image: StartImage,
        seed: int,
        engine_session: Session | None = None,
    ) -> None:
        self.world, self.start_image, self.seed = world, start_image, seed
        self.engine_session = engine_session or world.start(start_image.image, seed)
        self.held: list[HeldAction] = []  # one for each block
        self.frame_count = 0
        self.last_frame: Frames = np.asarray(start_image.image)  # uint8 [H, W, 3]
        self.recording: Recording | None = None
        self.observer: BlockObserver | None = None
        self._snapshots: deque[Snapshot] = deque(maxlen=MAX_SNAPSHOTS)
        self._capture: BlockCapture | None = None
        self._finished_capture: BlockCapture | None = None  # perhaps not exported yet

    @property
    def next_block(self) -> int:
        """The number of the next block, from 0."""
        return len(self.held)

    @property
    def is_capturing(self) -> bool:
        """Whether a capture profiles the next block."""
        return self._capture is not None

    def prepare_block(self) -> None:
        """Save a snapshot to rewind to, and start the profiler if a capture waits for it."""
        self._save_snapshot()
        if self._capture is not None:
            self._capture.start()

    def announce_block(self, player_input: PlayerInput) -> None:
        """Tell the observer that the prepared block starts under `player_input`."""
        if self.observer is not None:
            self.observer(self._snapshots[-1], player_input)

    def take_snapshot(self) -> Snapshot:
        """Return the session as it is now, before its next block."""
        state = self.engine_session.save()
        return Snapshot(self.next_block, self.frame_count, state, self.last_frame)

    def step(self, actions: Sequence[Action], on_frames: OnFrames) -> list[Frames]:
        """Generate the next block alone, with the interface of `SessionBatch.step`."""
        return [self.engine_session.step(actions[0], lambda frames: on_frames(frames, range(1)))]

    def finish_block(
        self,
        player_input: PlayerInput,
        frames: Frames,
        started: float,
        seconds: float,
        stages: list[StageTime],
    ) -> BlockResult:
        """Record the block just generated and return its result."""
        number, first_frame = self.next_block, self.frame_count
        self.held.append(HeldAction(player_input.action, len(frames)))
        self.frame_count += len(frames)
        self.last_frame = frames[-1].copy()  # a view would keep the frames of the whole batch
        recording_end = self._record_block(frames)
        finished = None
        if self._capture is not None and self._capture.finish_block():
            finished = self._finished_capture = self._capture
            self._capture = None
        return BlockResult(
            number=number,
            first_frame=first_frame,
            input_id=player_input.id,
            frames=frames,
            started=started,
            seconds=seconds,
            stages=stages,
            capture=finished,
            recording_end=recording_end,
        )

    def _record_block(self, frames: Frames) -> str | None:
        """Append frames to the recording, if any; return the reason if it cannot take them."""
        if self.recording is None:
            return None
        try:
            full = not self.recording.write(frames)
        except OSError as error:
            return f"The recording stops here: {write_failure(error)}."
        return "The recording is full and stops here." if full else None

    def check_rewind(self) -> None:
        """Raise `InputError` if no snapshot is kept; any thread may call this."""
        if not self._snapshots:
            raise InputError(
                "cannot rewind further: no earlier block is kept; reset to start again"
            )

    def rewind(self, block: int) -> None:
        """Go back to the start of `block`, or as far as the snapshots reach."""
        self.check_rewind()
        while len(self._snapshots) > 1 and self._snapshots[-1].block > block:
            self._snapshots.pop()
        snapshot = self._snapshots.pop()
        self.engine_session.restore(snapshot.state)
        self.frame_count, self.last_frame = snapshot.frame_count, snapshot.last_frame
        del self.held[snapshot.block :]
        if self.recording is not None:
            self.recording.truncate(snapshot.frame_count)

    def capture(self, capture: BlockCapture) -> None:
        """Profile the next blocks."""
        self._capture = capture

    def discard_capture(self) -> None:
        """End the capture without a trace."""
        if self._capture is not None:
            self._capture.discard()
            self._capture = None

    def record(self) -> None:
        """Record from the next block on."""
        if self.recording is not None:
            raise InputError("a recording is already running; stop it first")
        self.recording = Recording(self.frame_count)

    def stop_recording(self) -> FinishedRecording:
        """Stop the recording; return it with the action script of the session up to its end."""
        recording, self.recording = self.recording, None
        if recording is None or recording.frame_count == 0:
            if recording is not None:
                recording.close()
            raise EmptyRecordingError("nothing has been recorded yet; wait for a block")
        blocks = self._blocks_until(recording.first_frame + recording.frame_count)
        script = action_script(
            self.world.spec.mode, self.seed, self.held[:blocks], recording.first_frame
        )
        return FinishedRecording(recording, script, self.start_image)

    def _blocks_until(self, frame: int) -> int:
        """Return how many blocks the first `frame` frames consist of."""
        blocks = 0
        while frame > 0:
            frame -= self.held[blocks].frames
            blocks += 1
        return blocks

    def close(self) -> None:
        """Release everything the session holds; it cannot be used afterwards.

        The engine's session goes at once, without waiting for the garbage collector: it may hold
        a gigabyte that the collector does not see.
        """
        self.discard_capture()
        if self._finished_capture is not None:
            self._finished_capture.discard()  # if nobody was left to ask for its export
        if self.recording is not None:
            self.recording.close()
            self.recording = None
        self._snapshots.clear()
        self.observer = None
        del self.engine_session

    def _save_snapshot(self) -> None:
        snapshot = self.take_snapshot()
        self._snapshots.append(snapshot)
        most = max(1, MAX_SNAPSHOT_BYTES // max(1, snapshot.state.nbytes))
        while len(self._snapshots) > most:
            self._snapshots.popleft()
