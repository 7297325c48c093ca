"""Metrics of frames: PSNR, SSIM, pixels that a view turned by, distance to real frames."""

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from glassworld.engine.media.images import psnr
from glassworld.specs import TIME_FACTOR
from glassworld.training.sources.source import LATENT_FRAMES_PER_SECOND, Frame

MAX_SHIFT = 14
"""Largest shift in pixels between two frames that the search for turns considers."""
THUMBNAIL_SIZE = (16, 24)
MAX_PSNR = 60.0
STUDENT_T = (12.71, 4.30, 3.18, 2.78, 2.57)
"""97.5 % quantiles of Student's t for 1, 2 and so on degrees of freedom."""


def frame_psnr(frames: Frame, truth: Frame) -> float:
    """Return the PSNR of 8-bit frames [N, H, W, 3] in dB, at most 60."""
    squared_error = np.square(frames.astype(np.float64) - truth).mean()
    return min(MAX_PSNR, psnr(float(squared_error)))


def ssim(frames: Frame, truth: Frame, window: int = 7) -> float:
    """Return the structural similarity of gray values in uniform windows (Wang et al., 2004)."""
    x, y = (torch.from_numpy(rgb.astype(np.float32).mean(-1))[:, None] for rgb in (frames, truth))

    def local_mean(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(values, window, 1)

    mean_x, mean_y = local_mean(x), local_mean(y)
    var_x, var_y = local_mean(x * x) - mean_x**2, local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((score / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def split_seconds(frames: Frame) -> list[Frame]:
    """Split frames [N, H, W, 3] into seconds, without the start image in front of the first."""
    length = TIME_FACTOR * LATENT_FRAMES_PER_SECOND
    first = length - TIME_FACTOR + 1
    cuts = range(first, len(frames), length)
    return [part[1:] if not index else part for index, part in enumerate(np.split(frames, cuts))]


def half_width_95(values: NDArray[np.float64]) -> float | None:
    """Return half the width of the 95 % confidence interval of the mean of values [n].

    It is Student's, since sessions are few. None for a single value, which says nothing of others.
    """
    freedom = len(values) - 1
    if not freedom:
        return None
    few = freedom <= len(STUDENT_T)
    # Beyond the table the first terms of the expansion are within 1 %.
    t = STUDENT_T[freedom - 1] if few else 1.96 + 2.37 / freedom + 2.82 / freedom**2
    return round(float(t * values.std(ddof=1) / len(values) ** 0.5), 3)


def share_interval(right: int, cases: int) -> list[float]:
    """Return the 95 % confidence interval of a share, [low, high] (Wilson, 1927)."""
    share, z = right / cases, 1.96
    center = share + z**2 / (2 * cases)
    half = z * (share * (1 - share) / cases + z**2 / (4 * cases**2)) ** 0.5
    return [round(float((center + side * half) / (1 + z**2 / cases)), 3) for side in (-1, 1)]


def turn_pixels(frames: Frame) -> float:
    """Return how many pixels the center of the image moved left over these frames.

    It sums the shifts of the smallest mean difference between successive frames. A turn to the
    right is positive.
    """
    gray = frames.astype(np.float32).mean(-1)
    total = 0
    for before, after in pairwise(gray):
        center = after[:, MAX_SHIFT:-MAX_SHIFT]
        costs = [
            np.abs(before[:, MAX_SHIFT + shift :][:, : center.shape[1]] - center).mean()
            + 0.01 * abs(shift)
            for shift in range(-MAX_SHIFT, MAX_SHIFT + 1)
        ]
        total += int(np.argmin(costs)) - MAX_SHIFT
    return float(total)


def thumbnails(frames: Frame) -> NDArray[np.float32]:
    """Scale frames [N, H, W, 3] down to flat thumbnails [N, 16 * 24 * 3]."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    small: NDArray[np.float32] = F.adaptive_avg_pool2d(pixels, THUMBNAIL_SIZE).flatten(1).numpy()
    return small


def distance_to_real(frames: Frame, real: NDArray[np.float32]) -> float:
    """Return the mean distance of each frame's thumbnail to the nearest real one.

    The distance is the root mean square difference, 0..255.
    """
    nearest = torch.cdist(torch.from_numpy(thumbnails(frames)), torch.from_numpy(real)).amin(1)
    return float(nearest.mean() / real.shape[1] ** 0.5)


def sharpness(frames: Frame) -> float:
    """Return the mean absolute difference of horizontal neighbors, 0..255."""
    return float(np.abs(np.diff(frames.astype(np.float32), axis=2)).mean())


def motion(frames: Frame) -> float:
    """Return the mean absolute difference of successive frames, 0..255."""
    return float(np.abs(np.diff(frames.astype(np.float32), axis=0)).mean())
