"""The state that all players share: the world, the device thread, the slots, the downloads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from PIL import Image

from glassworld.engine.checkpoint.load import load_from
from glassworld.engine.checkpoint.locate import locate_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.world import World
from glassworld.play.block_scheduler import BlockScheduler, DeviceThread
from glassworld.play.downloads import DownloadStore
from glassworld.play.images import StartImage, load_gallery
from glassworld.play.metrics import Metrics

SLOTS = 4
"""Players at a time. Each needs the caches of a session and a share of the device."""


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

    The event loop owns it, except for the world, which the device thread owns.
    """

    def __init__(self, slots: int = SLOTS) -> None:
        self.slots, self.slots_taken = slots, 0
        self.device_thread = DeviceThread()
        self.scheduler = BlockScheduler(self.device_thread)
        self.downloads, self.metrics = DownloadStore(), Metrics()
        self.ready = asyncio.Event()
        self.world: World
        self.images: list[StartImage] = []
        self.capture_owner: object | None = None  # there is one profiler for all players

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
        """Finish the running job, drop the others and delete the downloads."""
        self.device_thread.close()
        self.scheduler.close()
        self.downloads.close()


def _warm_up(loaded: LoadedWorld) -> LoadedWorld:
    """Generate two blocks: the decoder runs other code for the first than for the later ones."""
    session = loaded.world.start(loaded.images[0].image)
    for _ in range(2):
        session.step(loaded.world.space.press(()))
    return loaded
