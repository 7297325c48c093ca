"""Several sessions of a world that make their blocks together: one forward for all of them.

Larger products use a device better. What the networks keep of the sessions lies in one storage,
along the batch's axis; each session's own state is its row there, so a session can also go on
alone, be saved and be rewound, and is taken in again with the next block made together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from glassworld.engine.actions.track import Action
from glassworld.engine.pipeline import OnFrames
from glassworld.engine.rollout import Frames
from glassworld.engine.state import NetworkState, SessionState
from glassworld.engine.world import Session, World
from glassworld.errors import InputError

Point = tuple[int, int, bool]


def batch_key(session: Session) -> Point:
    """Sessions for which this is the same can make their next blocks together.

    Those of one world can once their windows are full, before that if all have made as many blocks.
    """
    world, state = session.world, session.state
    return id(world), min(state.start, world.spec.dit.window), state.decoder.first


def can_join(sessions: Sequence[Session]) -> bool:
    """Whether the sessions can make their next blocks together."""
    return len({batch_key(session) for session in sessions}) == 1


def supports_batching(world: World) -> bool:
    """Whether more than one session at once is no trouble: nothing is compiled or captured for
    one, which would have to be done anew for every other number of them."""
    pipeline = world.pipeline
    return not (pipeline.captures or pipeline.dit.compiled or pipeline.decoder.compiled)


class SessionBatch:
    """Sessions that walk side by side. Their storage lives as long as any of them is in it."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        """Raises `InputError` if they cannot make blocks together (see `can_join`), or if one is
        there twice: a session makes each of its blocks once."""
        self.sessions = list(sessions)
        if len(set(self.sessions)) < len(self.sessions):
            raise InputError("these sessions are not all different; give each of them once")
        self._join()

    def step(self, actions: Sequence[Action], on_frames: OnFrames | None = None) -> list[Frames]:
        """Every session's next frames `[n, H, W, 3]`, each made while its own action is held.

        `on_frames` is what it is in `Session.step`, with all sessions' pictures `[b, n, H, W, 3]`.
        """
        if len(actions) != len(self.sessions):
            raise InputError(f"{len(actions)} actions for {len(self.sessions)} sessions")
        for session, action in zip(self.sessions, actions, strict=True):
            session.world.space.fill(action, session.next_frames)  # refused before any is held
        if not self._joined():
            self._join()
        for session, action in zip(self.sessions, actions, strict=True):
            session.hold(action)
        pipeline = self.sessions[0].world.pipeline
        made = pipeline.run_together(self._states, self._networks, on_frames)
        self._share_decoder()
        return list(made.frames().numpy())

    def part(self, staying: Collection[Session] = ()) -> None:
        """Give the sessions storage of their own, but for those that are `staying`."""
        for session in self.sessions:
            if session not in staying and self._holds(session):
                session.state = session.save()

    def _holds(self, session: Session) -> bool:
        """Whether what the networks keep of a session is still a row of this storage."""
        return any(session.state.caches is row.caches for row in self._rows)

    def _joined(self) -> bool:
        """Whether no session was rewound, joined others or went on alone since the last block."""
        slots = {session.state.start + session.state.shift for session in self.sessions}
        # A decoder's layer that began to remember while its session was alone does so elsewhere.
        known = self._networks.decoder.frames.keys()
        decoders = [session.state.decoder.frames.keys() for session in self.sessions]
        same = len(slots) == 1 and all(names == known for names in decoders)
        return same and all(map(self._holds, self.sessions))

    @torch.inference_mode()
    def _join(self) -> None:
        """Bring what the networks keep into one storage, the same slots to be written next."""
        if not can_join(self.sessions):
            raise InputError(
                "these sessions cannot make a block together: they must be of one world and, "
                "until their windows are full, at the same block"
            )
        states = self._states = [session.state for session in self.sessions]
        sink = self.sessions[0].world.spec.dit.sink
        for state in states[1:]:
            _turn(state, states[0].start + states[0].shift - state.start, sink)
        self._networks = NetworkState.cat(states)
        self._rows = self._networks.rows(len(states))
        for state, row in zip(states, self._rows, strict=True):
            state.caches, state.decoder = row.caches, row.decoder
            state.graphs = None

    def _share_decoder(self) -> None:
        """The decoder's memory comes into being with its first frames."""
        decoder = self._networks.decoder
        rows = decoder.split(len(self._states))
        for state, row in zip(self._states, rows, strict=True):
            state.decoder = row


def _turn(state: SessionState, shift: int, sink: int) -> None:
    """Turn a session's windows, which are full unless `shift` is what it was."""
    if shift != state.shift:
        state.caches = [cache.roll(shift - state.shift, sink) for cache in state.caches]
        state.shift = shift
