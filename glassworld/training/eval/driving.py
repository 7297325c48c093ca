"""A driver for worlds of the road: it steers by what it sees, in the middle of the road.

A small network learns from the simulator's frames which way its pose would steer. So it can drive a
world for minutes, where a recorded script leaves the world's road after some seconds.
"""

from itertools import islice, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from glassworld.engine.actions.track import Action
from glassworld.engine.world import World
from glassworld.training.sources.drive import MOUSE_LIMIT, DriveSource
from glassworld.training.sources.drive_policies import GO
from glassworld.training.sources.source import Frame

INPUT_SIZE = (32, 48)
WIDTHS = (16, 32, 32)
BATCH_SIZE = 64
RATE = 3e-3
EPISODE_FRAMES = 60
DRIVER_SEED_OFFSET = 11_000
MIDDLE = 0.0


class SteeringRegressor(nn.Module):
    """From frames to the mouse value that leads to the middle of the road."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, *WIDTHS)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU()]
        cells = (INPUT_SIZE[0] // 8) * (INPUT_SIZE[1] // 8)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(cells * WIDTHS[-1], 1))

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames, uint8 [N, H, W, 3], to mouse values in shares of the largest, [N]."""
        pixels = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        return torch.tanh(self.layers(F.adaptive_avg_pool2d(pixels, INPUT_SIZE))).squeeze(1)

    @torch.no_grad()
    def action(self, frame: Frame) -> Action:
        """Return the action at a frame [H, W, 3]: drive on and steer."""
        return steer(MOUSE_LIMIT * float(self(torch.from_numpy(frame.copy())[None])))


def steer(mouse: float) -> Action:
    """Return the action that drives on and moves the mouse, within its limits."""
    return Action(GO, (0.0, float(np.clip(mouse, -MOUSE_LIMIT, MOUSE_LIMIT))))


def learn_to_drive(
    source: DriveSource, frames: int, steps: int, seed: int = 0
) -> SteeringRegressor:
    """Train a driver on frames of the source's own drivers.

    Parameters
    ----------
    source
        Shows frames and knows its pose.
    frames
        Number of frames to learn from.
    steps
        Optimizer steps.
    seed
        Seed of roads, weights and batches.
    """
    images, targets = _record(source, frames, seed + DRIVER_SEED_OFFSET)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        driver = SteeringRegressor()
        optimizer = torch.optim.AdamW(driver.parameters(), RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, max(2, steps))
        for _ in range(steps):
            rows = torch.randint(len(images), (BATCH_SIZE,))
            loss = (driver(images[rows]) - targets[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return driver.eval()


def _record(source: DriveSource, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return frames [N, H, W, 3] and the mouse values, in shares of the largest, [N]."""
    rng = np.random.default_rng(seed)
    images: list[Frame] = []
    targets: list[float] = []
    while len(images) < count:
        source.reset(int(rng.integers(2**31)))
        for held in islice(source.policy(rng), EPISODE_FRAMES // 4):
            for _ in range(held.length):
                images.append(source.step(Action(held.keyboard, held.mouse))[-1])
                targets.append(float(np.clip(source.steering(MIDDLE) / MOUSE_LIMIT, -1, 1)))
    return torch.from_numpy(np.stack(images[:count])), torch.tensor(targets[:count])


def drive_source(
    source: DriveSource, seed: int, blocks: int, driver: SteeringRegressor | None = None
) -> NDArray[np.uint8]:
    """Drive the source from the start of a seed, by its pose or by its frames; return the frames.

    Parameters
    ----------
    source
        To drive.
    seed
        Start and road.
    blocks
        Number of blocks.
    driver
        Steers by the frames. None: the pose does.
    """
    frame = source.reset(seed)
    frames = []
    for _ in range(blocks):
        action = steer(source.steering(MIDDLE)) if driver is None else driver.action(frame)
        frames.append(source.step(action))
        frame = frames[-1][-1]
    return np.concatenate(frames)


def drive_world(
    world: World, start_image: Frame, driver: SteeringRegressor, blocks: int
) -> NDArray[np.uint8]:
    """Drive a world from a start image by its own frames; return the frames [N, H, W, 3]."""
    session = world.start(Image.fromarray(start_image))
    frames, frame = [], start_image
    for _ in range(blocks):
        frames.append(session.step(driver.action(frame)))
        frame = frames[-1][-1]
    return np.concatenate(frames)
