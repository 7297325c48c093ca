"""Self-attention over the ring KV cache or under a block-causal mask, and cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops.attention import (
    AttentionFunction,
    attention,
    join_heads,
    split_heads,
)
from glassworld.models.ops.linear import PackedLinear
from glassworld.models.ops.norms import rms_norm
from glassworld.models.ops.quantized import QuantizedLinear
from glassworld.models.transformer.kv_cache import BatchSlots, CacheSlots, KeyValues, RingKVCache
from glassworld.models.transformer.masks import MaskBlock
from glassworld.models.transformer.rope import RotaryTable


class QKV(NamedTuple):
    """Queries, keys and values, each `[b, heads, n, d]`."""

    q: Tensor
    k: Tensor
    v: Tensor


def block_masked_attention(qkv: QKV, mask_blocks: Sequence[MaskBlock]) -> Tensor:
    """Attend block by block of a block-causal mask, so that masked-out pairs cost nothing.

    Keys and values are split once. A slice of them for each block would cost a tensor of their
    whole size in the backward pass, most of it zeros.
    """
    ends = {end for block in mask_blocks for keys in block.keys for end in (keys.start, keys.stop)}
    parts = list(pairwise(sorted({0, qkv.k.shape[2]} | ends)))
    sizes = [stop - start for start, stop in parts]
    k, v = qkv.k.split(sizes, 2), qkv.v.split(sizes, 2)
    queries = qkv.q.split([block.queries.stop - block.queries.start for block in mask_blocks], 2)
    outputs = []
    for q, block in zip(queries, mask_blocks, strict=True):
        seen = [
            index
            for index, (start, stop) in enumerate(parts)
            if any(keys.start <= start and stop <= keys.stop for keys in block.keys)
        ]
        seen_k, seen_v = (torch.cat([whole[index] for index in seen], 2) for whole in (k, v))
        outputs.append(attention(q, seen_k, seen_v))
    return torch.cat(outputs, 2)


def cached_attention(
    qkv: QKV,
    cache: RingKVCache | None,
    slots: CacheSlots | BatchSlots | None,
    mask: Tensor | None = None,
    attend: AttentionFunction = attention,
) -> Tensor:
    """Write keys and values to the cache and attend to all of it; without one, under `mask`.

    Sessions that stand at different points of their windows attend group by group: nothing is
    padded or masked, and each sees what it would see alone.
    """
    q, k, v = qkv
    if cache is not None and isinstance(slots, BatchSlots):
        groups = [
            attend(q[rows], *cache.rows(rows).update(k[rows], v[rows], same), mask)
            for rows, same in slots.parts(len(q))
        ]
        return torch.cat(groups)
    if cache is not None and isinstance(slots, CacheSlots):
        k, v = cache.update(k, v, slots)
    return attend(q, k, v, mask)


class RMSNorm(nn.Module):
    """An RMS norm over the whole width, not per head."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `[..., width]`."""
        return rms_norm(x, self.eps, self.weight)


class SelfAttention(nn.Module):
    """Projections of the attention among a block's tokens and those in the cache."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = PackedLinear(dim, 3 * dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)
        self.o = PackedLinear(dim, dim)

    def project(self, x: Tensor, rotary: RotaryTable) -> QKV:
        """Return normed and rotated queries and keys, and values, of `x` `[b, tokens, dim]`."""
        q, k, v = self.qkv(x).chunk(3, -1)
        q = rotary.rotate(split_heads(self.norm_q(q), self.heads))
        k = rotary.rotate(split_heads(self.norm_k(k), self.heads))
        return QKV(q, k, split_heads(v, self.heads))

    def project_kv(self, x: Tensor, rotary: RotaryTable) -> tuple[Tensor, Tensor]:
        """Return the keys and values alone."""
        dim = x.shape[-1]
        kv = self.kv(x)
        k = rotary.rotate(split_heads(self.norm_k(kv[..., :dim]), self.heads))
        return k, split_heads(kv[..., dim:], self.heads)

    def kv(self, x: Tensor) -> Tensor:
        """Return the rows of `qkv` that give keys and values, `[..., 2 * dim]`."""
        dim = x.shape[-1]
        if isinstance(self.qkv, QuantizedLinear):
            return self.qkv(x, first=dim)
        return F.linear(x, self.qkv.weight[dim:], self.qkv.bias[dim:])


class CrossAttention(nn.Module):
    """Attention to the visual context, whose keys and values are computed once a session."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q = PackedLinear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)
        self.o = PackedLinear(dim, dim)

    def context_kv(self, context: Tensor) -> KeyValues:
        """Return the keys and values of `context` `[b, n, dim]`."""
        k, v = self.kv(context).chunk(2, -1)
        return KeyValues(split_heads(self.norm_k(k), self.heads), split_heads(v, self.heads))

    def forward(self, x: Tensor, context: KeyValues) -> Tensor:
        """Attend from `x` `[b, tokens, dim]` to the context."""
        q = split_heads(self.norm_q(self.q(x)), self.heads)
        return self.o(join_heads(attention(q, context.k, context.v)))
