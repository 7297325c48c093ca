"""Measures between pictures: PSNR, SSIM, how far a view turned, how far from real frames."""

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from glassworld.training.sources.maze import Frame

LARGEST_SHIFT = 14
"""Pixels that a turn may move the middle of the picture between two frames, in the search."""
THUMB = (16, 24)


def psnr(made: Frame, truth: Frame) -> float:
    """Peak signal to noise of 8-bit frames [N, H, W, 3], in decibels, at most 60."""
    error = np.square(made.astype(np.float64) - truth).mean()
    return float(10 * np.log10(255**2 / max(error, 255**2 / 1e6)))


def ssim(made: Frame, truth: Frame, window: int = 7) -> float:
    """Structural similarity of grey values over uniform windows (Wang et al., 2004)."""
    x, y = (
        torch.from_numpy(frames.astype(np.float32).mean(-1))[:, None] for frames in (made, truth)
    )

    def local(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(values, window, 1)

    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    both = local(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return float((score / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def turn_pixels(frames: Frame) -> float:
    """How far the middle of the picture moved left over these frames, in pixels.

    Frame by frame the shift with the smallest mean difference; a turn to the right is positive.
    """
    grey = frames.astype(np.float32).mean(-1)
    edge = LARGEST_SHIFT
    total = 0
    for before, after in pairwise(grey):
        middle = after[:, edge:-edge]
        costs = [
            np.abs(before[:, edge + shift : edge + shift + middle.shape[1]] - middle).mean()
            + 0.01 * abs(shift)
            for shift in range(-edge, edge + 1)
        ]
        total += int(np.argmin(costs)) - edge
    return float(total)


def thumbs(frames: Frame) -> NDArray[np.float32]:
    """Frames [N, H, W, 3] as small pictures in a row [N, 16 * 24 * 3]."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    small: NDArray[np.float32] = F.adaptive_avg_pool2d(pixels, THUMB).flatten(1).numpy()
    return small


def distance_to_real(frames: Frame, real: NDArray[np.float32]) -> float:
    """Root mean square difference (0..255) of each frame's thumb to the nearest real one."""
    nearest = torch.cdist(torch.from_numpy(thumbs(frames)), torch.from_numpy(real)).amin(1)
    return float(nearest.mean() / real.shape[1] ** 0.5)


def sharpness(frames: Frame) -> float:
    """Mean absolute difference of horizontal neighbours, 0..255."""
    return float(np.abs(np.diff(frames.astype(np.float32), axis=2)).mean())
