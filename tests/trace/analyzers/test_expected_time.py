"""The work of a run, and what should be expected of it at the machine's ceilings."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers import breakdown
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.analyzers.expected_time import expected_table, reference_note
from glassworld.trace.analyzers.flops import (
    decode_frame,
    encode_frames,
    total_cost,
    transformer_pass,
)
from glassworld.trace.analyzers.roofline import roofline_points
from tests.support.traces import CONFIG, engine_run, write

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


def test_the_released_models_work_is_counted_right():
    tokens, model = 3 * 880, RELEASED["model"]
    window = 4 * tokens * 6 * 880 * model["dim"] + 4 * tokens * 257 * model["dim"]
    softmax = 30 * window + 15 * 2 * 4 * tokens * 6 * 1024
    work = total_cost(transformer_pass(RELEASED, 6).values())
    assert 4 * (work.flops - softmax) / 1e12 == pytest.approx(29.7, abs=0.1)
    assert 4 * softmax / 1e12 == pytest.approx(10.8, abs=0.05)
    decode = {first: total_cost(decode_frame(RELEASED, first).values()) for first in (True, False)}
    assert decode[False].flops / 1e12 == pytest.approx(7.63, abs=0.01)
    assert decode[True].flops / 1e12 == pytest.approx(2.44, abs=0.01)
    assert encode_frames(RELEASED, first=True).flops / 1e12 == pytest.approx(1.52, abs=0.005)
    assert encode_frames(RELEASED, first=False).flops / 1e12 == pytest.approx(4.53, abs=0.005)


def test_an_update_pass_ends_at_the_last_layers_keys():
    whole, update = transformer_pass(RELEASED, 6), transformer_pass(RELEASED, 6, update=True)
    assert update["DiT_Head"].flops == 0
    feed_forward = whole["DiT_Feed_Forward"].flops * 29 / 30
    assert update["DiT_Feed_Forward"].flops == pytest.approx(feed_forward)
    keys = 2 * 2 * 3 * 880 * 1536**2
    attention = whole["DiT_Self_Attention"].flops * 29 / 30
    assert update["DiT_Self_Attention"].flops == pytest.approx(attention + keys)
    assert update["DiT_Mouse_Attention"] == whole["DiT_Mouse_Attention"]


@pytest.mark.parametrize(
    ("device", "there", "same"),
    [
        ("cpu", {"processor": "another", "cores": 2}, False),
        ("cpu", {"processor": "this one", "cores": 64}, False),
        ("cpu", {"processor": "this one", "cores": 2, "gpu": "any"}, True),
        ("cuda:1", {"processor": "this one", "cores": 2, "gpu": "any"}, False),
        ("cuda:1", {"processor": "another", "cores": 64, "gpu": "mine"}, True),
        ("cpu", None, True),
    ],
)
def test_ceilings_of_another_machine_are_not_used(ceilings, tmp_path, device, there, same):
    ceilings(machine=there, device=device.partition(":")[0])
    here = {"processor": "this one", "cores": 2, "gpu": "mine"}
    path = tmp_path / "here.json"
    write(path, engine_run(blocks=2), config=CONFIG | {"device": device}, machine=here)
    analysis = analyze(path)
    assert all((row.expected_ms is not None) == same for row in expected_table(analysis))
    assert all((point.roof_gflops is not None) == same for point in roofline_points(analysis))
    told = [note for note in find_caveats(analysis) if "ceilings" in note]
    assert bool(told) != same
    if told:
        assert (there["gpu"] if device != "cpu" else there["processor"]) in told[0]


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"cpu:float32": {"matmul_gflops": 10',
        "\x00\x01",
        "[1]",
        '{"cpu:float32": 3}',
        "[" * 100_000,
        '{"cpu:float32": {"matmul_gflops": NaN, "conv_gflops": 1, "copy_gbps": 1}}',
        '{"cpu:float32": {"matmul_gflops": 1%s, "conv_gflops": 1, "copy_gbps": 1}}' % ("0" * 400),
    ],
    ids=range(8),
)
def test_damaged_ceilings_are_to_be_measured_anew(run, ceilings, tmp_path, content):
    ceilings()
    (tmp_path / "glassworld" / "ceilings.json").write_text(content)
    analysis = analyze(run(blocks=2))
    assert all(row.expected_ms is None for row in expected_table(analysis))
    assert any("glassworld bench ceilings" in note for note in find_caveats(analysis))


def test_expected_table_has_every_row_of_the_reference_breakdown(run):
    analysis = analyze(run())
    rows = {row.row.strip(): row for row in expected_table(analysis)}
    assert list(rows) == [
        "data preparation",
        "inference loop",
        "cache initialization",
        "condition encode",
        "denoising",
        "cache update",
        "VAE decode",
        "post-processing",
    ]
    assert 0.7 < 3 * rows["cache update"].gflop / rows["denoising"].gflop < 1
    inner = ("cache initialization", "condition encode", "denoising", "VAE decode", "cache update")
    parts = sum(rows[name].gflop for name in inner)
    assert rows["inference loop"].gflop == pytest.approx(parts)
    assert "25 %" in reference_note(analysis)


def test_with_fifty_steps_the_update_is_two_percent(run):
    analysis = analyze(run(blocks=2, steps=tuple(range(1000, 0, -20))))
    [update] = breakdown.update_cost(analysis)
    assert update.share_of_transformer == pytest.approx(1 / 51, abs=0.001)


def test_ceilings_turn_work_into_time(run, ceilings):
    ceilings(matmul=100.0, conv=50.0, copy=1e6)
    rows = {row.row.strip(): row for row in expected_table(analyze(run()))}
    assert rows["denoising"].expected_ms == pytest.approx(rows["denoising"].gflop * 10)
    decode = rows["VAE decode"]
    assert decode.expected_ms == pytest.approx(decode.gflop * 20, rel=0.01)
    assert decode.expected_ms < decode.gflop * 20  # its attention is a product
    assert all(row.expected_ms is not None for row in rows.values())


def test_a_part_of_a_run_has_shares_of_a_whole(tmp_path):
    """Recorded from a block on, it has the loop's parts but not the loop's own tag."""
    part = [e for e in engine_run() if not e["name"].startswith(("1", "2_", "2.1_", "3_"))]
    rows = {row.row.strip(): row for row in expected_table(analyze(write(tmp_path / "p", part)))}
    inner = [rows[name] for name in ("denoising", "VAE decode", "cache update")]
    assert sum(row.share for row in inner) == pytest.approx(1)
    assert rows["inference loop"].measured_ms == pytest.approx(sum(r.measured_ms for r in inner))
    assert rows["inference loop"].share == 1


def test_no_tag_is_above_the_roof_of_what_it_reached(run, ceilings):
    ceilings(matmul=100.0, conv=50.0, copy=1.0)
    points = {point.tag: point for point in roofline_points(analyze(run()))}
    feed = points["DiT_Feed_Forward"]
    assert feed.gflop == pytest.approx(8 * (3 * 4 + 3) * (4 * 72 * 64 * 128) / 1e9)
    assert feed.bound == "memory"
    assert feed.roof_gflops == pytest.approx(feed.intensity * 1.0)
    for point in points.values():
        assert point.roof_gflops == pytest.approx(min(point.intensity, 100), rel=0.5)
        assert point.roof_gflops <= point.intensity * 1.0001
        assert point.roof_share == pytest.approx(point.gflops / point.roof_gflops)
