"""Rotary position embedding (RoPE) on interleaved pairs, for positions without an upper limit.

Su et al. 2021, arXiv:2104.09864: pair i of a head of d dimensions is rotated by
position * theta^(-2i / d).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class RotaryTable(NamedTuple):
    """The rotation of each pair, `[..., positions, head_dim / 2]`: float32, and as complex64."""

    cos: Tensor
    sin: Tensor
    cis: Tensor

    @staticmethod
    def from_angles(angles: Tensor) -> RotaryTable:
        """Build the table from angles in radians, `[..., positions, head_dim / 2]`."""
        cos, sin = angles.cos().float(), angles.sin().float()
        return RotaryTable(cos, sin, torch.complex(cos, sin))

    @staticmethod
    def cat(tables: Sequence[RotaryTable], axes: int) -> RotaryTable:
        """Stack the tables of several sessions: batch axis first, then `axes` of length 1."""
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
        return torch.view_as_real(torch.view_as_complex(pairs) * self.cis).flatten(-2).to(x.dtype)


def rope_frequencies(dims: int, theta: float, device: torch.device) -> Tensor:
    """Return theta^(-2i / dims) for the pairs i of `dims` dimensions, float64."""
    return theta ** -(torch.arange(0, dims, 2, dtype=torch.float64, device=device) / dims)


def rope_3d(frames: Tensor, grid: tuple[int, int], head_dim: int) -> RotaryTable:
    """Return the transformer's table for tokens of latent frames, in (frame, row, column) order.

    `frames`: absolute latent frame indices `[f]`. Of a head's d dimensions, d - 4 (d // 6) rotate
    with the frame, 2 (d // 6) with the row and as many with the column; theta is 10000.
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


def rope_temporal(frames: Tensor, rotated_dims: int, head_dim: int, theta: float) -> RotaryTable:
    """Return the action module's table: the first `rotated_dims` dims rotate with the frame."""
    frequencies = rope_frequencies(rotated_dims, theta, frames.device).float()
    angles = frames.float()[:, None] * frequencies
    unrotated = angles.new_zeros(len(frames), (head_dim - rotated_dims) // 2)
    return RotaryTable.from_angles(torch.cat([angles, unrotated], -1))
