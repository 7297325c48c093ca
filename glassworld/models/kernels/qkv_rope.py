"""A kernel over tokens: RMS norm and RoPE of queries and keys, and the write to the ring KV cache.

Keys and values go straight to their slots; queries stay in the order of tokens.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from glassworld.models.kernels.launch import launch
from glassworld.models.kernels.norm_residual import warps_per_row
from glassworld.models.kernels.rope import rotate_pairs, session_stride, slot_indices
from glassworld.models.transformer.kv_cache import CacheSlots, RingKVCache
from glassworld.models.transformer.rope import RotaryTable


@triton.jit
def norm_rope_row(
    x, weight, column, inside, cos, sin, eps, width: tl.constexpr, block: tl.constexpr
):
    """Load a row of all heads, norm it over its whole width and rotate it."""
    values = tl.load(x + column, inside, 0.0).to(tl.float32)
    values *= tl.rsqrt(tl.sum(values * values) / width + eps)
    values *= tl.load(weight + column, inside, 0.0).to(tl.float32)
    return tl.reshape(rotate_pairs(tl.reshape(values, (1, block)), cos, sin, 1, block), (block,))


@triton.jit
def qkv_rope_kernel(
    qkv,
    norm_q,
    norm_k,
    cos,
    sin,
    slots,
    q,
    k,
    v,
    tokens,
    positions,
    session_stride,
    batch_stride,
    head_stride,
    eps,
    width: tl.constexpr,
    block: tl.constexpr,
    head_dim: tl.constexpr,
):
    """Work on one token; without `q` its row holds keys and values only."""
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // tokens, row % tokens
    column = tl.arange(0, block)
    inside = column < width
    pair = tl.arange(0, block // 2)[None, :] % (head_dim // 2)
    angle = batch * session_stride + token * (head_dim // 2) + pair
    c, s = tl.load(cos + angle), tl.load(sin + angle)
    source = qkv + row * (2 * width)
    if q is not None:
        source = qkv + row * (3 * width)
        query = norm_rope_row(source, norm_q, column, inside, c, s, eps, width, block)
        tl.store(q + row * width + column, query.to(q.dtype.element_ty), inside)
        source += width
    slot = tl.load(slots + token // positions) * positions + token % positions
    target = batch * batch_stride + column // head_dim * head_stride
    target += slot * head_dim + column % head_dim
    key = norm_rope_row(source, norm_k, column, inside, c, s, eps, width, block)
    tl.store(k + target, key.to(k.dtype.element_ty), inside)
    tl.store(v + target, tl.load(source + width + column, inside, 0.0), inside)


def qkv_rope(
    qkv: Tensor,
    norms: tuple[Tensor, Tensor],
    eps: float,
    rotary: RotaryTable,
    cache: RingKVCache,
    slots: CacheSlots,
) -> Tensor:
    """Normalize and rotate queries and keys; write keys and values to the slots of the cache.

    `qkv`: `[b, tokens, 3 * dim]`, or without queries `[b, tokens, 2 * dim]`, contiguous; `norms`:
    the weights of the queries' and the keys' RMS norms; `rotary` as in `BlockPosition`. Returns
    the queries `[b, heads, tokens, d]`; without queries `qkv`, which means nothing.
    """
    batch, tokens, qkv_width = qkv.shape
    heads, head_dim = cache.k.shape[1], cache.k.shape[3]
    width = heads * head_dim
    q = qkv.new_empty(batch, tokens, width) if qkv_width == 3 * width else None
    launch(
        qkv_rope_kernel,
        (batch * tokens,),
        qkv,
        *norms,
        rotary.cos,
        rotary.sin,
        slot_indices(slots, qkv.device),
        q,
        cache.k,
        cache.v,
        tokens,
        cache.per_frame,
        session_stride(rotary),
        cache.k.stride(0),
        cache.k.stride(1),
        eps,
        width=width,
        block=triton.next_power_of_2(width),
        head_dim=head_dim,
        num_warps=warps_per_row(width),
    )
    return qkv if q is None else q.unflatten(2, (heads, head_dim)).transpose(1, 2)
