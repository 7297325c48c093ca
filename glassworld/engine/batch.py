"""Several sessions of a world that generate their blocks together: one forward for all of them.

Larger matmuls use a device better. The caches and memories of the sessions lie in one storage,
along the batch axis; each session's own state is its row there, so a session can also go on
alone, be saved and be rewound, and joins again with the next block generated together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from itertools import groupby

import torch

from glassworld.engine.actions.track import Action
from glassworld.engine.media.images import Frames
from glassworld.engine.pipeline import OnFrames
from glassworld.engine.session import Session
from glassworld.engine.state import BatchState, SessionState
from glassworld.engine.world import World
from glassworld.errors import InputError


def batch_key(session: Session) -> tuple[int, ...]:
    """Return a key: sessions of the same key can generate their next blocks together.

    Those of one world can. Where kernels or captured graphs write all sessions' keys and values
    at once, they can once their windows are full, before that at the same block only.
    """
    world, state = session.world, session.state
    if mixes_ages(world):
        return (id(world),)
    return id(world), min(state.start, world.spec.dit.window), state.decoder.first


def mixes_ages(world: World) -> bool:
    """Return whether sessions of a world can run at once at different points of their windows."""
    return supports_batching(world) and world.networks.dit.takes_batch_slots


def can_join(sessions: Sequence[Session]) -> bool:
    """Return whether the sessions can generate their next blocks together."""
    return len({batch_key(session) for session in sessions}) == 1


def supports_batching(world: World) -> bool:
    """Return whether several sessions of a world can run at once.

    Not if something is compiled or captured for one session: every other batch size would need
    it again.
    """
    return not (world.plan.cuda_graphs or world.networks.compiled)


class SessionBatch:
    """Sessions that run side by side: one forward pass generates a block of each.

        batch = glassworld.SessionBatch([world.start(image, seed) for seed in range(4)])
        frames = batch.step([world.space.press("w")] * 4)  # a list, one array per session

    Sessions of one world can join at any block; with kernels, graphs or compiled parts, at the
    same block until their windows are full. Frames differ from those of a single session by
    rounding, at most 1 of 255. Sessions of several ages run fastest in the order of their ages.
    Their storage lives as long as any of them is in it.

    Raises `InputError` if they cannot generate blocks together (see `can_join`), or if one is
    there twice: a session generates each of its blocks once.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.sessions = list(sessions)
        if len(set(self.sessions)) < len(self.sessions):
            raise InputError("these sessions are not all different; give each of them once")
        self._join()

    def step(self, actions: Sequence[Action], on_frames: OnFrames | None = None) -> list[Frames]:
        """Return every session's next frames `[n, H, W, 3]`, each under its own action.

        `on_frames` as in `Session.step`, with the pixels `[m, n, H, W, 3]` of some sessions and
        their indices, a range: all sessions at once, unless the first block of some is among them.
        """
        if len(actions) != len(self.sessions):
            raise InputError(
                f"{len(actions)} actions for {len(self.sessions)} sessions; give one per session"
            )
        with ExitStack() as turns:
            for session in self.sessions:
                turns.enter_context(session.turn())
            return self._step(actions, on_frames)

    def _step(self, actions: Sequence[Action], on_frames: OnFrames | None) -> list[Frames]:
        """Return every session's next frames, once no other thread steps any of them."""
        for session, action in zip(self.sessions, actions, strict=True):
            session.check_next(action)  # refused before any is held or draws noise
            session.state.settle()
        if not self._joined():
            self._join()
        for session, action in zip(self.sessions, actions, strict=True):
            session.hold(action)
        pipeline = self.sessions[0].world.pipeline
        block = pipeline.generate_block(self._states, self._state, on_frames)
        self._share_decoders()
        return [frames.numpy() for frames in block.frames()]

    def part(self, staying: Collection[Session] = ()) -> None:
        """Give the sessions storage of their own, except those that are `staying`."""
        for session in self.sessions:
            if session not in staying and self._holds(session):
                session.state = session.save()

    def _holds(self, session: Session) -> bool:
        """Return whether the caches of a session are still a row of this storage."""
        return any(session.state.caches is row for row in self._rows)

    def _joined(self) -> bool:
        """Return whether the storage holds all sessions, in as few parts as they allow.

        It does not once one was rewound, joined others or went on alone; nor when a window has
        become full or a clip's first frames have been decoded.
        """
        window = self.sessions[0].world.spec.dit.window
        states = [session.state for session in self.sessions]
        slots = {state.start + state.shift for state in states if state.start >= window}
        stages = [(stage, len(list(same))) for stage, same in groupby(map(_decoder_stage, states))]
        parts = [(part.memory.stage(), len(part.sessions)) for part in self._state.decoders]
        same = len(slots) <= 1 and stages == parts and can_join(self.sessions)
        return same and all(map(self._holds, self.sessions))

    @torch.inference_mode()
    def _join(self) -> None:
        """Bring the sessions into one storage, with the same slots to be written next if full."""
        if not can_join(self.sessions):
            raise InputError(
                "these sessions cannot generate a block together: they must be of one world and, "
                "with kernels, graphs or compiled parts, at the same block until their windows are "
                "full"
            )
        states = self._states = [session.state for session in self.sessions]
        for state in states:
            state.settle()
        dit = self.sessions[0].world.spec.dit
        full = [state for state in states if state.start >= dit.window]
        for state in full[1:]:
            _roll(state, full[0].start + full[0].shift - state.start, dit.sink)
        self._state = BatchState.cat(states)
        self._rows = self._state.split_caches(len(states))
        for state, caches in zip(states, self._rows, strict=True):
            state.caches = caches
            state.graphs = None
        self._share_decoders()

    def _share_decoders(self) -> None:
        """Give each session its row of the decoder's memory, which grows with its first frames."""
        memories = self._state.split_decoders()
        for state, memory in zip(self._states, memories, strict=True):
            state.decoder = memory


def _decoder_stage(state: SessionState) -> tuple[bool, frozenset[str]]:
    return state.decoder.stage()


def _roll(state: SessionState, shift: int, sink: int) -> None:
    """Roll a session's full rings to `shift`."""
    if shift != state.shift:
        state.caches = [cache.roll(shift - state.shift, sink) for cache in state.caches]
        state.shift = shift
