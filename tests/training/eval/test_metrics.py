"""Metrics of frames with known turns and known differences."""

import numpy as np
import pytest

from glassworld.training.eval.metrics import frame_psnr, half_width_95, ssim, turn_pixels


def test_metrics_measure_turns_and_equality() -> None:
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (64, 200, 3), dtype=np.uint8)
    panorama = np.stack([wide[:, 4 * i : 4 * i + 96] for i in range(5)])
    assert turn_pixels(panorama) == 16
    assert turn_pixels(panorama[::-1]) == -16
    assert frame_psnr(panorama, panorama) == 60
    assert ssim(panorama, panorama) == pytest.approx(1)
    assert ssim(panorama[:1], panorama[1:2]) < 0.2


def test_frame_psnr_of_a_known_error() -> None:
    black = np.zeros((1, 4, 4, 3), np.uint8)
    assert frame_psnr(black + 255, black) == pytest.approx(0)
    assert frame_psnr(black + 51, black) == pytest.approx(20 * np.log10(5))


def test_half_width_95_covers_the_mean_of_few_values_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 4, 8, 64):
        samples = rng.normal(size=(4000, count))
        widths = np.array([half_width_95(sample) for sample in samples])
        assert (np.abs(samples.mean(1)) <= widths).mean() == pytest.approx(0.95, abs=0.012)
    assert half_width_95(np.ones(1)) is None
