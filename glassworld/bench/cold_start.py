"""A cold start, in a process of its own: when the first frames are there, and how much it took.

    python -m glassworld.bench.cold_start '{"world": {}, "accelerate": [], "picture": "grey.png"}'

prints a line when the first block's frames have come and, once the window is full, its memory and
how many seconds after `began` (of `time.time`, its own start by default) each stage was over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glassworld.engine.world import Session

FIRST_FRAMES = "first frames"
FULL = 6  # blocks until the windows of released worlds are full and every kind of block was made
SHOWN_OF_ERROR = 500


def cold_start(order: dict[str, Any], cache: Path | None = None) -> dict[str, Any]:
    """Seconds from a new process to its first frames, and its memory in MB.

    `order`: what `load_world` takes as `world`, parts to `accelerate`, the `picture`. `cache`:
    the folder to keep what is compiled in; the user's own by default.
    """
    environment = dict(os.environ)
    if cache is not None:  # Triton's kernels know a folder of their own
        environment |= {"XDG_CACHE_HOME": str(cache), "TRITON_CACHE_DIR": str(cache / "triton")}
    began = time.time()
    command = [sys.executable, "-m", __name__, json.dumps({**order, "began": began})]
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        while (line := process.stdout.readline()).strip() != FIRST_FRAMES:
            if not line:
                raise _ended_early(complaints)
        first = time.time() - began
        rest = process.stdout.read().splitlines()
        if not rest:
            raise _ended_early(complaints)
        figures: dict[str, Any] = json.loads(rest[-1])
    return {"first_frames_s": first, **figures}


def _ended_early(complaints: IO[str]) -> RuntimeError:
    complaints.seek(0)
    said = complaints.read().strip()[-SHOWN_OF_ERROR:]
    return RuntimeError(f"the cold start ended too early: {said}")


def compiled_starts(order: dict[str, Any], cache: Path) -> dict[str, float]:
    """The same twice, with an empty compile cache and with what the first run left in it."""
    return {
        "first_frames_cold_cache_s": cold_start(order, cache)["first_frames_s"],
        "first_frames_warm_cache_s": cold_start(order, cache)["first_frames_s"],
    }


class Timeline:
    """When each stage was over, in seconds since the process was asked for."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.seconds: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        self.seconds[stage] = time.time() - self.began


def main() -> None:
    order = json.loads(sys.argv[1])
    timeline = Timeline(order.get("began", time.time()))
    timeline.mark("interpreter")
    import torch  # noqa: F401  (its own part of a start)

    timeline.mark("torch")
    from glassworld.engine.acceleration.parts import accelerate
    from glassworld.engine.checkpoint.load import load_world
    from glassworld.engine.runtime.device import synchronize

    timeline.mark("glassworld")
    world = load_world(**order["world"])
    synchronize(world.device)
    timeline.mark("world")
    accelerate(world, order["accelerate"])
    synchronize(world.device)
    timeline.mark("accelerated")
    session, action = world.start(order["picture"]), world.space.press(())
    synchronize(world.device)
    timeline.mark("session")
    session.step(action)
    timeline.mark(FIRST_FRAMES)
    print(FIRST_FRAMES, flush=True)
    for _ in range(FULL):
        session.step(action)
    print(json.dumps({**_memory(session), "timeline_s": timeline.seconds}))


def _memory(session: Session) -> dict[str, float]:
    """Megabytes of the weights, of the session and of the process at its peak."""
    networks, device = session.world.networks, session.world.device.type
    parts = (networks.dit, networks.encoder, networks.decoder, networks.vision)
    weights = sum(weight.nbytes for part in parts for weight in part.parameters())
    figures = {
        "weights_mb": weights / 1e6,
        "session_mb": session.state.tensors_bytes() / 1e6,
        "peak_memory_mb": _peak_bytes(device) / 1e6,
    }
    if device == "cuda":
        import torch

        figures["peak_allocated_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return figures


def _peak_bytes(device: str) -> int:
    """The most this process has held: on the GPU, or in all on a CPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_reserved()
    status = Path("/proc/self/status")
    if status.is_file():  # what `resource` says begins with the parent's peak
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
