"""A player's session file: written for download, and collected from the parts of an upload."""

from __future__ import annotations

from glassworld.errors import InputError
from glassworld.files import write_file
from glassworld.play.block_scheduler import DeviceThread
from glassworld.play.downloads import DownloadStore, write_in_thread
from glassworld.play.handover.session_bytes import NAME, pack_session
from glassworld.play.live_session import LiveSession
from glassworld.play.protocol import MAX_SESSION_BYTES, SavedMessage


def _check_size(size: int) -> None:
    if size > MAX_SESSION_BYTES:
        raise InputError(
            f"a session of {size / 1e6:.0f} MB is too large for the browser, which takes "
            f"{MAX_SESSION_BYTES / 1e6:.0f} MB; use Session.save and World.resume"
        )


class SessionUpload:
    """A session file that arrives in several messages; raises `InputError` if it is too large."""

    def __init__(self, size: int) -> None:
        _check_size(size)
        self._size, self._data = size, bytearray()

    def add(self, part: bytes) -> bytes | None:
        """Append a part; return the whole file after the last one."""
        self._data += part
        if len(self._data) > self._size:
            raise InputError("the session file is longer than you said; load it again")
        return bytes(self._data) if len(self._data) == self._size else None


async def offer_session(
    live: LiveSession, device_thread: DeviceThread, downloads: DownloadStore
) -> SavedMessage:
    """Write a session at the start of its next block, and offer the file.

    Raises `InputError` if it is too large or cannot be written.
    """
    snapshot = await device_thread.run(live.take_snapshot)
    _check_size(snapshot.state.nbytes)
    path = downloads.new_path(NAME)

    def write() -> None:
        write_file(path, pack_session(live, snapshot))

    await write_in_thread(write, path)
    return SavedMessage(snapshot.block, downloads.offer(path, NAME, "application/octet-stream"))
