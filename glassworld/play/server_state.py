"""What all players share: the world, the device's worker, the seats, the shelf."""

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
from glassworld.play.block_scheduler import BlockScheduler
from glassworld.play.downloads import DownloadStore
from glassworld.play.images import StartingPicture, gallery
from glassworld.play.metrics import Metrics
from glassworld.play.worker import DeviceThread

SEATS = 4
"""Players at once. Each holds a session's caches and takes its share of the device."""


class LoadedWorld(NamedTuple):
    """A world and the pictures that walks may start at."""

    world: World
    pictures: list[StartingPicture]


def open_stage(load: LoadOptions) -> LoadedWorld:
    """The world that `load` names, and its pictures."""
    located = locate_world(load)
    world = load_from(load, located)
    spec = world.spec
    folder = located.folder
    pictures = [] if folder is None else gallery(folder, spec.height, spec.width)
    return LoadedWorld(world, pictures or [blank(world)])


def blank(world: World) -> StartingPicture:
    """A grey picture, for worlds without any."""
    size = (world.spec.width, world.spec.height)
    return StartingPicture("blank", Image.new("RGB", size, (128, 128, 128)))


class ServerState:
    """One server's shared state. Its event loop owns it; the worker's thread owns the world."""

    def __init__(self, seats: int = SEATS) -> None:
        self.seats, self.taken = seats, 0
        self.worker, self.shelf, self.metrics = DeviceThread(), DownloadStore(), Metrics()
        self.rounds = BlockScheduler(self.worker)
        self.ready = asyncio.Event()
        self.world: World
        self.pictures: list[StartingPicture] = []
        self.capturing: object | None = None  # who has the one profiler there is

    async def open(self, load: Callable[[], LoadedWorld]) -> None:
        """Load the world and warm it up; players wait until then."""
        self.world, self.pictures = await self.worker.run(lambda: _warm(load()))
        self.ready.set()

    @contextmanager
    def seat(self) -> Iterator[bool]:
        """A seat while the `with` lasts; False if none is free."""
        if self.taken >= self.seats:
            self.metrics.refused += 1
            yield False
            return
        self.taken += 1
        self.metrics.players += 1
        try:
            yield True
        finally:
            self.taken -= 1

    def close(self) -> None:
        self.worker.close()
        self.rounds.close()
        self.shelf.close()


def _warm(stage: LoadedWorld) -> LoadedWorld:
    """Make two blocks: the first and the later ones take different ways through the decoder."""
    session = stage.world.start(stage.pictures[0].image)
    for _ in range(2):
        session.step(stage.world.space.press(()))
    return stage
