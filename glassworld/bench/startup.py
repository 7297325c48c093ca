"""A cold start, in a process of its own: when the first frames are there, and how much it took.

    python -m glassworld.bench.startup '{"world": {}, "accelerate": [], "picture": "grey.png"}'

prints a line when the first block's frames have come and, once the window is full, its memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FIRST_FRAMES = "first frames"
FULL = 6  # blocks until the windows of released worlds are full and every kind of block was made


def cold_start(order: dict[str, Any], cache: Path | None = None) -> dict[str, float]:
    """Seconds from a new process to its first frames, and its memory in MB.

    `order`: what `load_world` takes as `world`, parts to `accelerate`, the `picture`. `cache`:
    the folder to keep what is compiled in; the user's own by default.
    """
    environment = os.environ if cache is None else {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", __name__, json.dumps(order)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()).strip() != FIRST_FRAMES:
            if not line:
                raise RuntimeError("the cold start ended before its first frames")
        first = time.perf_counter() - began
        memory: dict[str, float] = json.loads(process.stdout.read().splitlines()[-1])
    return {"first_frames_s": first, **memory}


def compiled_starts(order: dict[str, Any], cache: Path) -> dict[str, float]:
    """The same twice, with an empty compile cache and with what the first run left in it."""
    return {
        "first_frames_cold_cache_s": cold_start(order, cache)["first_frames_s"],
        "first_frames_warm_cache_s": cold_start(order, cache)["first_frames_s"],
    }


def main() -> None:
    from glassworld.engine.acceleration import accelerate
    from glassworld.engine.loading import load_world

    order = json.loads(sys.argv[1])
    world = load_world(**order["world"])
    accelerate(world, order["accelerate"])
    session, action = world.start(order["picture"]), world.space.press(())
    session.step(action)
    print(FIRST_FRAMES, flush=True)
    for _ in range(FULL):
        session.step(action)
    networks = world.networks
    parts = (networks.dit, networks.encoder, networks.decoder, networks.vision)
    weights = sum(weight.nbytes for part in parts for weight in part.parameters())
    session_mb = session.state.tensors_bytes() / 1e6
    print(
        json.dumps(
            {
                "weights_mb": weights / 1e6,
                "session_mb": session_mb,
                "peak_memory_mb": _peak_bytes(world.device.type) / 1e6,
            }
        )
    )


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
