"""A kernel over tokens: queries and keys of all heads normed and turned, keys and values put away.

Keys and values go straight to their slots of the window; queries stay in the order of tokens.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from glassworld.models.kernels.launch import launch
from glassworld.models.kernels.norm_residual import warps
from glassworld.models.kernels.rope import of_session, slots, turned
from glassworld.models.transformer.kv_cache import CacheSlots, RingKVCache
from glassworld.models.transformer.rope import RotaryTable


@triton.jit
def turn_row(x, weight, at, inside, cos, sin, eps, width: tl.constexpr, block: tl.constexpr):
    """A row of all heads normed over its whole width, then turned."""
    values = tl.load(x + at, inside, 0.0).to(tl.float32)
    values *= tl.rsqrt(tl.sum(values * values) / width + eps)
    values *= tl.load(weight + at, inside, 0.0).to(tl.float32)
    return tl.reshape(turned(tl.reshape(values, (1, block)), cos, sin, 1, block), (block,))


@triton.jit
def place_tokens_kernel(
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
    turns,
    of_batch,
    of_head,
    eps,
    width: tl.constexpr,
    block: tl.constexpr,
    head_dim: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // tokens, row % tokens
    at = tl.arange(0, block)
    inside = at < width
    pair = tl.arange(0, block // 2)[None, :] % (head_dim // 2)
    angle = batch * turns + token * (head_dim // 2) + pair
    c, s = tl.load(cos + angle), tl.load(sin + angle)
    given = qkv + row * (2 * width)
    if q is not None:
        given = qkv + row * (3 * width)
        turned_q = turn_row(given, norm_q, at, inside, c, s, eps, width, block)
        tl.store(q + row * width + at, turned_q.to(q.dtype.element_ty), inside)
        given += width
    slot = tl.load(slots + token // positions) * positions + token % positions
    to = batch * of_batch + at // head_dim * of_head + slot * head_dim + at % head_dim
    turned_k = turn_row(given, norm_k, at, inside, c, s, eps, width, block)
    tl.store(k + to, turned_k.to(k.dtype.element_ty), inside)
    tl.store(v + to, tl.load(given + width + at, inside, 0.0), inside)


def place_tokens(
    qkv: Tensor,
    norms: tuple[Tensor, Tensor],
    eps: float,
    rotary: RotaryTable,
    window: RingKVCache,
    place: CacheSlots,
) -> Tensor:
    """Norm and turn queries and keys; keys and values go to their slots.

    `qkv`: `[b, tokens, 3 * dim]`, or without queries `[b, tokens, 2 * dim]`, contiguous; `norms`:
    the weights of the queries' and the keys' RMS norms; `rotary` as in `BlockPosition`. Returns the
    queries `[b, heads, tokens, d]`; without queries something of no meaning.
    """
    batch, tokens, given = qkv.shape
    heads, head_dim = window.k.shape[1], window.k.shape[3]
    width = heads * head_dim
    q = qkv.new_empty(batch, tokens, width) if given == 3 * width else None
    launch(
        place_tokens_kernel,
        (batch * tokens,),
        qkv,
        *norms,
        rotary.cos,
        rotary.sin,
        slots(place, qkv.device),
        q,
        window.k,
        window.v,
        tokens,
        window.per_frame,
        of_session(rotary),
        window.k.stride(0),
        window.k.stride(1),
        eps,
        width=width,
        block=triton.next_power_of_2(width),
        head_dim=head_dim,
        num_warps=warps(width),
    )
    return qkv if q is None else q.unflatten(2, (heads, head_dim)).transpose(1, 2)
