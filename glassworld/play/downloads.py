"""Files for players to download, under URLs that nobody can guess."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from glassworld.errors import InputError
from glassworld.files import write_file
from glassworld.play.protocol import RecordingMessage
from glassworld.play.recording import (
    ACTIONS_NAME,
    IMAGE_NAME,
    VIDEO_NAME,
    EmptyRecordingError,
    FinishedRecording,
    Recording,
    write_failure,
)

logger = logging.getLogger("glassworld.play")

MAX_FILES, MAX_BYTES = 64, 2**30
"""With more files or bytes than this, the oldest are deleted. 16 recordings have 48 files, and the
traces of late frames another 16."""

NEWEST_FILES = 3
"""The files of the newest recording stay, however large they are."""

KEEP_SECONDS, MAX_KEPT = 600.0, 16
"""How long, and how many, finished recordings wait for players whose connections were lost."""

GONE = (
    "the server does not have your recording any more: it keeps a recording for "
    f"{KEEP_SECONDS / 60:.0f} minutes, until it restarts or needs the space"
)

URL_FOLDER, KEY_BYTES = "/files/", 18

PREFIX, LOCK_NAME = "glassworld-", "lock"


_own_folders: set[Path] = set()
"""Those of this process: where a lock is the process's, it could take theirs again. A number in the
lock file does not tell them: in a container, each server may be process 1."""


class ServerFolder:
    """A temporary folder of this process, with a lock file that names it.

    Creating one removes the folders of processes that ended without doing so.
    """

    def __init__(self) -> None:
        _remove_stale_folders(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        _own_folders.add(self.path)
        self._lock = (self.path / LOCK_NAME).open("w", encoding="utf-8")
        _try_lock(self._lock)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def close(self) -> None:
        """Delete the folder."""
        self._lock.close()
        shutil.rmtree(self.path, ignore_errors=True)
        _own_folders.discard(self.path)


def _remove_stale_folders(parent: Path) -> None:
    """Remove this user's folders whose processes have ended."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError):
            if folder.is_symlink() or not _is_own(folder):
                continue
            with (folder / LOCK_NAME).open("r+", encoding="utf-8") as lock:
                int(lock.read())  # still empty if the folder is being created
                stale = folder not in _own_folders and _try_lock(lock)
            if stale:
                shutil.rmtree(folder)


def _is_own(folder: Path) -> bool:
    return sys.platform == "win32" or folder.stat().st_uid == os.getuid()


def _try_lock(file: IO[str]) -> bool:
    """Lock a file until it is closed; return False if another process holds the lock.

    Windows has no such locks: there, folders of other processes are never taken for stale.
    """
    if sys.platform == "win32":
        return False
    import fcntl  # Windows has no such module

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Download(NamedTuple):
    """A file that the server offers."""

    path: Path
    name: str  # to save it under
    media_type: str


class DownloadStore:
    """A temporary folder of files to download, deleted when the server ends.

    Clients name a file by its key, which is looked up in memory and never used as a path.
    """

    def __init__(self) -> None:
        self._folder = ServerFolder()
        self._downloads: dict[str, Download] = {}

    def new_path(self, name: str) -> Path:
        """Return an unused path in the folder that ends in `name`."""
        return self._folder.path / f"{secrets.token_hex(4)}-{name}"

    def offer(self, path: Path, name: str, media_type: str) -> str:
        """Offer the file at `path` and return its URL path."""
        key = secrets.token_urlsafe(KEY_BYTES)
        self._downloads[key] = Download(path, name, media_type)
        while self._is_too_full():
            oldest = self._downloads.pop(next(iter(self._downloads)))
            with suppress(PermissionError):  # Windows keeps a file that a player downloads
                oldest.path.unlink(missing_ok=True)
        return f"{URL_FOLDER}{key}"

    def _is_too_full(self) -> bool:
        files = [download.path for download in self._downloads.values()]
        size = sum(path.stat().st_size for path in files if path.is_file())
        return len(files) > MAX_FILES or (size > MAX_BYTES and len(files) > NEWEST_FILES)

    def get(self, key: str) -> Download | None:
        """Return the file with this key, or None."""
        return self._downloads.get(key)

    def withdraw(self, address: str | None) -> None:
        """Delete the file offered at a URL path, if there is one."""
        download = self._downloads.pop(_key_of(address), None)
        if download is not None:
            download.path.unlink(missing_ok=True)

    def offers(self, address: str | None) -> bool:
        """Return whether there is a file at a URL path."""
        return _key_of(address) in self._downloads

    def close(self) -> None:
        """Delete all files."""
        self._downloads.clear()
        self._folder.close()


def _key_of(address: str | None) -> str:
    return (address or "").removeprefix(URL_FOLDER)


async def write_in_thread(work: Callable[[], None], *paths: Path) -> None:
    """Write `paths` by `work` in a thread; delete them if it fails or the player has left."""

    def delete(_: object) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def delete_after(done: asyncio.Task[None]) -> None:
        if not done.cancelled():
            done.exception()  # nobody else asks for it
        delete(done)

    writing = asyncio.create_task(asyncio.to_thread(work))
    try:
        await asyncio.shield(writing)
    except BaseException:
        writing.add_done_callback(delete_after)  # at once if it is done
        raise


async def offer_recording(
    downloads: DownloadStore, finished: FinishedRecording, frame_rate: float
) -> RecordingMessage:
    """Write the video, the action script and the start image of a recording, and offer them.

    Writes all three files or none; raises `InputError` if they cannot be written.
    """
    frames = finished.recording.frame_count
    video, actions, image = map(downloads.new_path, (VIDEO_NAME, ACTIONS_NAME, IMAGE_NAME))

    def write() -> None:
        finished.recording.write_video(video, frame_rate)
        write_file(actions, finished.script.encode())
        write_file(image, finished.start_image.png())

    await write_in_thread(write, video, actions, image)
    return RecordingMessage(
        on=False,
        frames=frames,
        video=downloads.offer(video, VIDEO_NAME, "video/mp4"),
        actions=downloads.offer(actions, ACTIONS_NAME, "application/json"),
        picture=downloads.offer(image, IMAGE_NAME, "image/png"),
    )


class _KeptRecording:
    """A recording from its start until the server forgets it."""

    def __init__(self) -> None:
        self.stopped = False
        self.done = asyncio.Event()
        self.outcome: RecordingMessage | str = GONE  # or why there are no files
        self.delivered = False


class RecordingStore:
    """Recordings by keys that only their players know, also after a lost connection.

    Files that nobody asks for in time are deleted. `on_device` runs a job on the device thread.
    """

    def __init__(
        self,
        downloads: DownloadStore,
        on_device: Callable[[Callable[[], FinishedRecording]], Awaitable[FinishedRecording]],
    ) -> None:
        self._downloads, self._on_device = downloads, on_device
        self._recordings: dict[str, _KeptRecording] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._unwritten: set[Recording] = set()

    def start(self) -> str:
        """Return the key of a recording that starts; `finish` must follow."""
        key = secrets.token_urlsafe(KEY_BYTES)
        self._recordings[key] = _KeptRecording()
        return key

    def finish(self, key: str, stop: Callable[[], FinishedRecording], frame_rate: float) -> None:
        """Stop a recording on the device thread, write it, and keep it for some minutes."""

        def stop_it() -> FinishedRecording:
            finished = stop()
            self._unwritten.add(finished.recording)
            return finished

        recording, stopped = self._recordings[key], self._on_device(stop_it)
        writing = asyncio.create_task(self._write(recording, key, stopped, frame_rate))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        asyncio.get_running_loop().call_later(KEEP_SECONDS, self._forget, key)
        recording.stopped = True
        stopped_keys = [key for key, other in self._recordings.items() if other.stopped]
        for oldest in stopped_keys[:-MAX_KEPT]:
            self._forget(oldest)

    async def message(self, key: str) -> RecordingMessage:
        """Wait until a recording has ended and is written; return the message with its files.

        Raises `InputError` if it could not be written or is not kept any more.
        """
        recording = self._recordings.get(key)
        if recording is None:
            raise InputError(GONE)
        await recording.done.wait()
        message = recording.outcome
        if isinstance(message, str):
            raise InputError(message)
        if not self._downloads.offers(message.video):
            raise InputError(GONE)
        recording.delivered = True
        return message

    async def _write(
        self,
        recording: _KeptRecording,
        key: str,
        stopped: Awaitable[FinishedRecording],
        frame_rate: float,
    ) -> None:
        try:
            finished = await stopped
            message = await offer_recording(self._downloads, finished, frame_rate)
            self._unwritten.discard(finished.recording)
            message.key = key
            recording.outcome = message
        except EmptyRecordingError as error:
            recording.outcome = str(error)
        except Exception as error:  # whatever happened, the player learns of it
            logger.warning("a recording could not be written: %s", error)
            recording.outcome = f"The recording could not be written: {write_failure(error)}."
        finally:
            recording.done.set()
        if self._recordings.get(key) is not recording:  # forgotten meanwhile
            self._delete(recording)

    def close(self) -> None:
        """Write nothing more; the device thread has ended."""
        for recording in self._unwritten:
            recording.cancel()

    def _forget(self, key: str) -> None:
        recording = self._recordings.pop(key, None)
        if recording is not None:
            self._delete(recording)

    def _delete(self, recording: _KeptRecording) -> None:
        """Delete the files of a recording unless its player knows them."""
        message = recording.outcome
        if isinstance(message, RecordingMessage) and not recording.delivered:
            for address in (message.video, message.actions, message.picture):
                self._downloads.withdraw(address)
