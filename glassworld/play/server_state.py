"""The state that all players share: world, device thread, slots, downloads and counters."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from PIL import Image

from glassworld.engine.checkpoint.load import load_from
from glassworld.engine.checkpoint.locate import locate_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.world import World
from glassworld.play.block_scheduler import BlockScheduler, DeviceThread
from glassworld.play.downloads import DownloadStore, RecordingStore
from glassworld.play.handover.suspended import SessionKeeper
from glassworld.play.images import StartImage, load_gallery
from glassworld.play.limits.decoder import ImageDecoder
from glassworld.play.traces.block_capture import BlockCapture
from glassworld.play.traces.flight_recorder import FlightRecorder

SLOTS = 4
"""Players at a time. Each needs the caches of a session and a share of the device."""


BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
"""Upper bounds, in seconds, of the histogram of block times."""

RECENT_BLOCKS = 64
"""Blocks of all players that the median is taken over."""


@dataclass
class Metrics:
    """Counters of one server since it started."""

    players: int = 0
    refused: int = 0  # because all slots were taken
    faults: int = 0  # connections closed because of invalid messages
    frames: int = 0
    stalls: int = 0
    block_seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_BLOCKS))

    @property
    def recent_block_seconds(self) -> float:
        """Median time of the recent blocks, 0 before the first."""
        return median(self.recent) if self.recent else 0.0

    def count_block(self, seconds: float) -> None:
        """Count a block that took `seconds` to generate."""
        self.block_seconds += seconds
        self.recent.append(seconds)
        bucket = next((i for i, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
        self.buckets[bucket] += 1

    def text(self, ready: bool, slots_taken: int, waiting: int, tasks: int) -> str:
        """Return all metrics in the Prometheus text format."""
        lines = [
            *_metric("ready", "gauge", "1 once the world is loaded", int(ready)),
            *_metric("sessions", "gauge", "connected players", slots_taken),
            *_metric("queue", "gauge", "jobs waiting for or running on the device", waiting),
            *_metric("tasks", "gauge", "asyncio tasks, including this request's", tasks),
            *_metric("players_total", "counter", "players admitted", self.players),
            *_metric(
                "refused_total", "counter", "players refused for lack of a slot", self.refused
            ),
            *_metric("faults_total", "counter", "connections closed for bad input", self.faults),
            *_metric("frames_total", "counter", "frames sent", self.frames),
            *_metric("stalls_total", "counter", "times a player ran out of frames", self.stalls),
            "# HELP glassworld_block_seconds time to generate a block",
            "# TYPE glassworld_block_seconds histogram",
        ]
        total = 0
        for bound, count in zip([*map(str, BUCKETS), "+Inf"], self.buckets, strict=True):
            total += count
            lines.append(f'glassworld_block_seconds_bucket{{le="{bound}"}} {total}')
        lines.append(f"glassworld_block_seconds_sum {self.block_seconds}")
        lines.append(f"glassworld_block_seconds_count {total}")
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, meaning: str, value: float) -> tuple[str, str, str]:
    full_name = f"glassworld_{name}"
    return f"# HELP {full_name} {meaning}", f"# TYPE {full_name} {kind}", f"{full_name} {value}"


class LoadedWorld(NamedTuple):
    """A world and the images that sessions may start from."""

    world: World
    images: list[StartImage]


def open_world(options: LoadOptions) -> LoadedWorld:
    """Load the world that `options` name, and its start images."""
    located = locate_world(options)
    world = load_from(options, located)
    images = []
    if located.folder is not None:
        images = load_gallery(located.folder, world.spec.height, world.spec.width)
    return LoadedWorld(world, images or [blank_image(world)])


def blank_image(world: World) -> StartImage:
    """Return a gray image, for worlds without start images."""
    size = (world.spec.width, world.spec.height)
    return StartImage("blank", Image.new("RGB", size, (128, 128, 128)))


class ServerState:
    """The shared state of one server.

    The event loop owns it, except for the world, which the device thread owns. With a `keeper`,
    the server is one of several, and players need its tickets. With `flight_recorder_seconds`, it
    keeps the tags of so long, to explain late frames. `replay` is the command that players get to
    replay a recording.
    """

    def __init__(
        self,
        slots: int = SLOTS,
        keeper: SessionKeeper | None = None,
        flight_recorder_seconds: float = 0,
        replay: str = "",
    ) -> None:
        self.slots, self.slots_taken, self.keeper = slots, 0, keeper
        self.replay = replay
        self.device_thread = DeviceThread()
        self.scheduler = BlockScheduler(self.device_thread)
        self.downloads, self.metrics = DownloadStore(), Metrics()
        self.flight_recorder: FlightRecorder | None = None
        if flight_recorder_seconds:
            self.flight_recorder = FlightRecorder(self.downloads, flight_recorder_seconds)
        self.recordings = RecordingStore(self.downloads, self.device_thread.begin)
        self.image_decoder = ImageDecoder()
        self.ready = asyncio.Event()
        self.world: World
        self.images: list[StartImage] = []
        self.capture: BlockCapture | None = None  # there is one profiler for all players

    async def load(self, load: Callable[[], LoadedWorld]) -> None:
        """Load the world and warm it up, then admit the players who wait."""
        self.world, self.images = await self.device_thread.run(lambda: _warm_up(load()))
        self.ready.set()

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """Hold a slot for the duration of the `with`; yield False if all are taken."""
        if self.slots_taken >= self.slots:
            self.metrics.refused += 1
            yield False
            return
        self.slots_taken += 1
        self.metrics.players += 1
        try:
            yield True
        finally:
            self.slots_taken -= 1

    def close(self) -> None:
        """Finish the running job, drop the blocks, end the sessions and delete the downloads."""
        if self.flight_recorder is not None:
            self.flight_recorder.close()
        self.scheduler.close()
        self.device_thread.close()
        self.recordings.close()
        self.downloads.close()


def _warm_up(loaded: LoadedWorld) -> LoadedWorld:
    """Generate two blocks: the decoder runs other code for the first than for the later ones."""
    session = loaded.world.start(loaded.images[0].image)
    for _ in range(2):
        session.step(loaded.world.space.press(()))
    return loaded
