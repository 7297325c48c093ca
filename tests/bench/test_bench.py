"""The benchmark: its baseline computes the same frames, its figures are there and hang together."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from glassworld.bench import plots, regression
from glassworld.bench.accuracy import distance
from glassworld.bench.cold_start import cold_start
from glassworld.bench.matmul import products_share
from glassworld.bench.peak_rates import measure, store
from glassworld.bench.reference.world import as_released
from glassworld.bench.scaling import over_the_run
from glassworld.bench.steady_state import warm
from glassworld.bench.tables import Order, full_benchmark, print_comparison, print_table
from glassworld.cli import main
from glassworld.engine.acceleration.parts import accelerate
from glassworld.engine.acceleration.tiny_decoder import with_tiny_decoder
from glassworld.engine.world import Networks, World
from glassworld.errors import InputError
from tests.support import tiny
from tests.support.release import write_release


def small_ceilings(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr("glassworld.bench.peak_rates.MATRIX", {"cpu": 64})
    monkeypatch.setattr("glassworld.bench.peak_rates.COPY_MEGABYTES", {"cpu": 1})
    monkeypatch.setattr("glassworld.bench.peak_rates.PICTURES", {"cpu": (1, 4, 8, 8)})


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "world").mkdir()
    flags = write_release(folder / "world")
    world = {"config_path": flags[1], "pretrained_model_path": flags[3]}
    with pytest.MonkeyPatch.context() as patch:
        small_ceilings(patch, folder)
        measured = full_benchmark(
            Order(world, ["attention"], None, 30, (1, 2)), lambda said: None, folder
        )
    measured["folder"] = str(folder)
    return measured


def test_the_figures_that_are_promised(figures: dict[str, Any]) -> None:
    for name in ("fps_median", "baseline_fps_median", "first_frames_s", "peak_memory_mb"):
        assert figures[name] > 0
    assert figures["blocks"] == len(figures["block_ms"]) == 30
    assert figures["machine"]["processor"]
    assert 0 <= figures["deadline_misses"] <= 30
    assert figures["key_to_frame_ms"]["worst"] >= figures["key_to_frame_ms"]["median"] > 0
    assert figures["distance"]["latents_in_spreads"] < 1e-3
    assert figures["distance"]["psnr_db"] > 50
    json.dumps(figures)


def test_parts_add_up_to_no_more_than_the_whole(figures: dict[str, Any]) -> None:
    assert set(figures["stages_ms"]) == {"denoising", "decode", "update"}
    assert len(figures["layer_kinds_ms"]) == 6
    assert all(ms > 0 for ms in figures["layer_kinds_ms"].values())
    assert 0 < figures["products"]["gflop"] < 1
    assert figures["peak_memory_mb"] > figures["weights_mb"] > 0


def test_sessions_take_the_same_memory_each(figures: dict[str, Any]) -> None:
    one, two = figures["sessions"]
    assert (one["sessions"], two["sessions"]) == (1, 2)
    assert one["session_mb"] == two["session_mb"] > 0
    assert min(two["fps_each_together"], two["fps_each_in_turn"]) > 0


def test_the_table_has_the_figures(figures: dict[str, Any]) -> None:
    console = Console(record=True, width=100)
    print_table(figures, console)
    text = console.export_text()
    assert f"{figures['fps_median']:.1f}" in text
    assert f"{figures['peak_memory_mb']:.0f} MB" in text
    assert "1 session " in text
    assert "2 sessions " in text


def test_the_plots_show_every_axis_and_tag(figures: dict[str, Any]) -> None:
    folder = Path(figures["folder"])
    scaling = (folder / "scaling.svg").read_text()
    drawn = ElementTree.fromstring(scaling)
    assert len(drawn.findall("{*}g")) == len(figures["scaling"]) == 6
    for axis in ("tokens of a block", "sessions at once", "blocks of a run"):
        assert axis in scaling
    roofline = (folder / "roofline.svg").read_text()
    assert len(figures["roofline"]) == len(re.findall("<circle", roofline)) == 11


def test_ticks_cover_an_axis() -> None:
    assert plots.Axis(0, 9, 0, 100).ticks() == [0, 2, 4, 6, 8]
    assert plots.Axis(0.5, 200, 0, 100, logarithmic=True).ticks() == [1, 10, 100]
    assert plots.Axis(1, 100, 0, 50, logarithmic=True).at(10) == 25


def test_labels_do_not_lie_on_one_another() -> None:
    placed = plots._apart([(0, 50), (20, 52), (500, 51), (10, 49)])
    assert placed[2] == (500, 51)
    near = sorted(y for x, y in placed if x < 100)
    assert all(below - above >= 11 for above, below in pairwise(near))


def test_a_slower_program_is_found(figures: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    with pytest.raises(InputError, match="--save-baseline"):
        regression.read(path)
    regression.save(figures, path)
    before = regression.read(path)
    assert before["machine"] == figures["machine"]
    same = regression.compare(figures, before)
    assert [row.now for row in same] == pytest.approx([row.before for row in same])
    assert not any(row.fell for row in same)
    slower = {**figures, "speedup": 0.7 * figures["speedup"]}
    fallen = [row.name for row in regression.compare(slower, before) if row.fell]
    assert fallen == ["frames, times the eager baseline's"]
    console = Console(record=True, width=100)
    print_comparison(regression.compare(slower, before), before, console)
    assert console.export_text().count("slower") == 1
    other = {**figures, "config": {**figures["config"], "dtype": "bfloat16"}}
    with pytest.raises(InputError, match="of dtype float32, not of bfloat16"):
        regression.compare(other, before)


@pytest.mark.parametrize("dit", [{}, {"window": 9}, {"window": 7, "sink": 1}])
def test_the_baseline_makes_the_same_frames(dit: dict[str, int]) -> None:
    world = tiny.world(dit=dit)
    baseline = as_released(world)
    found = distance(world, baseline, tiny.picture())  # until frames have left the window
    assert found["latents_in_spreads"] < 1e-6
    assert found["psnr_db"] > 85
    theirs, ours = baseline.networks.dit.patch_embedding, world.networks.dit.patch_embedding
    assert theirs.weight is ours.weight
    accelerate(world, ["int8"])
    assert distance(world, baseline, tiny.picture())["latents_in_spreads"] > 1e-4  # of ours alone


def test_the_baseline_does_without_a_mouse() -> None:
    runner = replace(tiny.DIT.action, keyboard_dim=7, mouse_dim=0)
    world = tiny.world(mode="templerun", dit={"action": runner})
    assert distance(world, as_released(world), tiny.picture())["latents_in_spreads"] < 1e-6


def test_the_baseline_runs_in_half_precision() -> None:
    world = tiny.world()
    own = world.networks
    halves = Networks(
        copy.deepcopy(own.dit).bfloat16(),
        own.encoder,
        copy.deepcopy(own.decoder).half(),
        own.vision,
    )
    half = World(world.spec, halves, "half")
    found = distance(half, as_released(half), tiny.picture())
    assert 0 < found["latents_in_spreads"] < 0.05
    assert found["psnr_db"] > 30


def test_a_tiny_decoder_changes_frames_and_no_latents() -> None:
    world = tiny.world()
    found = distance(with_tiny_decoder(world, None), world, tiny.picture())
    assert found["latents_in_spreads"] == 0
    assert 0 < found["psnr_db"] < 40
    assert distance(world, world, tiny.picture())["psnr_db"] == 100


def test_products_of_a_block_are_counted() -> None:
    world = tiny.world()
    found = products_share(warm(world, tiny.picture()))
    assert found is not None
    dit, tokens = world.spec.dit, 3 * world.spec.tokens_per_frame
    feed_forward = (
        2 * tokens * dit.dim * dit.ffn_dim * 2 * (3 * dit.num_layers + dit.num_layers - 1)
    )
    assert feed_forward / 1e9 < found["gflop"] < 20 * feed_forward / 1e9
    assert found["in_block_ms"] > 0
    assert found["share"] == pytest.approx(found["alone_ms"] / found["in_block_ms"])


def test_a_run_is_summed_up_in_stretches() -> None:
    assert over_the_run([1.0, 1.0, 5.0, 5.0], parts=2) == [(1.0, 1.0), (3.0, 5.0)]
    assert over_the_run([2.0], parts=12) == [(0.5, 2.0)]


def test_a_cold_start_that_fails_is_not_a_figure(tmp_path: Path) -> None:
    order = {"world": {}, "accelerate": [], "picture": str(tmp_path / "missing.png")}
    with pytest.raises(RuntimeError, match=r"(?s)cold start.*missing.png"):
        cold_start(order)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"blocks": 3}, "30"), ({"accelerate": ["speed"]}, "'speed'")]
)
def test_bad_orders(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Order(**arguments)


def test_ceilings_are_stored_for_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_ceilings(monkeypatch, tmp_path)
    path = store("cpu", measure("cpu", "float32"))
    stored = json.loads(path.read_text())["cpu:float32"]
    assert min(stored["matmul_gflops"], stored["copy_gbps"], stored["conv_gflops"]) > 0


@pytest.mark.parametrize(
    ("cache", "flags", "said"),
    [
        ("/dev/null/cache", [], "ceilings are kept there; set XDG_CACHE_HOME"),
        ("", ["--json", "/dev/null/more/c.json"], "choose another output folder"),
        ("", ["--json", "/dev"], "is a folder; name the file to write"),
    ],
)
def test_ceilings_that_cannot_be_kept_are_not_measured(
    cache: str,
    flags: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_ceilings(monkeypatch, Path(cache) if cache else tmp_path)
    assert main(["bench", "ceilings", *flags]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: /dev")
    assert said in printed.err
    assert not printed.out
    assert not list(tmp_path.rglob("ceilings.json"))


def test_a_benchmark_that_cannot_keep_the_ceilings_does_not_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    with pytest.raises(InputError, match="set XDG_CACHE_HOME"):
        full_benchmark(Order(), pytest.fail)


@pytest.mark.parametrize("damaged", ["", '{"cpu:float32": {"matmul', "[1]", "[" * 100_000])
def test_a_damaged_store_of_ceilings_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    small_ceilings(monkeypatch, tmp_path)
    path = store("cpu", {"dtype": "float32"})
    path.write_text(damaged)
    store("cpu", {"dtype": "bfloat16"})
    store("cpu:0", {"dtype": "float32"})  # its number is no part of what a report asks for
    assert sorted(json.loads(path.read_text())) == ["cpu:bfloat16", "cpu:float32"]
