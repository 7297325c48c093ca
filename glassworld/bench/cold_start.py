"""Cold start: seconds from a new process to its first frames, and the memory it takes.

    python -m glassworld.bench.cold_start '{"world": {}, "accelerate": [], "picture": "gray.png"}'

prints a line when the frames of the first block are there. Once the window is full it prints its
memory and when each stage ended, in seconds after `began` (a `time.time`; default: its own start).
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
    from glassworld.engine.session import Session
    from glassworld.engine.world import World

FIRST_FRAMES = "first frames"
WARM_BLOCKS = 6
"""Blocks until the window of a released world is full and every kind of block has run."""

SHOWN_OF_ERROR = 500


def cold_start(request: dict[str, Any], cache: Path | None = None) -> dict[str, Any]:
    """Measure the seconds from a new process to its first frames, and its memory in MB.

    `request` has the arguments of `load_world` as `world`, the parts to `accelerate`, perhaps the
    `vae_compile_mode` after them, and the path of the start image as `picture`. `cache` is the
    folder of compiled code; default: the user's.
    Raises `RuntimeError` with the process's own words if it fails.
    """
    environment = dict(os.environ)
    if cache is not None:  # Triton keeps its kernels in a folder of its own
        environment |= {"XDG_CACHE_HOME": str(cache), "TRITON_CACHE_DIR": str(cache / "triton")}
    began = time.time()
    command = [sys.executable, "-m", __name__, json.dumps({**request, "began": began})]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        while (line := process.stdout.readline()).strip() != FIRST_FRAMES:
            if not line:
                raise process_failure("cold start", errors)
        first = time.time() - began
        lines = process.stdout.read().splitlines()
        if not lines:
            raise process_failure("cold start", errors)
        figures: dict[str, Any] = json.loads(lines[-1])
    return {"first_frames_s": first, **figures}


def process_failure(section: str, errors: IO[str]) -> RuntimeError:
    """Return an error with the last words of a section's process, which wrote them to a file."""
    errors.seek(0)
    text = errors.read().strip()[-SHOWN_OF_ERROR:]
    return RuntimeError(f"the process of the {section} failed: {text}")


def compiled_starts(request: dict[str, Any], cache: Path) -> dict[str, float]:
    """Measure two cold starts: with an empty compile cache, and with the cache of the first."""
    return {
        "first_frames_cold_cache_s": cold_start(request, cache)["first_frames_s"],
        "first_frames_warm_cache_s": cold_start(request, cache)["first_frames_s"],
    }


def accelerated(world: World, request: dict[str, Any]) -> World:
    """Return a world with the parts that a request accelerates, compiled afterwards if it asks.

    In this order, as `load_world` does: what is compiled cannot be accelerated any more.
    """
    from glassworld.engine.acceleration.compile import compile_decoder
    from glassworld.engine.acceleration.parts import accelerate
    from glassworld.models.vae.decoder import VAEDecoder

    world = accelerate(world, request["accelerate"])
    mode, decoder = request.get("vae_compile_mode", "none"), world.networks.decoder
    if isinstance(decoder, VAEDecoder):
        compile_decoder(decoder, world.spec, mode)
    return world


class Timeline:
    """End of each stage, in seconds since the process was asked for."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.seconds: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """Record that `stage` ends now."""
        self.seconds[stage] = time.time() - self.began


def _main() -> None:
    request = json.loads(sys.argv[1])
    timeline = Timeline(request.get("began", time.time()))
    timeline.mark("interpreter")
    import torch  # noqa: F401  (timed as a stage of its own)

    timeline.mark("torch")
    from glassworld.engine.checkpoint.load import load_world
    from glassworld.engine.runtime.device import synchronize

    timeline.mark("glassworld")
    world = load_world(**request["world"])
    synchronize(world.device)
    timeline.mark("world")
    world = accelerated(world, request)
    synchronize(world.device)
    timeline.mark("accelerated")
    session, action = world.start(request["picture"]), world.space.press(())
    synchronize(world.device)
    timeline.mark("session")
    session.step(action)
    timeline.mark(FIRST_FRAMES)
    print(FIRST_FRAMES, flush=True)
    for _ in range(WARM_BLOCKS):
        session.step(action)
    print(json.dumps({**_memory(session), "timeline_s": timeline.seconds}))


def _memory(session: Session) -> dict[str, float | None]:
    """Return the megabytes of the weights, of the session, and of the process at its peak.

    The peak is None where the system does not tell.
    """
    networks, device = session.world.networks, session.world.device.type
    parts = (networks.dit, networks.encoder, networks.decoder, networks.vision)
    weights = sum(weight.nbytes for part in parts for weight in part.parameters())
    peak = _peak_bytes(device)
    figures = {
        "weights_mb": weights / 1e6,
        "session_mb": session.state.nbytes / 1e6,
        "peak_memory_mb": None if peak is None else peak / 1e6,
    }
    if device == "cuda":
        import torch

        figures["peak_allocated_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return figures


def _peak_bytes(device: str) -> int | None:
    """Return the peak memory of this process: of the GPU, or resident on a CPU.

    None on Windows, which counts it elsewhere.
    """
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_reserved()
    status = Path("/proc/self/status")
    if status.is_file():  # `resource` would start from the peak of the parent
        line = next(
            line
            for line in status.read_text(encoding="utf-8").splitlines()
            if line.startswith("VmHWM")
        )
        return 1024 * int(line.split()[1])
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    _main()
