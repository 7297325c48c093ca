"""Kernels of the action module: its heads normed and turned, and its short attentions.

A query meets a handful of keys, so one warp makes a head of a position, for all of a block's
frames, out of registers.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from glassworld.models.kernels.heads import of_session, slots, turned
from glassworld.models.kernels.rows import warps
from glassworld.models.kv_window import KVWindow, Placement
from glassworld.models.rope import Rotary


@triton.jit
def turn_heads(x, angle, cos, sin, eps, heads: tl.constexpr, head_dim: tl.constexpr):
    """A tile of heads `[heads, head_dim]`, each normed by itself, then turned."""
    values = x * tl.rsqrt(tl.sum(x * x, 1) / head_dim + eps)[:, None]
    return turned(values, tl.load(cos + angle), tl.load(sin + angle), heads, head_dim)


@triton.jit
def place_actions_kernel(
    kv,
    cos,
    sin,
    slots,
    k,
    v,
    frames,
    positions,
    turns,
    of_row,
    of_position,
    of_head,
    eps,
    heads: tl.constexpr,
    head_dim: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    batch, frame = row // (frames * positions), row // positions % frames
    head = tl.arange(0, heads)[:, None]
    at = tl.arange(0, head_dim)[None, :]
    here = row * of_row + head * head_dim + at
    angle = batch * turns + frame * (head_dim // 2) + tl.arange(0, head_dim // 2)[None, :]
    keys = tl.load(kv + here).to(tl.float32)
    keys = turn_heads(keys, angle, cos, sin, eps, heads, head_dim)
    to = (batch * positions + row % positions) * of_position + head * of_head
    to += tl.load(slots + frame) * head_dim + at
    tl.store(k + to, keys.to(k.dtype.element_ty))
    tl.store(v + to, tl.load(kv + here + heads * head_dim))


def place_actions(
    kv: Tensor, eps: float, rotary: Rotary, window: KVWindow, place: Placement
) -> None:
    """Norm and turn each head's keys of an action; keys and values go to their slots.

    `kv`: `[b, f, positions, 2 * width]`, its last axis dense, the others as one: the mouse's part
    of a product is. `window`: of `b * positions` sequences; `rotary` as in `ActionPass`. Heads
    and their width are powers of two.
    """
    batch, frames, positions, _ = kv.shape
    heads, head_dim = window.k.shape[1], window.k.shape[3]
    place_actions_kernel[(batch * frames * positions,)](
        kv,
        rotary.cos,
        rotary.sin,
        slots(place, kv.device),
        window.k,
        window.v,
        frames,
        positions,
        of_session(rotary),
        kv.stride(2),
        window.k.stride(0),
        window.k.stride(1),
        eps,
        heads=heads,
        head_dim=head_dim,
        num_warps=warps(heads * head_dim),
    )


@triton.jit
def attend_actions_kernel(
    q,
    cos,
    sin,
    k,
    v,
    out,
    positions,
    filled,
    turns,
    of_row,
    of_batch,
    of_position,
    of_head,
    eps,
    frames: tl.constexpr,
    slots: tl.constexpr,
    heads: tl.constexpr,
    head_dim: tl.constexpr,
):
    batch, position = tl.program_id(0) // positions, tl.program_id(0) % positions
    head, at, slot = tl.program_id(1), tl.arange(0, head_dim), tl.arange(0, slots)
    past = batch.to(tl.int64) * of_batch + position.to(tl.int64) * of_position + head * of_head
    past += slot[:, None] * head_dim + at[None, :]
    keys = tl.load(k + past, slot[:, None] < filled, 0.0).to(tl.float32)
    values = tl.load(v + past, slot[:, None] < filled, 0.0).to(tl.float32)
    for frame in tl.static_range(frames):
        row = ((batch * frames + frame) * positions + position).to(tl.int64)
        here = head * head_dim + at[None, :]
        query = tl.load(q + row * of_row + here).to(tl.float32)
        angle = batch * turns + frame * (head_dim // 2) + tl.arange(0, head_dim // 2)[None, :]
        query = turn_heads(query, angle, cos, sin, eps, 1, head_dim)
        scores = tl.sum(query * keys, 1) * (head_dim**-0.5)
        scores = tl.where(slot < filled, scores, float("-inf"))
        weights = tl.exp(scores - tl.max(scores))
        mixed = tl.sum(weights[:, None] * values, 0) / tl.sum(weights)
        to = row * (heads * head_dim) + head * head_dim + at
        tl.store(out + to, mixed.to(out.dtype.element_ty))


def attend_actions(
    q: Tensor, eps: float, rotary: Rotary, window: KVWindow, place: Placement
) -> Tensor:
    """Norm and turn each head's queries and attend to the keys and values of a window.

    `q`: `[b, f, positions, width]`, its last axis dense, the others as one. `window`: of `b *
    positions` sequences, or of `b` that all positions look at. Returns `[b, f, positions,
    width]`. Heads and their width are powers of two.
    """
    batch, frames, positions, _ = q.shape
    sequences, heads, slots, head_dim = window.k.shape
    shared = sequences == batch and positions > 1
    out = q.new_empty(q.shape)
    step = window.k.stride(0)
    attend_actions_kernel[(batch * positions, heads)](
        q,
        rotary.cos,
        rotary.sin,
        window.k,
        window.v,
        out,
        positions,
        place.filled,
        of_session(rotary),
        q.stride(2),
        step if shared else positions * step,
        0 if shared else step,
        window.k.stride(1),
        eps,
        frames=frames,
        slots=triton.next_power_of_2(slots),
        heads=heads,
        head_dim=head_dim,
        num_warps=1,
    )
    return out
