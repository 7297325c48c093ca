"""Kernels of the action module: norm and RoPE of its heads, and its short attentions.

A query meets only a handful of keys, so sums over pairs would take an instruction for each number.
Tensor cores multiply whole tiles instead. The keyboard's queries share their keys, so a tile holds
many of them. The mouse has few queries per position, so a tile holds those of several heads, and
the products of pairs across heads are thrown away.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from glassworld.models.kernels.launch import launch
from glassworld.models.kernels.norm_residual import warps_per_row
from glassworld.models.kernels.rope import rotate_pairs, session_stride, slot_indices
from glassworld.models.transformer.kv_cache import CacheSlots, RingKVCache
from glassworld.models.transformer.rope import RotaryTable

MIN_DOT = 16  # the least that tensor cores add up: numbers of a head, keys of a tile
TILE = 64  # queries of a program where keys are shared

AttentionInputs = tuple[Tensor, float, RotaryTable, RingKVCache, CacheSlots]
"""The arguments of both attentions."""


@triton.jit
def norm_rope_heads(x, angle, cos, sin, eps, heads: tl.constexpr, head_dim: tl.constexpr):
    """Normalize each head of a tile `[heads, head_dim]` by itself, then rotate it."""
    values = x * tl.rsqrt(tl.sum(x * x, 1) / head_dim + eps)[:, None]
    return rotate_pairs(values, tl.load(cos + angle), tl.load(sin + angle), heads, head_dim)


@triton.jit
def action_kv_rope_kernel(
    kv,
    cos,
    sin,
    slots,
    k,
    v,
    frames,
    positions,
    session_stride,
    row_stride,
    position_stride,
    head_stride,
    eps,
    heads: tl.constexpr,
    head_dim: tl.constexpr,
):
    """Work on all heads of one row, a position of a frame."""
    row = tl.program_id(0).to(tl.int64)
    batch, frame = row // (frames * positions), row // positions % frames
    head = tl.arange(0, heads)[:, None]
    column = tl.arange(0, head_dim)[None, :]
    source = row * row_stride + head * head_dim + column
    pair = tl.arange(0, head_dim // 2)[None, :]
    angle = batch * session_stride + frame * (head_dim // 2) + pair
    keys = tl.load(kv + source).to(tl.float32)
    keys = norm_rope_heads(keys, angle, cos, sin, eps, heads, head_dim)
    target = (batch * positions + row % positions) * position_stride + head * head_stride
    target += tl.load(slots + frame) * head_dim + column
    tl.store(k + target, keys.to(k.dtype.element_ty))
    tl.store(v + target, tl.load(kv + source + heads * head_dim))


def action_kv_rope(
    kv: Tensor, eps: float, rotary: RotaryTable, cache: RingKVCache, slots: CacheSlots
) -> None:
    """Normalize and rotate each head's keys of an action; write keys and values to their slots.

    `kv`: `[b, f, positions, 2 * width]`, dense in its last axis and with the others as one, as a
    part of a linear layer's output is. `cache`: of `b * positions` sequences; `rotary` as in
    `ActionInputs`. Heads and their width are powers of two.
    """
    batch, frames, positions, _ = kv.shape
    heads, head_dim = cache.k.shape[1], cache.k.shape[3]
    launch(
        action_kv_rope_kernel,
        (batch * frames * positions,),
        kv,
        rotary.cos,
        rotary.sin,
        slot_indices(slots, kv.device),
        cache.k,
        cache.v,
        frames,
        positions,
        session_stride(rotary),
        kv.stride(2),
        cache.k.stride(0),
        cache.k.stride(1),
        eps,
        heads=heads,
        head_dim=head_dim,
        num_warps=warps_per_row(heads * head_dim),
    )


@triton.jit
def attention_tile(queries, k, v, offsets, filled, visible):
    """Return softmax(q k^T / sqrt(d)) v on tensor cores, over the `visible` pairs; in float32.

    `queries`: `[queries, d]`; `offsets`: of keys in `k` and values in `v`, `[keys, d]`; `filled`:
    `[keys]`, which of them exist; `visible`: `[queries or 1, keys]`.
    """
    keys = tl.load(k + offsets, filled[:, None], 0.0)
    values = tl.load(v + offsets, filled[:, None], 0.0)
    scores = tl.dot(queries.to(keys.dtype), tl.trans(keys), input_precision="ieee")
    scores = tl.where(visible, scores * queries.shape[1] ** -0.5, float("-inf"))
    weights = tl.exp(scores - tl.max(scores, 1)[:, None])
    mixed = tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return mixed * (1 / tl.sum(weights, 1))[:, None]


@triton.jit
def temporal_attention_kernel(
    q,
    cos,
    sin,
    k,
    v,
    out,
    positions,
    filled,
    session_stride,
    row_stride,
    sequence_stride,
    head_stride,
    eps,
    frames: tl.constexpr,
    frame_block: tl.constexpr,
    slots: tl.constexpr,
    heads: tl.constexpr,
    head_block: tl.constexpr,
    head_dim: tl.constexpr,
):
    """Multiply a tile of the queries of some heads by one of their keys; pairs within a head count.

    One program for a position and `head_block` heads.
    """
    sequence, head = tl.program_id(0), tl.program_id(1) * head_block
    batch, position = sequence // positions, sequence % positions
    column = tl.arange(0, head_dim)[None, :]
    query = tl.arange(0, head_block * frame_block)
    key = tl.arange(0, head_block * slots)
    exists = key % slots < filled
    visible = (query[:, None] // frame_block == key[None, :] // slots) & exists[None, :]
    frame = tl.minimum(query % frame_block, frames - 1)[:, None]  # the last one fills up
    row = (batch * frames * positions + position).to(tl.int64)
    in_row = head * head_dim + query[:, None] // frame_block * head_dim + column
    queries = tl.load(q + row * row_stride + frame * positions * row_stride + in_row)
    pair = tl.arange(0, head_dim // 2)[None, :]
    angle = batch * session_stride + frame * (head_dim // 2) + pair
    queries = norm_rope_heads(
        queries.to(tl.float32), angle, cos, sin, eps, head_block * frame_block, head_dim
    )
    ring = sequence.to(tl.int64) * sequence_stride + head * head_stride
    offsets = (key // slots * head_stride + key % slots * head_dim)[:, None] + column
    mixed = attention_tile(queries, k + ring, v + ring, offsets, exists, visible)
    target = out + row * (heads * head_dim) + frame * positions * (heads * head_dim) + in_row
    tl.store(target, mixed.to(out.dtype.element_ty), (query % frame_block < frames)[:, None])


def temporal_attention(
    q: Tensor, eps: float, rotary: RotaryTable, cache: RingKVCache, slots: CacheSlots
) -> Tensor:
    """Normalize and rotate each head's queries; each position attends to its own keys over time.

    `q`: `[b, f, positions, width]`, dense in its last axis and with the others as one. `cache`: of
    `b * positions` sequences, a key a frame. Returns `[b, f, positions, width]`. Heads and their
    width are powers of two.
    """
    batch, frames, positions, _ = q.shape
    _, heads, ring_slots, _ = cache.k.shape
    head_block = min(heads, 4)  # with three frames nearly 16 queries, as many as tl.dot takes
    return _launch_attention(
        temporal_attention_kernel,
        (batch * positions, heads // head_block),
        (q, eps, rotary, cache, slots),
        frame_block=triton.next_power_of_2(frames),
        slots=max(triton.next_power_of_2(ring_slots), MIN_DOT // head_block),
        head_block=head_block,
        num_warps=1,
    )


@triton.jit
def shared_kv_attention_kernel(
    q,
    cos,
    sin,
    k,
    v,
    out,
    positions,
    filled,
    session_stride,
    row_stride,
    batch_stride,
    head_stride,
    eps,
    frames: tl.constexpr,
    tile: tl.constexpr,
    slots: tl.constexpr,
    heads: tl.constexpr,
    head_dim: tl.constexpr,
):
    """Work on `tile` positions of a frame and one head."""
    batch, frame = tl.program_id(0) // frames, tl.program_id(0) % frames
    head, column = tl.program_id(2), tl.arange(0, head_dim)[None, :]
    position = tl.program_id(1) * tile + tl.arange(0, tile)[:, None]
    row = tl.program_id(0).to(tl.int64) * positions + position
    in_row = head * head_dim + column
    inside = position < positions
    queries = tl.load(q + row * row_stride + in_row, inside, 0.0).to(tl.float32)
    pair = tl.arange(0, head_dim // 2)[None, :]
    angle = batch * session_stride + frame * (head_dim // 2) + pair
    queries = norm_rope_heads(queries, angle, cos, sin, eps, tile, head_dim)
    slot = tl.arange(0, slots)
    exists = slot < filled
    offsets = batch.to(tl.int64) * batch_stride + head * head_stride
    offsets = offsets + slot[:, None] * head_dim + column
    mixed = attention_tile(queries, k, v, offsets, exists, exists[None, :])
    target = out + row * (heads * head_dim) + in_row
    tl.store(target, mixed.to(out.dtype.element_ty), inside)


def shared_kv_attention(
    q: Tensor, eps: float, rotary: RotaryTable, cache: RingKVCache, slots: CacheSlots
) -> Tensor:
    """Normalize and rotate each head's queries; all positions attend to the same keys and values.

    Arguments and result are those of `temporal_attention`, with a `cache` of `b` sequences.
    """
    batch, frames, positions, _ = q.shape
    _, heads, ring_slots, _ = cache.k.shape
    return _launch_attention(
        shared_kv_attention_kernel,
        (batch * frames, triton.cdiv(positions, TILE), heads),
        (q, eps, rotary, cache, slots),
        tile=TILE,
        slots=max(triton.next_power_of_2(ring_slots), MIN_DOT),
        num_warps=4,
    )


def _launch_attention(
    kernel: Any, grid: tuple[int, ...], inputs: AttentionInputs, **constants: int
) -> Tensor:
    """Return the kernel's output, in the shape of the queries; `constants` are its own."""
    q, eps, rotary, cache, slots = inputs
    _, frames, positions, _ = q.shape
    _, heads, _, head_dim = cache.k.shape
    out = q.new_empty(q.shape)
    launch(
        kernel,
        grid,
        q,
        rotary.cos,
        rotary.sin,
        cache.k,
        cache.v,
        out,
        positions,
        slots.filled,
        session_stride(rotary),
        q.stride(2),
        cache.k.stride(0),
        cache.k.stride(1),
        eps,
        frames=frames,
        heads=heads,
        head_dim=head_dim,
        **constants,
    )
    return out
