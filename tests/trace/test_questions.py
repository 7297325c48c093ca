"""The answers to the questions, on a run whose answers are known."""

import json

import pytest
from conftest import Clock, write

from glassworld.profiling.registry import REGISTRY
from glassworld.trace import analyze, blocks, questions, tables
from glassworld.trace.expected import expected_table, guide_note
from glassworld.trace.memory import held
from glassworld.trace.names import fold
from glassworld.trace.optable import operator_rows
from glassworld.trace.roofline import roofline
from glassworld.trace.work import decode_frame, encode_frames, total, transformer_pass, update_pass

RELEASED = {
    "frames_per_block": 3,
    "window": 6,
    "latent_shape": [16, 44, 80],
    "model": {
        "dim": 1536,
        "ffn_dim": 8960,
        "num_layers": 30,
        "freq_dim": 256,
        "in_dim": 36,
        "out_dim": 16,
        "patch": [1, 2, 2],
        "context_tokens": 257,
        "action_layers": list(range(15)),
        "mouse_hidden": 1024,
        "keyboard_hidden": 1024,
    },
    "vae": {
        "stage_widths": [96, 192, 384, 384],
        "residual_blocks": 2,
        "temporal": [False, True, True],
    },
}


@pytest.mark.parametrize("pattern", REGISTRY)
def test_every_registered_name_folds_to_its_pattern(pattern):
    values = {"block": 12, "step": 1, "timestep": 666, "layer": 29, "frame": 2}
    folded, dims = fold(pattern.format(**values))
    assert folded == pattern
    assert dims == {key: value for key, value in values.items() if f"{{{key}}}" in pattern}


def test_a_persons_own_tags_fold_by_their_digits():
    assert fold("2.3.1_My_Step_t999") == ("2.3.{n}_My_Step_t{n}", {"block": 1})
    assert fold("step[EXTEND bs=15 toks=15360]")[0] == "step[EXTEND bs={n} toks={n}]"


def test_the_released_models_work_is_counted_right():
    tokens, model = 3 * 880, RELEASED["model"]
    window = 4 * tokens * 6 * 880 * model["dim"] + 4 * tokens * 257 * model["dim"]
    softmax = 30 * window + 15 * 2 * 4 * tokens * 6 * 1024
    work = total(transformer_pass(RELEASED, 6).values())
    assert 4 * (work.flops - softmax) / 1e12 == pytest.approx(29.7, abs=0.1)
    assert 4 * softmax / 1e12 == pytest.approx(10.8, abs=0.05)
    decode = {first: total(decode_frame(RELEASED, first).values()) for first in (True, False)}
    assert decode[False].flops / 1e12 == pytest.approx(7.63, abs=0.01)
    assert decode[True].flops / 1e12 == pytest.approx(2.44, abs=0.01)
    assert encode_frames(RELEASED, first=True).flops / 1e12 == pytest.approx(1.52, abs=0.005)
    assert encode_frames(RELEASED, first=False).flops / 1e12 == pytest.approx(4.53, abs=0.005)


def test_an_update_pass_ends_at_the_last_layers_keys():
    whole, update = transformer_pass(RELEASED, 6), update_pass(RELEASED, 6)
    assert update["DiT_Head"].flops == 0
    feed_forward = whole["DiT_Feed_Forward"].flops * 29 / 30
    assert update["DiT_Feed_Forward"].flops == pytest.approx(feed_forward)
    keys = 2 * 2 * 3 * 880 * 1536**2
    attention = whole["DiT_Self_Attention"].flops * 29 / 30
    assert update["DiT_Self_Attention"].flops == pytest.approx(attention + keys)
    assert update["DiT_Mouse_Attention"] == whole["DiT_Mouse_Attention"]


def test_blocks_steps_and_stages(run):
    analysis = analyze(run(blocks=5))
    stages = questions.stages(analysis)
    assert stages[0].name == "2_Pipeline_Inference"
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    found = blocks.blocks(analysis)
    assert [block.block for block in found] == [0, 1, 2, 3, 4]
    for block in found:
        assert block.steps_ms == pytest.approx(3 * 4 * 0.8, rel=0.03)
        assert block.update_ms == pytest.approx(4 * 0.8, rel=0.03)
        assert block.decode_ms == pytest.approx(4.5, rel=0.03)
        assert block.ms == pytest.approx(
            block.steps_ms + block.update_ms + block.decode_ms + block.other_ms
        )
    assert [(step.step, step.timestep) for step in blocks.steps(analysis)] == [
        (0, 1000),
        (1, 908),
        (2, 714),
    ]
    [update] = questions.update_cost(analysis)
    assert update.share_of_transformer == pytest.approx(0.25, abs=0.01)


def test_self_time_and_children_make_up_the_whole(run):
    analysis = analyze(run())
    whole = sum(row.cpu_ms for row in analysis.tags if len(row.path) == 1)
    assert sum(row.self_cpu_ms for row in analysis.tags) == pytest.approx(whole, rel=1e-6)


def test_operators_under_a_tag(run):
    rows = operator_rows(analyze(run(blocks=2)), "DiT_Feed_Forward")
    assert [row.name for row in rows] == ["aten::addmm"]
    assert rows[0].calls == 2 * 4 * 4
    assert rows[0].share == 1


def test_the_table_has_every_row_of_the_guide(run):
    analysis = analyze(run())
    rows = {row.row.strip(): row for row in expected_table(analysis)}
    assert list(rows) == [
        "data preparation",
        "inference loop",
        "cache initialisation",
        "condition encode",
        "denoising",
        "VAE decode",
        "cache update",
        "post-processing",
    ]
    assert 0.7 < 3 * rows["cache update"].gflop / rows["denoising"].gflop < 1
    inner = ("cache initialisation", "condition encode", "denoising", "VAE decode", "cache update")
    parts = sum(rows[name].gflop for name in inner)
    assert rows["inference loop"].gflop == pytest.approx(parts)
    assert "25 %" in guide_note(analysis)


def test_with_fifty_steps_the_update_is_two_percent(run):
    analysis = analyze(run(blocks=2, steps=tuple(range(1000, 0, -20))))
    [update] = questions.update_cost(analysis)
    assert update.share_of_transformer == pytest.approx(1 / 51, abs=0.001)


def test_ceilings_turn_work_into_time(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "glassworld").mkdir()
    stored = {"cpu:float32": {"matmul_gflops": 100.0, "conv_gflops": 50.0, "copy_gbps": 1e6}}
    (tmp_path / "glassworld" / "ceilings.json").write_text(json.dumps(stored))
    rows = {row.row.strip(): row for row in expected_table(analyze(run()))}
    assert rows["denoising"].expected_ms == pytest.approx(rows["denoising"].gflop * 10)
    decode = rows["VAE decode"]
    assert decode.expected_ms == pytest.approx(decode.gflop * 20, rel=0.01)
    assert decode.expected_ms < decode.gflop * 20  # its attention is a product
    assert all(row.expected_ms is not None for row in rows.values())


def test_no_tag_is_above_the_roof_of_what_it_reached(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "glassworld").mkdir()
    stored = {"cpu:float32": {"matmul_gflops": 100.0, "conv_gflops": 50.0, "copy_gbps": 1.0}}
    (tmp_path / "glassworld" / "ceilings.json").write_text(json.dumps(stored))
    points = {point.tag: point for point in roofline(analyze(run()))}
    feed = points["DiT_Feed_Forward"]
    assert feed.gflop == pytest.approx(8 * (3 * 4 + 3) * (4 * 72 * 64 * 128) / 1e9)
    assert feed.bound == "memory"
    assert feed.roof_gflops == pytest.approx(feed.intensity * 1.0)
    for point in points.values():
        assert point.roof_gflops == pytest.approx(min(point.intensity, 100), rel=0.5)
        assert point.roof_gflops <= point.intensity * 1.0001
        assert point.roof_share == pytest.approx(point.gflops / point.roof_gflops)


def test_memory_by_tag_does_not_depend_on_slices(tmp_path, monkeypatch):
    clock, held_now = Clock(), 0

    def allocate(size):
        nonlocal held_now
        held_now += size
        args = {"Total Allocated": held_now, "Bytes": size, "Device Type": 0, "Device Id": -1}
        clock.events.append(
            {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1}
            | {"ts": round(clock.base + clock.now, 3), "s": "t", "args": args}
        )
        clock.wait(1)

    mib = 2**20
    with clock.tag("outer"):
        clock.wait(1)
        allocate(5 * mib)
        for _ in range(3):
            with clock.tag("inner"):
                clock.wait(1)
                allocate(7 * mib)
                allocate(-6 * mib)
    path = write(tmp_path / "memory.json", clock.events)
    for rows in (1 << 18, 2):
        monkeypatch.setattr(tables, "SLICE_ROWS", rows)
        found = {row.tag: row for row in held(analyze(path))}
        assert found["inner"].peak_mib == found["outer"].peak_mib == 5 + 2 + 7
        assert found["inner"].kept_mib == 1
        assert found["outer"].kept_mib == 8
