"""Rotary position embedding on interleaved pairs, for positions without an upper limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class RotaryTable(NamedTuple):
    """By how much each pair turns, `[..., positions, head_dim / 2]`: float32, and as complex64."""

    cos: Tensor
    sin: Tensor
    both: Tensor

    @staticmethod
    def from_angles(angles: Tensor) -> RotaryTable:
        cos, sin = angles.cos().float(), angles.sin().float()
        return RotaryTable(cos, sin, torch.complex(cos, sin))

    @staticmethod
    def cat(tables: Sequence[RotaryTable], axes: int) -> RotaryTable:
        """Of several sessions: the batch's axis first, then `axes` that all share."""
        return RotaryTable(
            *(
                torch.stack(parts).unflatten(0, (-1, *[1] * axes))
                for parts in zip(*tables, strict=True)
            )
        )

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate `x` `[..., positions, head_dim]`, pair by pair, in float32."""
        pairs = x.float().unflatten(-1, (-1, 2))
        if torch.compiler.is_compiling():  # it fuses real numbers and has no complex ones
            real, imaginary = pairs.unbind(-1)
            rotated = (
                real * self.cos - imaginary * self.sin,
                real * self.sin + imaginary * self.cos,
            )
            return torch.stack(rotated, -1).flatten(-2).to(x.dtype)
        turned = torch.view_as_complex(pairs) * self.both
        return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def rope_frequencies(dims: int, theta: float, device: torch.device) -> Tensor:
    """theta^(-2i / dims) for the pairs i of `dims` dimensions, float64."""
    return theta ** -(torch.arange(0, dims, 2, dtype=torch.float64, device=device) / dims)


def rope_3d(frames: Tensor, grid: tuple[int, int], head_dim: int) -> RotaryTable:
    """The transformer's table for the tokens of latent frames, in (frame, row, column) order.

    `frames`: absolute latent frame indices `[f]`. Of a head's d dims, d - 4 (d // 6) turn with
    the frame, 2 (d // 6) with the row and as many with the column; theta is 10000.
    """
    rows, columns = grid
    space, device = 2 * (head_dim // 6), frames.device
    shape = (len(frames), rows, columns, -1)
    axes = (
        (frames.double()[:, None, None], head_dim - 2 * space),
        (torch.arange(rows, dtype=torch.float64, device=device)[None, :, None], space),
        (torch.arange(columns, dtype=torch.float64, device=device)[None, None, :], space),
    )
    angles = [
        (position[..., None] * rope_frequencies(dims, 1e4, device)).expand(shape)
        for position, dims in axes
    ]
    return RotaryTable.from_angles(torch.cat(angles, -1).flatten(0, 2))


def rope_temporal(frames: Tensor, turning_dims: int, head_dim: int, theta: float) -> RotaryTable:
    """The action module's table: the first `turning_dims` dims turn with the frame index."""
    turning = frames.float()[:, None] * rope_frequencies(turning_dims, theta, frames.device).float()
    still = turning.new_zeros(len(frames), (head_dim - turning_dims) // 2)
    return RotaryTable.from_angles(torch.cat([turning, still], -1))
