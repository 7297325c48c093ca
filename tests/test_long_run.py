"""A run of 10,000 latent frames takes no more memory at its end than at its beginning."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
import yaml

from glassworld import generate
from glassworld.cli import main
from glassworld.engine.media.overlay import draw_keys
from tests.support.paths import ROOT
from tests.support.release import write_release

STATUS = Path("/proc/self/status")
LATENT_FRAMES, BLOCK = 10_000, 20
MAX_GROWTH_MB = 12  # a video's index, written at its end, has 100 bytes for each frame


def resident_megabytes() -> float:
    match = re.search(r"VmRSS:\s+(\d+)", STATUS.read_text(encoding="utf-8"))
    assert match is not None
    return int(match[1]) / 1024


def generate_measured(arguments: list[str]) -> list[float]:
    """Generate in this process, which has done nothing else; return its memory by block."""
    resident: list[float] = []

    def draw(*given: Any) -> Any:
        resident.append(resident_megabytes())
        return draw_keys(*given)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(generate, "draw_keys", draw)
        assert main(["generate", *arguments]) == 0
    return resident


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.is_file(), reason="memory is read from /proc")
def test_memory_of_a_long_run_is_flat(tmp_path: Path) -> None:
    release = write_release(tmp_path / "world")
    settings = tmp_path / "world" / "inference.yaml"
    smallest = {
        "image_or_video_shape": [1, 16, 12, 2, 2],
        "num_frame_per_block": BLOCK,
        "denoising_step_list": [1000],
    }
    settings.write_text(yaml.safe_dump({**yaml.safe_load(settings.read_text()), **smallest}))
    config = tmp_path / "world" / "config" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "local_attn_size": BLOCK}))
    flags = ["--num-output-frames", str(LATENT_FRAMES), "--output-folder", str(tmp_path / "out")]
    latents = tmp_path / "out" / "latents.safetensors"
    command = [
        sys.executable,
        "-m",
        "tests.test_long_run",
        *release,
        *flags,
        "--save-latents",
        str(latents),
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    resident = json.loads(run.stdout.splitlines()[-1])
    blocks = LATENT_FRAMES // BLOCK
    assert len(resident) == blocks
    early, late = resident[blocks // 10], max(resident[-blocks // 10 :])
    print(f"{early:.1f} MB after a tenth of the run, {late:.1f} MB at its end")
    assert late - early < MAX_GROWTH_MB
    with av.open(str(tmp_path / "out" / "demo.mp4")) as video:
        assert video.streams.video[0].frames == 4 * LATENT_FRAMES - 3


if __name__ == "__main__":
    print(json.dumps(generate_measured(sys.argv[1:])))
