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
    """A session file of `size` bytes that arrives in several messages.

    One that is too large is not kept, but its parts are still no images.
    """

    def __init__(self, size: int) -> None:
        self._size, self._left, self._data = size, size, bytearray()

    def check_size(self) -> None:
        """Raise `InputError` if the file is too large."""
        _check_size(self._size)

    @property
    def is_complete(self) -> bool:
        """Whether the last part has come."""
        return self._left <= 0

    def add(self, part: bytes) -> None:
        """Append a part."""
        self._left -= len(part)
        if self._size <= MAX_SESSION_BYTES and self._left >= 0:
            self._data += part

    def file(self) -> bytes | None:
        """Return the whole file, None if it was too large to keep; raise `InputError` if longer."""
        if self._left < 0:
            raise InputError("the session file is longer than you said; load it again")
        return bytes(self._data) or None


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
