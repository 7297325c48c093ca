"""The benchmark: its options, its sections, the figures they promise, and their table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from rich.console import Console

from glassworld.bench import benchmark
from glassworld.bench.benchmark import Benchmark, BenchmarkOptions
from glassworld.bench.peak_rates import fastest_rates
from glassworld.bench.section_runner import Figures, TimeBudget
from glassworld.bench.tables import print_benchmark
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from tests.support import tiny
from tests.support.release import write_release


@pytest.mark.slow
def test_benchmark_measures_the_promised_figures(figures: Figures) -> None:
    for name in ("fps_median", "baseline_fps_median", "first_frames_s", "peak_memory_mb"):
        assert figures[name] > 0
    assert figures["blocks"] == len(figures["block_ms"]) == 6
    assert figures["machine"]["processor"]
    assert 0 <= figures["deadline_misses"] <= 6
    assert figures["key_to_frame_ms"]["worst"] >= figures["key_to_frame_ms"]["median"] > 0
    assert figures["distance"]["latents_in_spreads"] < 1e-3
    assert figures["distance"]["psnr_db"] > 50


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_benchmark_load_compiles_what_it_has_accelerated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "world").mkdir()
    flags = write_release(tmp_path / "world")
    load = LoadOptions(
        config_path=flags[1],
        pretrained_model_path=flags[3],
        device="cpu",
        vae_compile_mode="force",
        accelerate=("attention",),
    )
    measured = Benchmark(BenchmarkOptions(load, blocks=6), TimeBudget(600), tmp_path, print)
    with torch.compiler.set_stance("force_eager"):  # compiling itself takes a minute
        measured.load()
    assert measured.world.plan.attention_backends
    assert measured.world.networks.decoder.compiled
    assert not measured.eager.networks.decoder.compiled


@pytest.mark.slow
def test_parts_of_a_block_are_all_measured(figures: Figures) -> None:
    assert set(figures["stages_ms"]) == {"denoising", "decode", "update"}
    assert len(figures["layer_kinds_ms"]) == 6
    assert all(ms > 0 for ms in figures["layer_kinds_ms"].values())
    assert 0 < figures["products"]["gflop"] < 1
    assert figures["peak_memory_mb"] > figures["weights_mb"] > 0


@pytest.mark.slow
def test_sessions_take_the_same_memory_each(figures: Figures) -> None:
    one, two = figures["sessions"]
    assert (one["sessions"], two["sessions"]) == (1, 2)
    assert one["session_mb"] == two["session_mb"] > 0
    assert min(two["fps_each_together"], two["fps_each_in_turn"]) > 0


@pytest.mark.slow
def test_every_section_prints_a_line_and_reaches_the_json_file(benchmark_run: Any) -> None:
    lines = [line for line in benchmark_run.output.splitlines() if not line.startswith("scaling: ")]
    names = ["world", "cold start", "peak rates", "steady state", "latency", "sessions"]
    names += ["accuracy", "matmul", "roofline", "scaling"]
    assert [line[: len(name)] for line, name in zip(lines, names, strict=True)] == names
    assert all(re.search(r" \d+\.\d s", line) for line in lines)
    stored = json.loads((benchmark_run.folder / "figures.json").read_text())
    assert stored.keys() == benchmark_run.figures.keys()


@pytest.mark.slow
def test_plots_show_every_axis_and_tag(benchmark_run: Any) -> None:
    figures, folder = benchmark_run.figures, benchmark_run.folder
    scaling = (folder / "scaling.svg").read_text()
    panels = ElementTree.fromstring(scaling)
    assert len(panels.findall("{*}g")) == len(figures["scaling"]) == 6
    for axis in ("tokens of a block", "sessions at once", "blocks of a run"):
        assert axis in scaling
    roofline = (folder / "roofline.svg").read_text()
    assert len(figures["roofline"]) == len(re.findall("<circle", roofline)) == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"blocks": 3}, "at least 6"), ({"load": LoadOptions(accelerate=("speed",))}, "'speed'")],
)
def test_bad_options_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BenchmarkOptions(**arguments)


@pytest.mark.slow
def test_a_benchmark_leaves_the_stored_peak_rates_alone(benchmark_run: Any) -> None:
    assert benchmark_run.figures["ceilings"]["matmul_gflops"] > 0
    assert benchmark_run.figures["stored_ceilings"] is None
    assert not list(benchmark_run.folder.rglob("ceilings.json"))


def test_a_baseline_of_another_world_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    baseline = {"world": "other", "device": "cpu", "dtype": "float32"}
    options = BenchmarkOptions(LoadOptions(device="cpu"), baseline=baseline)
    sections = Benchmark(options, TimeBudget(None), tmp_path, pytest.fail).sections()
    with pytest.raises(InputError, match="world drive: the baseline was measured with other"):
        sections[0].measure()


@pytest.mark.parametrize(("seconds", "blocks"), [(0.1, 60), (2.5, 21), (60, 6)])
def test_fewer_blocks_are_measured_where_blocks_are_slow(
    seconds: float, blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`seconds`: of one block of each lane."""
    for name, value in (
        ("warm_session", None),
        ("roofline_points", []),
        ("seconds_of_lanes", seconds),
    ):
        monkeypatch.setattr(benchmark, name, lambda *_, value=value: value)
    monkeypatch.setattr(benchmark, "steady_state", lambda *arguments: {"blocks": arguments[-1]})
    lines: list[str] = []
    run = Benchmark(BenchmarkOptions(), TimeBudget(180), tmp_path, lines.append)
    run.world = run.eager = tiny.world()
    assert run.steady_state() == {"blocks": blocks, "roofline": []}
    assert [line for line in lines if f"{blocks} of 60 blocks" in line] == lines
    assert bool(lines) == (blocks < 60)


def printed(figures: Figures) -> str:
    console = Console(record=True, width=100)
    print_benchmark(figures, console)
    return console.export_text()


@pytest.mark.slow
def test_table_shows_the_figures(figures: Figures) -> None:
    text = printed(figures)
    assert f"{figures['fps_median']:.1f}" in text
    assert f"{figures['peak_memory_mb']:.0f} MB" in text
    assert "1 session " in text
    assert "2 sessions " in text


@pytest.mark.slow
def test_table_of_an_interrupted_benchmark_shows_the_finished_sections(figures: Figures) -> None:
    finished = ("config", "first_frames_s", "weights_mb", "session_mb", "peak_memory_mb")
    text = printed({name: figures[name] for name in finished})
    assert "process start to first frames" in text
    assert "frames per second" not in text
    assert "1 session " not in text


@pytest.mark.slow
def test_matmuls_hidden_in_graphs_are_shown_as_not_measured(figures: Figures) -> None:
    assert "captured graphs hide them" in printed({**figures, "products": None})


@pytest.mark.parametrize(("share", "text"), [(0.578, "58 %"), (4.53, "not measured: other")])
def test_a_share_above_the_peak_is_not_shown(share: float, text: str) -> None:
    assert text in printed({"products": {"share": share}})


def test_of_two_measurements_the_larger_rates_count() -> None:
    earlier = {"matmul_gflops": 60.0, "conv_gflops": 130.0, "copy_gbps": 20.0, "threads": 2}
    later = {"matmul_gflops": 110.0, "conv_gflops": 70.0, "copy_gbps": 19.0, "threads": 2}
    assert fastest_rates(earlier, later) == {
        "matmul_gflops": 110.0,
        "conv_gflops": 130.0,
        "copy_gbps": 20.0,
        "threads": 2,
    }
