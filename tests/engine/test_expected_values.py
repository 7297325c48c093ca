"""Runs of the tiny world in each mode, against values sampled when the golden runs matched.

The reference's own golden runs are in test_parity; these need nothing beside the clone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.support import tiny

EXPECTED: dict[str, tuple[dict[str, Any], list[float], float, float]] = {
    "universal": (
        {},
        [
            1.38111,
            1.71084,
            1.45624,
            0.34486,
            1.77004,
            0.26223,
            1.46078,
            0.31202,
            2.54103,
            -2.33181,
            1.80122,
            0.55138,
        ],
        1.58031,
        84.577,
    ),
    "gta_drive": (
        {"dit": {"window": 4, "action": replace(tiny.DIT.action, keyboard_dim=2)}},
        [
            -1.36361,
            -1.10433,
            1.993,
            1.47789,
            1.27262,
            0.82057,
            0.95189,
            0.3955,
            0.47507,
            -0.21046,
            -0.90133,
            -1.26139,
        ],
        1.29597,
        83.618,
    ),
    "templerun": (
        {
            "denoising_steps": (1000, 750, 500, 250),
            "dit": {"action": replace(tiny.DIT.action, keyboard_dim=7, mouse_dim=0)},
        },
        [
            0.97042,
            1.24546,
            -0.28475,
            -0.99327,
            0.96448,
            -1.425,
            -1.60453,
            1.76781,
            2.01159,
            -1.15711,
            0.29839,
            -0.5076,
        ],
        1.31057,
        82.174,
    ),
}


@pytest.mark.parametrize("mode", EXPECTED)
def test_expected_values(mode: str) -> None:
    changes, samples, spread, brightness = EXPECTED[mode]
    rollout = tiny.world(mode=mode, **changes).generate(tiny.picture(), 12, seed=42)
    flat = rollout.latents.flatten()
    sampled = flat[torch.linspace(0, len(flat) - 1, len(samples)).long()]
    torch.testing.assert_close(sampled, torch.tensor(samples), atol=2e-4 * spread, rtol=0)
    assert float(flat.std()) == pytest.approx(spread, rel=1e-4)
    assert float(rollout.frames.mean()) == pytest.approx(brightness, abs=0.02)
