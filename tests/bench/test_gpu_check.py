"""The GPU's check, rehearsed with a tiny world on the CPU, and what it does when a part fails."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from glassworld.bench.checkpoint import write_checkpoint
from glassworld.bench.gpu.accelerations import COMPARED_BLOCKS, TINY, distances, ways_to_be_faster
from glassworld.bench.gpu.cold_starts import Start, starts
from glassworld.bench.gpu.context import BenchContext
from glassworld.bench.gpu.layer_variants import attention_ways, convolution_ways, decoder_ways
from glassworld.bench.gpu.matmul_variants import product_ways
from glassworld.bench.gpu.sections import sessions, steady
from glassworld.engine.checkpoint.load import load_world
from tests.support import tiny
from tests.support.paths import ROOT

SCRIPT = ROOT / "scripts" / "gpu_check"


@pytest.fixture
def rig(tmp_path: Path) -> BenchContext:
    return BenchContext(tiny.world, {}, 3, tmp_path)


def check(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True)


def test_sections_that_need_no_compiler(rig: BenchContext) -> None:
    figures: dict[str, Any] = {
        **steady(rig),
        **sessions(rig, (1, 2)),
        **attention_ways(rig),
        **decoder_ways(rig),
    }
    assert figures["fps_median"] > 0
    assert [row["sessions"] for row in figures["rows"]] == [1, 2]
    assert figures["self"].keys() == {"FLASH_ATTENTION", "MATH"}
    assert figures["kernels_difference_of_255"] <= 1
    json.dumps(figures)


def test_ways_to_be_faster_are_held_against_the_plain_world(rig: BenchContext) -> None:
    kept: list[set[str]] = []
    said: list[str] = []
    rig = replace(rig, keep=lambda figures: kept.append(set(figures)), say=said.append)
    found = ways_to_be_faster(rig, ways=((), ("attention",), ("graphs", TINY), ("speed",)))
    assert found["plain"]["distance_in_spreads"] == [0] * COMPARED_BLOCKS
    assert found["plain"]["kernels"][0]["ms"] > 0
    shown = [(kernel["ms"], kernel["count"]) for kernel in found["plain"]["kernels"]]
    most, launched = (sum(each) for each in zip(*shown, strict=True))
    assert most <= found["plain"]["kernels_ms"] < 1.2 * most
    assert launched <= found["plain"]["launches"]
    assert all(found[way]["fps_median"] > 0 for way in ("plain", "attention", f"graphs+{TINY}"))
    assert "InputError" in found["speed"]["error"]
    assert kept[1] == {"plain", "attention"}
    assert [line.split(":")[0].strip() for line in said] == list(found)
    assert f"{found['plain']['fps_median']:.1f} frames per second, 0.0000 spreads" in said[0]


def test_a_way_that_makes_something_else_is_not_timed(rig: BenchContext) -> None:
    makers = iter([tiny.world, lambda: tiny.world(denoising_steps=(1000, 500))])
    other = BenchContext(lambda: next(makers)(), {}, 3, rig.folder)
    row = ways_to_be_faster(other, ways=((),))["plain"]
    assert max(row["distance_in_spreads"]) > 0.05
    assert "fps_median" not in row


def test_distance_is_in_spreads() -> None:
    expected = torch.tensor([1.0, -1, 1, -1])
    (distance,) = distances([expected + 0.5], [expected])
    assert distance == pytest.approx(0.5 / expected.std().item())


def test_every_convolution_of_the_decoder_is_timed(rig: BenchContext) -> None:
    found = convolution_ways(rig)
    causal = [tuple(row["shape"]) for row in found.pop("causal")]
    assert causal[0] == (16, 16, 1, 4, 6)
    assert causal[-1] == (4, 3, 4, 32, 48)
    assert len(causal) == len(set(causal)) == 6
    assert [ways["shape"] for ways in found.values()] == [
        [16, 8, 2, 4, 6],
        [16, 8, 4, 8, 12],
        [8, 4, 4, 16, 24],
    ]
    assert all(ways["four_small_ms"] > 0 for ways in found.values())


def test_products_are_held_against_float32(rig: BenchContext) -> None:
    found = product_ways(rig)
    assert [ways.pop("shape") for ways in found.values()] == [
        [18, 32, 96],
        [18, 32, 32],
        [18, 32, 48],
        [18, 48, 32],
    ]
    assert found["widen"].keys() - found["narrow"].keys() == {"gelu after it", "gelu in it"}
    made = [row for ways in found.values() for row in ways.values() if "error" not in row]
    assert len(made) >= 4  # not every torch has 8-bit products on a CPU
    assert all(row["us"] > 0 and row["distance_in_spreads"] < 0.1 for row in made)
    json.dumps(found)


def test_a_checkpoint_of_a_world_makes_the_same(tmp_path: Path) -> None:
    world = tiny.world(denoising_steps=(1000, 500), dit={"sink": 1})
    again = load_world(**write_checkpoint(world, tmp_path))
    assert again.spec == world.spec
    made, expected = (each.generate(tiny.picture(), 6).latents for each in (again, world))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


def test_starts_say_where_the_time_goes_and_what_failed(rig: BenchContext) -> None:
    found = starts(rig, {"files": Start(from_files=True), "unknown": Start(("speed",))})
    seconds = list(found["files"]["timeline_s"].values())
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < seconds[-1] <= found["files"]["first_frames_s"]
    assert "must be one of" in found["unknown"]["error"]


def test_the_script_records_a_failure_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    done = check("--rehearse", "--json", str(path), "--only", "machine,nonsense,correctness")
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert result["machine"]["versions"]["torch"] == torch.__version__
    assert "nonsense" in result["nonsense"]["error"]
    assert result["correctness"]["frames_max_of_255"] == 0
    assert "nonsense: failed" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_it_says_so() -> None:
    done = check()
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
