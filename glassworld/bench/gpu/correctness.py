"""Correctness of a GPU: the tiny world in float32 against the CPU, alone, in batches and live."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassworld.bench.section_runner import Figures
from glassworld.bench.steady_state import idle_action
from glassworld.bench.tiny_world import tiny_start_image, tiny_world
from glassworld.engine.acceleration.parts import accelerate
from glassworld.engine.batch import SessionBatch
from glassworld.engine.pipeline import ExecutionPlan
from glassworld.engine.rollout import Rollout
from glassworld.engine.world import World
from glassworld.play.block_scheduler import BlockScheduler, DeviceThread
from glassworld.play.images import StartImage
from glassworld.play.live_session import FrameChunk, LiveSession, PlayerInput

LATENT_FRAMES = 12
BATCHED_BLOCKS = 4
LIVE_BLOCKS = 8


def measure_correctness(device: str) -> Figures:
    """Compare the tiny world on `device` with the CPU: plain, in live play, and with kernels."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    on_cpu, on_device = tiny_world(), tiny_world()
    if device != "cpu":
        for network in vars(on_device.networks).values():
            network.to(device)
        on_device = World(on_device.spec, on_device.networks, "tiny")
    captured = replace(on_device, plan=ExecutionPlan(cuda_graphs=True))
    expected = on_cpu.generate(tiny_start_image(), LATENT_FRAMES, seed=1)
    figures = {
        **_compare(on_device, expected),
        "live_max_of_255": _compare_live(on_cpu, on_device),
        "live_captured_max_of_255": _compare_live(on_cpu, captured),
    }
    return {**figures, "kernels": _compare(accelerate(on_device, ["kernels"]), expected)}


def _compare(world: World, expected: Rollout) -> dict[str, Any]:
    """Compare a run with the CPU's, and a batch of two sessions with one session alone."""
    rollout = world.generate(tiny_start_image(), LATENT_FRAMES, seed=1)
    latents = (expected.latents - rollout.latents).abs().max() / expected.latents.std()
    frames = np.abs(expected.frames.astype(int) - rollout.frames.astype(int)).max()
    batch = SessionBatch([world.start(tiny_start_image(), seed=seed) for seed in (1, 2)])
    alone, action, difference = world.start(tiny_start_image(), seed=2), idle_action(world), 0
    for _ in range(BATCHED_BLOCKS):
        batched = batch.step([action, action])[1].astype(int)
        difference = max(difference, int(np.abs(batched - alone.step(action)).max()))
    return {
        "latents_max_in_spreads": float(latents),
        "frames_max_of_255": int(frames),
        "batch_max_of_255": difference,
    }


def _compare_live(on_cpu: World, on_device: World) -> int:
    """Compare two players' frames with the CPU's.

    Threads wait for the frames while the next ones are generated, as the server's do.
    """
    spec, pressed = on_device.spec, PlayerInput(1, idle_action(on_device))
    image = StartImage("smooth", tiny_start_image().resize((spec.width, spec.height)))
    device_thread = DeviceThread()
    scheduler = BlockScheduler(device_thread)

    async def play(seed: int) -> int:
        session = await device_thread.run(lambda: LiveSession(on_device, image, seed))
        alone, difference = on_cpu.start(image.image, seed), 0
        for _ in range(LIVE_BLOCKS):
            request = scheduler.request(session, lambda: pressed)
            waits: list[Future[Tensor]] = []
            while (chunk := await request.next_chunk()) is not None:
                waits.append(threads.submit(_frames_of_chunk, chunk))
            block = await request.result
            frames = np.concatenate([wait.result().numpy() for wait in waits]).astype(int)
            for expected in (alone.step(pressed.action), block.frames):
                difference = max(difference, int(np.abs(frames - expected).max()))
        return difference

    async def play_two() -> int:
        return max(await asyncio.gather(play(1), play(2)))

    try:
        with ThreadPoolExecutor(2) as threads:
            return asyncio.run(play_two())
    finally:
        device_thread.close()


def _frames_of_chunk(chunk: FrameChunk) -> Tensor:
    return chunk.frames.wait()[chunk.row]
