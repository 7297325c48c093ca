"""Several sessions of a world that make their blocks together: one forward for all of them.

Larger products use a device better. What the networks keep of the sessions lies in one storage,
along the batch's axis; each session's own state is its row there, so a session can also go on
alone, be saved and be rewound, and is taken in again with the next block made together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from glassworld.engine.actions import Action
from glassworld.engine.state import NetworkState, SessionState
from glassworld.engine.world import Frames, Session
from glassworld.errors import InputError


def can_join(sessions: Sequence[Session]) -> bool:
    """Whether the sessions can make their next blocks together.

    They can once their windows are full, and before that if all have made as many blocks.
    """
    worlds = {id(session.world) for session in sessions}
    window = sessions[0].world.spec.dit.window
    points = {
        (min(session.state.start, window), session.state.decoder.first) for session in sessions
    }
    return len(worlds) == len(points) == 1


class SessionBatch:
    """Sessions that walk side by side.

    The storage lives as long as any of the sessions; `session.restore(session.save())` gives one
    that leaves its own.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        """Raises `InputError` if they cannot make blocks together (see `can_join`)."""
        self.sessions = list(sessions)
        self._join()

    def step(self, actions: Sequence[Action]) -> list[Frames]:
        """Every session's next frames `[n, H, W, 3]`, each made while its own action is held."""
        if not self._joined():
            self._join()
        for session, action in zip(self.sessions, actions, strict=True):
            session.hold(action)
        output = self.sessions[0].world.pipeline.run_together(self._states, self._networks)
        self._share_decoder()
        return list(output.frames().numpy())

    def _joined(self) -> bool:
        """Whether no session has been rewound or gone on alone since the last block."""
        pairs = zip(self.sessions, self._states, strict=True)
        slots = {state.start + state.shift for state in self._states}
        return all(session.state is state for session, state in pairs) and len(slots) == 1

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
        self._networks = NetworkState.together(states)
        rows = self._networks.rows(len(states))
        for state, row in zip(states, rows, strict=True):
            state.caches, state.context, state.decoder = row.caches, row.context, row.decoder
            state.graphs = None

    def _share_decoder(self) -> None:
        """The decoder's memory comes into being with its first frames."""
        decoder = self._networks.decoder
        rows = decoder.rows(len(self._states))
        for state, row in zip(self._states, rows, strict=True):
            state.decoder = row


def _turn(state: SessionState, shift: int, sink: int) -> None:
    """Turn a session's windows, which are full unless `shift` is what it was."""
    if shift != state.shift:
        state.caches = [cache.turn(shift - state.shift, sink) for cache in state.caches]
        state.shift = shift
