"""A live session as bytes: a session file with what live play adds to it.

The same bytes are downloaded by a player, sent to another server and written as a snapshot.
`World.resume` reads them too: it ignores the second value of the metadata.
"""

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from glassworld.engine.actions.track import Action
from glassworld.engine.session import Session
from glassworld.engine.session_file import save_session
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.play.images import StartImage, encode_images
from glassworld.play.live_session import LiveSession, Snapshot
from glassworld.play.recording import HeldAction

METADATA_KEY = "live"
FORMAT_VERSION = 1

NAME = "walk.gws"
"""The name to save a session under; messages about an upload name it."""

MAX_BLOCKS = 10**6
"""A session of more blocks than this is refused: eleven days of the maze."""

_LENGTH = struct.Struct("<Q")
_FREE_NAMES = ("actions.", "noise.", "recent.", "image.latents", "condition")
"""The shapes of these tensors are the session's own: they grow with its age, or may be missing."""


class LiveHeader(msgspec.Struct, forbid_unknown_fields=True):
    """What live play keeps of a session beside the engine's state."""

    version: int
    seed: int
    image_name: str
    image: bytes  # the start image, a PNG
    last_frame: bytes  # before the next block, a PNG
    held: list[tuple[tuple[float, ...], tuple[float, float] | None, int]] | None
    """Each block's keyboard, mouse and number of frames; None if they are kept elsewhere."""


def pack_session(live: LiveSession, snapshot: Snapshot, with_actions: bool = True) -> bytes:
    """Return a session at one of its snapshots as bytes; any thread may call this.

    Without the actions of its blocks, the bytes do not grow with the session.
    """
    held = None
    if with_actions:
        blocks = live.held[: snapshot.block]
        held = [(each.action.keyboard, each.action.mouse, each.frames) for each in blocks]
    header = LiveHeader(
        version=FORMAT_VERSION,
        seed=live.seed,
        image_name=live.start_image.name,
        image=live.start_image.png(),
        last_frame=encode_images(snapshot.last_frame[None], "png")[0],
        held=held,
    )
    with tempfile.TemporaryDirectory(prefix="glassworld-session-") as folder:
        path = Path(folder) / NAME
        save_session(path, live.world, snapshot.state)
        data = path.read_bytes()
    file_header, tensors = _split(data)
    file_header["__metadata__"][METADATA_KEY] = msgspec.json.encode(header).decode()
    text = json.dumps(file_header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns tensors to 8 bytes
    return b"".join((_LENGTH.pack(len(text)), text, tensors))


def unpack_session(
    world: World, data: bytes, name: str = NAME, held: Sequence[HeldAction] | None = None
) -> LiveSession:
    """Return the session that `data` hold; the device thread calls this.

    `held`: the actions of its blocks, if `data` were packed without them.

    Raises `InputError`, naming the file `name`, if they are damaged or of another world.
    """
    header = _live_header(data, name)
    engine_session = _resume(world, data, name)
    if held is None:
        held = [
            HeldAction(Action(keys, mouse), frames) for keys, mouse, frames in header.held or ()
        ]
    if engine_session.state.block != len(held):
        raise InputError(
            f"{name}: damaged: its blocks and its actions differ in number; use another copy"
        )
    start_image = StartImage(header.image_name, _image(world, header.image, name))
    live = LiveSession(world, start_image, header.seed, engine_session)
    live.held = list(held)
    live.frame_count = sum(held.frames for held in live.held)
    live.last_frame = np.asarray(_image(world, header.last_frame, name))
    return live


def unpack_untrusted(world: World, data: bytes, name: str = NAME) -> LiveSession:
    """Return the session of bytes that a player sent; raise `InputError` unless they are sound.

    Its tensors must have the shapes of this world's sessions, so that it cannot break a batch,
    and a block must succeed on a copy.
    """
    try:
        if len(_live_header(data, name).held or ()) > MAX_BLOCKS:
            raise InputError(f"{name}: too long a session; start a new one")
        _check_layout(_split(data)[0], _usual_layout(world), name)
        live = unpack_session(world, data, name)
        session = live.engine_session
        state = session.save()
        if state.start != state.block * world.spec.frames_per_block or state.prefilled:
            raise InputError(
                f"{name}: damaged: its counters contradict each other; use another copy"
            )
        session.step(world.space.press(()))
        session.restore(state)
    except InputError:
        raise
    except Exception as error:  # whatever a crafted file makes the engine raise
        raise InputError(f"{name}: damaged: {type(error).__name__}") from error
    return live


def _resume(world: World, data: bytes, name: str) -> Session:
    with tempfile.TemporaryDirectory(prefix="glassworld-session-") as folder:
        path = Path(folder) / "session.gws"
        path.write_bytes(data)
        try:
            return world.resume(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from None


def _split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header and the tensors of a safetensors file."""
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    header: dict[str, Any] = json.loads(data[_LENGTH.size : end])
    return header, memoryview(data)[end:]


def _live_header(data: bytes, name: str) -> LiveHeader:
    try:
        metadata = _split(data)[0]["__metadata__"]
        if "session" not in metadata:
            raise KeyError
    except (struct.error, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{name}: not a saved session; use another file") from None
    if METADATA_KEY not in metadata:
        raise InputError(f"{name}: not saved by live play; go on with it by World.resume")
    try:
        header = msgspec.json.decode(metadata[METADATA_KEY], type=LiveHeader)
    except (msgspec.DecodeError, TypeError) as error:
        raise InputError(f"{name}: damaged: {error}") from None
    if header.version != FORMAT_VERSION:
        raise InputError(
            f"{name}: of version {header.version}; this glassworld reads {FORMAT_VERSION}; "
            "play on with the one that saved it"
        )
    return header


def _image(world: World, png: bytes, name: str) -> Image.Image:
    """Decode an image that must have the world's size; its pixels are bounded before decoding."""
    spec = world.spec
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            if image.size != (spec.width, spec.height) or image.mode != "RGB":
                raise InputError(f"{name}: damaged: an image has another size; use another copy")
            image.load()
            return image.copy()
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: damaged: an image cannot be read") from None


Layout = dict[str, tuple[str, tuple[int, ...]]]


def _layout(header: dict[str, Any]) -> Layout:
    """Return the type and shape of each tensor whose shape is the same in all sessions."""
    return {
        name: (str(tensor["dtype"]), tuple(tensor["shape"]))
        for name, tensor in header.items()
        if name != "__metadata__" and not name.startswith(_FREE_NAMES)
    }


@lru_cache(maxsize=4)
def _usual_layout(world: World) -> Layout:
    """Return the layout of a session of this world that has generated two blocks."""
    size = (world.spec.width, world.spec.height)
    live = LiveSession(world, StartImage("", Image.new("RGB", size)), 0)
    encoder: Layout = {}
    for _ in range(2):
        live.engine_session.step(world.space.press(()))
        layout = _layout(_split(pack_session(live, live.take_snapshot()))[0])
        encoder |= layout  # it forgets its memory once it has seen enough
    return encoder


def _check_layout(header: dict[str, Any], usual: Layout, name: str) -> None:
    for tensor, found in _layout(header).items():
        if usual.get(tensor) != found:
            raise InputError(
                f"{name}: not of this world, or damaged: tensor {tensor!r:.60}; use another copy"
            )
