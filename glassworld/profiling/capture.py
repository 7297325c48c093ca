"""Captures: a profiler around a part of the program, exported once as a trace.

`full` records operators, kernels and memory; `tags` records the tags alone, cheaply enough to be
left on. The run's configuration, versions and machine go into the trace under "glassworld".
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar, Literal, cast

import torch
from torch.autograd import profiler as autograd_profiler

from glassworld.errors import InputError
from glassworld.files import replacing
from glassworld.profiling import registry
from glassworld.profiling.metadata import METADATA_KEY, metadata
from glassworld.profiling.tags import listen, set_recording

Mode = Literal["full", "tags"]
MODES: tuple[Mode, ...] = ("full", "tags")

SaveTrace = Callable[[Any, Path], None]
"""Writes the trace of a profiler that has stopped."""

_HEAD_BYTES = 4096


@contextmanager
def profile(
    path: str | Path, mode: Mode = "full", blocks: tuple[int, int] | None = None
) -> Iterator[Capture]:
    """Record what all threads do meanwhile; write it to `path` (gzipped if it ends in .gz).

    `blocks` (first, end) records only those blocks, as their session counts them from its start.
    The file appears whole, also after an exception; only an `InputError`, or a run without one of
    the `blocks`, leaves the file of an earlier run: the capture's `written` says so afterwards.
    Raises `InputError` for an unknown mode, an empty range of blocks, a second capture at once,
    another profiler of torch meanwhile, or a folder that cannot be written to.
    """
    check_mode(mode)
    if blocks is not None and not 0 <= blocks[0] < blocks[1]:
        raise InputError(f"profile blocks {blocks[0]}:{blocks[1]}: must be A:B with 0 <= A < B")
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the file to write the trace to")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(
            f"{path}: the folder {path.parent} does not exist or is not writable; name another"
        )
    capture = Capture(path, mode)
    with ExitStack() as stack:
        stack.callback(capture.finish)
        if blocks is None:
            capture.start()
        else:
            capture.blocks = range(*blocks)
            stack.callback(_stop_after(capture, blocks[1] - 1))
        try:
            yield capture
        except InputError:  # nothing ran: what an earlier run left at `path` stays
            capture.discard()
            raise


def check_mode(mode: str) -> None:
    """Raise `InputError` for an unknown mode."""
    if mode not in MODES:
        raise InputError(f"profile mode {mode!r}: must be one of {', '.join(MODES)}")


class Capture:
    """One profiler, started and stopped once, exported once.

    Its trace describes the run whose blocks were recorded last; if none was, the run that began
    last while the capture was open.
    """

    current: ClassVar[Capture | None] = None

    def __init__(self, path: Path, mode: Mode) -> None:
        if Capture.current is not None:
            raise InputError(
                f"{path}: another capture is running; only one can at a time; stop it first"
            )
        self.path, self.mode = path, mode
        self.running = False
        self.blocks = range(0)  # at the first of them it starts by itself
        self.written = False
        self.profiler: Any = None
        self.started_run: Mapping[str, Any] = {}
        self.recorded_run: Mapping[str, Any] | None = None
        self.devices: set[torch.device] = set()  # of the runs, and of the recorded blocks
        Capture.current = self

    def start(self) -> None:
        """Start recording; raise `InputError` if this thread is being profiled already."""
        if torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            raise InputError(f"{self.path}: a profiler of torch is running; end it before this one")
        self.profiler = _profiler(self.mode)
        self.profiler.__enter__()
        self.running = True
        set_recording(True)

    def stop(self) -> None:
        """Stop recording; the trace is not written yet."""
        if self.running:
            self.running = False
            set_recording(False)
            try:
                if self.mode == "full":
                    self._await_devices()
            finally:
                self.profiler.__exit__(None, None, None)

    def _await_devices(self) -> None:
        """Wait for the work of all runs: the profiler waits for the current GPU alone."""
        for device in self.devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)

    @property
    def event_count(self) -> int:
        """How many events a full capture has recorded, once it has stopped."""
        return len(self.profiler.kineto_results.events())

    def discard(self) -> None:
        """Stop and forget what was recorded."""
        self.stop()
        self.profiler = None

    def finish(self, save: SaveTrace | None = None) -> None:
        """Stop, and write the trace if anything was recorded, by `save` or in this process."""
        try:
            self.stop()
        finally:
            Capture.current = None
        if self.profiler is not None:
            config = self.started_run if self.recorded_run is None else self.recorded_run
            facts = metadata(self.mode, config)
            if not self.profiler.kineto_results.trace_start_ns():
                # Nothing was recorded, and writing it would end the process.
                raise InputError(
                    f"{self.path}: not written: a profiler of torch ran meanwhile; leave it out"
                )
            _export(self.profiler, self.path, facts, save or save_trace)
            self.written = True


def describe_run(config: Mapping[str, Any], device: torch.device) -> None:
    """Tell the open capture, if there is one, that a run begins; `config`: JSON values."""
    if Capture.current is not None:
        Capture.current.started_run = config
        Capture.current.devices.add(device)


def start_at_block(block: int) -> None:
    """Start the open capture, if there is one and it waits for a block of this number."""
    capture = Capture.current
    if capture is not None and capture.profiler is None and block in capture.blocks:
        capture.start()


def describe_block(config: Mapping[str, Any], device: torch.device) -> None:
    """Tell the capture that records, if there is one, whose block begins."""
    if Capture.current is not None and Capture.current.running:
        Capture.current.recorded_run = config
        Capture.current.devices.add(device)


def _stop_after(capture: Capture, last: int) -> Callable[[], None]:
    """Stop when block `last` has ended; return the way to stop listening."""

    def on_tag(pattern: str, fields: dict[str, Any], start: float, stop: float) -> None:
        if pattern == registry.BLOCK and fields["block"] == last:
            capture.stop()

    return listen(on_tag)


def _profiler(mode: Mode) -> Any:
    """Return the profiler of a mode; `tags` records user scopes alone where torch can.

    Not `torch.profiler.profile`, which imports torch's compiler first and takes over a second.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # lines about its own state, in every program
    if mode == "tags":
        return _UserScopeProfile()
    device = "cuda" if torch.cuda.is_available() else None
    return autograd_profiler.profile(
        use_device=device,
        profile_memory=True,
        use_kineto=True,
        experimental_config=_all_threads(),
    )


def _all_threads() -> Any:
    """Return the configuration that records every thread of the process, where torch can.

    By default torch records the thread that starts the profiler and nothing else, silently; a
    version of torch that knows nothing else is the subject of a warning.
    """
    from torch._C._profiler import _ExperimentalConfig

    try:
        return _ExperimentalConfig(profile_all_threads=True)
    except TypeError:  # a version of torch before it
        name = threading.current_thread().name
        warnings.warn(
            f"torch {torch.__version__} records one thread: this profile holds the work of "
            f"{name} alone. Do the work in it, or install a newer torch",
            stacklevel=2,
        )
        return None


class _UserScopeProfile(autograd_profiler.profile):
    """Records user annotations and skips operators: 40 times smaller, and it stops at once.

    The scopes are a private argument of the profiler's start; where a version of torch has it
    not, operators are recorded too and nothing else changes.
    """

    def __init__(self) -> None:
        super().__init__(use_cpu=True, use_kineto=True, experimental_config=_all_threads())

    def _start_trace(self) -> None:
        from torch._C._profiler import RecordScope

        self.entered = True
        enable: Any = autograd_profiler._enable_profiler  # type: ignore[attr-defined]
        config: Any = self.config
        try:
            enable(config(), self.kineto_activities, {RecordScope.USER_SCOPE})
        except TypeError:
            enable(config(), self.kineto_activities)


def initialize_profiler() -> None:
    """Start and stop an empty profile.

    The profiler prints an error if its first use is in another thread than the import of torch.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with autograd_profiler.profile(use_kineto=True):
        pass


def save_trace(profiler: Any, path: Path) -> None:
    """Write a profiler's trace. This holds the GIL for 2 microseconds per event or more."""
    profiler.export_chrome_trace(str(path))


def _export(profiler: Any, path: Path, facts: dict[str, Any], save: SaveTrace) -> None:
    """Write the profiler's trace with our metadata in it, piece by piece; it appears whole."""
    header = json.dumps({METADATA_KEY: facts})[1:-1].encode()
    beside = path.parent if _is_unicode(path.parent) else None
    with replacing(path) as partial, tempfile.TemporaryDirectory(dir=beside) as folder:
        plain = Path(folder) / "trace.json"
        save(profiler, plain)
        _check_whole(plain)
        with plain.open("rb") as source, _open_for_writing(partial) as target:
            head, brace, rest = source.read(_HEAD_BYTES).partition(b"{")
            target.write(head + brace + header + b"," + rest)
            shutil.copyfileobj(source, target)


def _is_unicode(path: Path) -> bool:
    """Return whether torch takes a path: not one of bytes that the locale has no letters for."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_whole(plain: Path) -> None:
    """Raise an `OSError` if the profiler, which reports no failure, has not written all of it."""
    if plain.is_file() and plain.stat().st_size:
        with plain.open("rb") as file:
            file.seek(-min(_HEAD_BYTES, plain.stat().st_size), os.SEEK_END)
            if file.read().rstrip().endswith(b"}"):
                return
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _open_for_writing(path: Path) -> IO[bytes]:
    compressed = path.suffix == ".gz"
    return cast("IO[bytes]", gzip.open(path, "wb", 6)) if compressed else path.open("wb")
