#!/usr/bin/env python3
"""Everything there is to know about a GPU, in one run of under ten minutes, as JSON.

    scripts/gpu_check --json gpu.json

Correctness on CUDA against the CPU, then speed and memory at the released size with untrained
weights: see `glassworld/bench/gpu/sections.py`. Each section is a process of its own: one that fails
or takes too long is recorded with its error, and the others go on. `--rehearse` does it all with
a tiny world on the CPU. Needs the package's run-time dependencies; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glassworld.bench.gpu.context import Rig
    from glassworld.engine.rollout import Rollout
    from glassworld.engine.world import World

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MOST_SECONDS = 170  # of one section
SHOWN_OF_ERROR = 2000
ORDER = (  # what one would want to know first comes first
    "machine",
    "correctness",
    "product_ways",
    "ways_to_be_faster",
    "starts",
    "sessions",
    "decoder_ways",
    "attention_ways",
    "ceilings",
    "roofline",
    "convolution_ways",
    "steady",
)


def main() -> int:
    options = _options()
    if options.section:
        _section(options)
        return 0
    if not options.rehearse and not _has_cuda():
        print("error: no CUDA device is here; --rehearse runs on the CPU", file=sys.stderr)
        return 2
    began = time.perf_counter()
    result: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat()}
    for name in options.only.split(",") if options.only else ORDER:
        left = 60 * options.minutes - (time.perf_counter() - began)
        started = time.perf_counter()
        result[name] = _run(name, options, left)
        options.json.write_text(json.dumps(result, indent=1))
        state = "failed" if "error" in result[name] else "done"
        print(f"{name}: {state}, {time.perf_counter() - started:.0f} s", flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--blocks", type=int, default=30, help="blocks of each speed measurement")
    parser.add_argument(
        "--minutes", type=float, default=9.5, help="sections after this are left out"
    )
    parser.add_argument("--only", default="", help=f"some of {','.join(ORDER)}")
    parser.add_argument("--rehearse", action="store_true", help="a tiny world, on the CPU")
    parser.add_argument("--section", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _run(name: str, options: argparse.Namespace, left: float) -> dict[str, Any]:
    """One section in a process of its own: its figures, or what went wrong."""
    if left <= 0:
        return {"error": "left out: the time was up"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "section.json"
        command = [sys.executable, __file__, "--section", name, "--json", str(path)]
        command += ["--blocks", str(options.blocks)] + ["--rehearse"] * options.rehearse
        most, error = min(left, MOST_SECONDS), ""
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=most)
        except subprocess.TimeoutExpired:
            error = f"took more than {most:.0f} s"
        else:
            if done.returncode:
                error = done.stderr.strip()[-SHOWN_OF_ERROR:] or f"exit {done.returncode}"
        figures: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return {**figures, "error": error} if error else figures


def _section(options: argparse.Namespace) -> None:
    """Run one section in this process and write its figures."""
    from glassworld.bench.gpu.sections import SECTIONS

    own: dict[str, Callable[[bool], dict[str, Any]]] = {
        "machine": _machine,
        "correctness": _correctness,
        "ceilings": _ceilings,
    }
    if options.section in own:
        figures = own[options.section](options.rehearse)
    else:
        with tempfile.TemporaryDirectory() as folder:
            figures = SECTIONS[options.section](_rig(options, Path(folder)))
    _write(options.json, figures)


def _write(path: Path, figures: dict[str, Any]) -> None:
    """Whole or not at all: the section may be ended at any moment."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(figures))
    unfinished.replace(path)


def _rig(options: argparse.Namespace, folder: Path) -> Rig:
    from glassworld.bench.gpu.context import Rig
    from glassworld.engine.checkpoint.load import load_world

    heard = (partial(_write, options.json), partial(print, flush=True))
    if options.rehearse:
        from tests.support import tiny

        return Rig(tiny.world, {}, options.blocks, folder, *heard)
    arguments = {"random_weights": True, "device": "cuda"}
    return Rig(partial(load_world, **arguments), arguments, options.blocks, folder, *heard)


def _machine(rehearse: bool) -> dict[str, Any]:
    import torch

    from glassworld.profiling.metadata import machine, versions

    facts = {"machine": machine(), "versions": versions(), "cuda": torch.version.cuda}
    if not rehearse:
        facts["memory_gb"] = torch.cuda.get_device_properties(0).total_memory / 1e9
    return facts


def _ceilings(rehearse: bool) -> dict[str, Any]:
    """Measured and stored, so that the roofline finds them."""
    from glassworld.bench.peak_rates import measure, store

    device = "cpu" if rehearse else "cuda"
    found = {}
    for dtype in ("float32", None):
        measured = measure(device, dtype)
        store(device, measured)
        found[dtype or "default"] = measured
    return found


def _correctness(rehearse: bool) -> dict[str, Any]:
    """The tiny world in float32 on both devices: alone, two sessions together, and live."""
    from tests.support import tiny
    import torch

    from glassworld.engine.acceleration.parts import accelerate
    from glassworld.engine.world import World

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    here, there = tiny.world(), tiny.world()
    if not rehearse:
        for network in vars(there.networks).values():
            network.to("cuda")
        there = World(there.spec, there.networks, "tiny")
    expected = here.generate(tiny.picture(), 12, seed=1)
    figures = {
        **_apart(there, expected),
        "live_max_of_255": _live(here, there),
        "live_captured_max_of_255": _live(here, there, captured=True),
    }
    accelerate(there, ["kernels"])
    return {**figures, "kernels": _apart(there, expected)}


def _apart(world: World, expected: Rollout) -> dict[str, Any]:
    """How far the world is from the same on the CPU, and two of its sessions together from one."""
    import numpy as np
    from tests.support import tiny

    from glassworld.bench.steady_state import idle
    from glassworld.engine.batch import SessionBatch

    made = world.generate(tiny.picture(), 12, seed=1)
    latents = (expected.latents - made.latents).abs().max() / expected.latents.std()
    frames = np.abs(expected.frames.astype(int) - made.frames.astype(int)).max()
    batch = SessionBatch([world.start(tiny.picture(), seed=seed) for seed in (1, 2)])
    alone, action, apart = world.start(tiny.picture(), seed=2), idle(world), 0
    for _ in range(4):
        together = batch.step([action, action])[1].astype(int)
        apart = max(apart, int(np.abs(together - alone.step(action)).max()))
    return {
        "latents_max_in_spreads": float(latents),
        "frames_max_of_255": int(frames),
        "batch_max_of_255": apart,
    }


def _live(here: World, there: World, captured: bool = False) -> int:
    """How far two players' frames are from the CPU's, waited for in threads while more is made."""
    import asyncio
    from concurrent.futures import Future, ThreadPoolExecutor

    import numpy as np
    from tests.support import tiny
    from torch import Tensor

    from glassworld.bench.steady_state import idle
    from glassworld.play.images import StartingPicture
    from glassworld.play.block_scheduler import BlockScheduler
    from glassworld.play.live_session import Order, Walk
    from glassworld.play.worker import Worker

    spec, order = there.spec, Order(1, idle(there))
    picture = tiny.picture().resize((spec.width, spec.height))
    there.pipeline.captures = captured
    worker = Worker()
    rounds = BlockScheduler(worker)

    async def play(seed: int) -> int:
        walk = await worker.run(lambda: Walk(there, StartingPicture("smooth", picture), seed))
        alone, apart = here.start(picture, seed), 0
        waits: list[Future[Tensor]] = []
        for _ in range(8):
            waits.clear()
            block = await rounds.make(
                walk,
                lambda: order,
                lambda part: waits.append(threads.submit(lambda: part.frames.wait()[part.row])),
            )
            frames = np.concatenate([each.result().numpy() for each in waits]).astype(int)
            for expected in (alone.step(order.action), block.frames):
                apart = max(apart, int(np.abs(frames - expected).max()))
        return apart

    async def both() -> int:
        return max(await asyncio.gather(play(1), play(2)))

    try:
        with ThreadPoolExecutor(2) as threads:
            return asyncio.run(both())
    finally:
        there.pipeline.captures = False
        worker.close()


if __name__ == "__main__":
    sys.exit(main())
