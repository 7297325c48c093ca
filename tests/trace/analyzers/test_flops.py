"""Costs counted from a configuration."""

from typing import Any

import pytest

from glassworld.trace.analyzers.flops import (
    decode_frame,
    encode_frames,
    total_cost,
    transformer_pass,
)

RELEASED: dict[str, Any] = {
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


def test_costs_of_the_released_model_are_right():
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


def test_transformer_pass_update_ends_at_the_last_layers_keys():
    whole, update = transformer_pass(RELEASED, 6), transformer_pass(RELEASED, 6, update=True)
    assert update["DiT_Head"].flops == 0
    feed_forward = whole["DiT_Feed_Forward"].flops * 29 / 30
    assert update["DiT_Feed_Forward"].flops == pytest.approx(feed_forward)
    keys = 2 * 2 * 3 * 880 * 1536**2
    attention = whole["DiT_Self_Attention"].flops * 29 / 30
    assert update["DiT_Self_Attention"].flops == pytest.approx(attention + keys)
    assert update["DiT_Mouse_Attention"] == whole["DiT_Mouse_Attention"]
