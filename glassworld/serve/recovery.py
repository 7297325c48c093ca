"""Bring a session back from what its dead worker saved: the snapshot, then the logged inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from glassworld.errors import InputError
from glassworld.play.block_scheduler import DeviceThread
from glassworld.play.connection import UPLOAD
from glassworld.play.frame_streamer import frame_messages
from glassworld.play.handover.session_bytes import unpack_session
from glassworld.play.handover.suspended import SuspendedSession
from glassworld.play.images import encode_images
from glassworld.play.live_session import LiveSession, PlayerInput
from glassworld.play.pacing import QueuedFrame
from glassworld.play.server_state import ServerState
from glassworld.serve.journal import LoggedInput, SavedBlocks


async def recover_session(
    state: ServerState, saved: Sequence[SavedBlocks], next_frame: int
) -> SuspendedSession:
    """Return the session as it was when its worker died, with the frames from `next_frame` on.

    `saved`: its snapshots, the newest first. The newest one that reaches back to that frame is
    taken. Blocks are generated between those of other players. Raises `InputError` if there is
    nothing to go on from.
    """
    live = None
    for snapshot in saved:
        unpack = partial(unpack_session, state.world, snapshot.data, held=snapshot.held)
        try:
            candidate = await state.device_thread.run(unpack)
        except InputError:
            continue  # an older one may be whole
        if live is not None:
            state.scheduler.close_session(live)
        live, inputs = candidate, snapshot.inputs
        if live.frame_count <= next_frame:
            break
    if live is None:
        raise InputError("the session was not saved; start another")
    frames: list[QueuedFrame] = []
    last = PlayerInput(0, state.world.space.press(()))
    for entry in inputs:
        frames += await _generate_again(state.device_thread, live, entry)
        last = entry.player_input
    return SuspendedSession(live, last, UPLOAD, frames=frames)


async def _generate_again(
    device_thread: DeviceThread, live: LiveSession, entry: LoggedInput
) -> list[QueuedFrame]:
    """Generate a logged block; return the messages of its frames."""
    player_input, first_frame = entry.player_input, live.frame_count

    def generate() -> list[bytes]:
        live.prepare_block()
        (frames,) = live.step([player_input.action], lambda *_: None)
        live.finish_block(player_input, frames, 0.0, 0.0, [])
        return encode_images(frames, "png")

    images = await device_thread.run(generate)
    await asyncio.sleep(0)
    return frame_messages(entry.block, first_frame, entry.id, images, "png")
