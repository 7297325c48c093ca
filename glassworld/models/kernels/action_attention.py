"""Kernels of the action module: its heads normed and turned, and its short attentions.

A query meets a handful of keys, so sums over pairs would take an instruction for each number.
Tensor cores multiply whole tiles: of queries that share their keys, the keyboard's; or of the few
that one position has in several heads, the mouse's, of which pairs across heads are thrown away.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from glassworld.models.kernels.launch import launch
from glassworld.models.kernels.norm_residual import warps
from glassworld.models.kernels.rope import of_session, slots, turned
from glassworld.models.transformer.kv_cache import CacheSlots, RingKVCache
from glassworld.models.transformer.rope import RotaryTable

LEAST = 16  # of what tensor cores add up: numbers of a head, keys of a tile
TILE = 64  # queries of a program where keys are shared


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
    kv: Tensor, eps: float, rotary: RotaryTable, window: RingKVCache, place: CacheSlots
) -> None:
    """Norm and turn each head's keys of an action; keys and values go to their slots.

    `kv`: `[b, f, positions, 2 * width]`, its last axis dense, the others as one: the mouse's part
    of a product is. `window`: of `b * positions` sequences; `rotary` as in `ActionPass`. Heads
    and their width are powers of two.
    """
    batch, frames, positions, _ = kv.shape
    heads, head_dim = window.k.shape[1], window.k.shape[3]
    launch(
        place_actions_kernel,
        (batch * frames * positions,),
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
def attend(queries, k, v, past, filled, visible):
    """softmax(q k^T / sqrt(d)) v on tensor cores, over the `visible` pairs; in float32.

    `queries`: `[queries, d]`; `past`: where keys lie in `k` and values in `v`, `[keys, d]`;
    `filled`: `[keys]`, which are there; `visible`: `[queries or 1, keys]`.
    """
    keys = tl.load(k + past, filled[:, None], 0.0)
    values = tl.load(v + past, filled[:, None], 0.0)
    scores = tl.dot(queries.to(keys.dtype), tl.trans(keys), input_precision="ieee")
    scores = tl.where(visible, scores * queries.shape[1] ** -0.5, float("-inf"))
    weights = tl.exp(scores - tl.max(scores, 1)[:, None])
    mixed = tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return mixed * (1 / tl.sum(weights, 1))[:, None]


@triton.jit
def attend_own_kernel(
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
    of_position,
    of_head,
    eps,
    frames: tl.constexpr,
    frame_block: tl.constexpr,
    slots: tl.constexpr,
    heads: tl.constexpr,
    head_block: tl.constexpr,
    head_dim: tl.constexpr,
):
    """A tile of the queries of some heads and one of their keys; pairs within a head count."""
    sequence, head = tl.program_id(0), tl.program_id(1) * head_block
    batch, position = sequence // positions, sequence % positions
    at = tl.arange(0, head_dim)[None, :]
    query = tl.arange(0, head_block * frame_block)
    key = tl.arange(0, head_block * slots)
    there = key % slots < filled
    visible = (query[:, None] // frame_block == key[None, :] // slots) & there[None, :]
    frame = tl.minimum(query % frame_block, frames - 1)[:, None]  # the last one fills up
    row = (batch * frames * positions + position).to(tl.int64)
    of_queries = head * head_dim + query[:, None] // frame_block * head_dim + at
    queries = tl.load(q + row * of_row + frame * positions * of_row + of_queries).to(tl.float32)
    angle = batch * turns + frame * (head_dim // 2) + tl.arange(0, head_dim // 2)[None, :]
    queries = turn_heads(queries, angle, cos, sin, eps, head_block * frame_block, head_dim)
    window = sequence.to(tl.int64) * of_position + head * of_head
    past = (key // slots * of_head + key % slots * head_dim)[:, None] + at
    mixed = attend(queries, k + window, v + window, past, there, visible)
    to = out + row * (heads * head_dim) + frame * positions * (heads * head_dim) + of_queries
    tl.store(to, mixed.to(out.dtype.element_ty), (query % frame_block < frames)[:, None])


def attend_own(
    q: Tensor, eps: float, rotary: RotaryTable, window: RingKVCache, place: CacheSlots
) -> Tensor:
    """Norm and turn each head's queries; each position attends to its own keys and values.

    `q`: `[b, f, positions, width]`, its last axis dense, the others as one. `window`: of `b *
    positions` sequences, a key a frame. Returns `[b, f, positions, width]`. Heads and their width
    are powers of two.
    """
    batch, frames, positions, _ = q.shape
    _, heads, slots, _ = window.k.shape
    head_block = min(heads, 4)  # with three frames nearly 16 queries, as many as a product takes
    return _attended(
        attend_own_kernel,
        (batch * positions, heads // head_block),
        (q, eps, rotary, window, place),
        frame_block=triton.next_power_of_2(frames),
        slots=max(triton.next_power_of_2(slots), LEAST // head_block),
        head_block=head_block,
        num_warps=1,
    )


@triton.jit
def attend_shared_kernel(
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
    of_head,
    eps,
    frames: tl.constexpr,
    tile: tl.constexpr,
    slots: tl.constexpr,
    heads: tl.constexpr,
    head_dim: tl.constexpr,
):
    batch, frame = tl.program_id(0) // frames, tl.program_id(0) % frames
    head, at = tl.program_id(2), tl.arange(0, head_dim)[None, :]
    position = tl.program_id(1) * tile + tl.arange(0, tile)[:, None]
    row = tl.program_id(0).to(tl.int64) * positions + position
    of_queries = head * head_dim + at
    inside = position < positions
    queries = tl.load(q + row * of_row + of_queries, inside, 0.0).to(tl.float32)
    angle = batch * turns + frame * (head_dim // 2) + tl.arange(0, head_dim // 2)[None, :]
    queries = turn_heads(queries, angle, cos, sin, eps, tile, head_dim)
    slot = tl.arange(0, slots)
    there = slot < filled
    past = batch.to(tl.int64) * of_batch + head * of_head + slot[:, None] * head_dim + at
    mixed = attend(queries, k, v, past, there, there[None, :])
    to = out + row * (heads * head_dim) + of_queries
    tl.store(to, mixed.to(out.dtype.element_ty), inside)


def attend_shared(
    q: Tensor, eps: float, rotary: RotaryTable, window: RingKVCache, place: CacheSlots
) -> Tensor:
    """Norm and turn each head's queries; all positions attend to the same keys and values.

    As `attend_own`, with a `window` of `b` sequences.
    """
    batch, frames, positions, _ = q.shape
    _, heads, slots, _ = window.k.shape
    return _attended(
        attend_shared_kernel,
        (batch * frames, triton.cdiv(positions, TILE), heads),
        (q, eps, rotary, window, place),
        tile=TILE,
        slots=max(triton.next_power_of_2(slots), LEAST),
        num_warps=4,
    )


Given = tuple[Tensor, float, RotaryTable, RingKVCache, CacheSlots]
"""What both attentions take."""


def _attended(kernel: Any, grid: tuple[int, ...], given: Given, **constants: int) -> Tensor:
    """What a kernel makes of the queries, in their form; `constants` are its own."""
    q, eps, rotary, window, place = given
    _, frames, positions, _ = q.shape
    _, heads, _, head_dim = window.k.shape
    out = q.new_empty(q.shape)
    launch(
        kernel,
        grid,
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
        window.k.stride(0),
        window.k.stride(1),
        eps,
        frames=frames,
        heads=heads,
        head_dim=head_dim,
        **constants,
    )
    return out
