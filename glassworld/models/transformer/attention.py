"""Attention: the one function every network goes through, and the transformer's two layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from glassworld.models.ops.linear import PackedLinear
from glassworld.models.ops.norms import rms_norm
from glassworld.models.ops.quantized import QuantizedLinear
from glassworld.models.transformer.kv_cache import CacheSlots, KeyValues, RingKVCache
from glassworld.models.transformer.masks import MaskBlock
from glassworld.models.transformer.rope import RotaryTable

FEW = 64  # queries times keys of a sequence that counts as short

AttentionFunction = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v.

    `q`: `[b, heads, queries, d]`; `k`, `v`: `[b, heads, keys, d]`; `mask`: boolean, true where a
    query may look, broadcast to `[b, heads, queries, keys]`. Returns `[b, heads, queries, d]`.
    """
    if q.device.type == "cpu" and (q.requires_grad or q.shape[-2] * k.shape[-2] <= FEW):
        return unfused_attention(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def unfused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """`attention` spelled out.

    On processors torch's fused kernel has a slow way back, and many short sequences, the mouse's,
    take it twice as long on two threads and come out otherwise than on one.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).to(v.dtype) @ v


def pointwise_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """`attention` by sums: for a handful of keys, where a compiler makes them one kernel."""
    scores = (q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1, dtype=torch.float32) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1).to(v.dtype)
    return (weights.unsqueeze(-1) * v.unsqueeze(-3)).sum(-2)


def block_masked_attention(heads: QKV, mask_blocks: Sequence[MaskBlock]) -> Tensor:
    """Each group of queries attends to the keys it sees: what no one sees costs nothing."""
    q, k, v = heads
    seen = [
        attention(
            q[:, :, sight.queries],
            torch.cat([k[:, :, part] for part in sight.keys], 2),
            torch.cat([v[:, :, part] for part in sight.keys], 2),
        )
        for sight in mask_blocks
    ]
    return torch.cat(seen, 2)


def cached_attention(
    heads: QKV,
    window: RingKVCache | None,
    place: CacheSlots | None,
    mask: Tensor | None = None,
    attend: AttentionFunction = attention,
) -> Tensor:
    """With a window: write keys and values there and see all of it; else what `mask` says."""
    q, k, v = heads
    if window is not None and place is not None:
        k, v = window.update(k, v, place)
    return attend(q, k, v, mask)


class RMSNorm(nn.Module):
    """Over all of the width, not per head."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.eps, self.weight)


def split_heads(x: Tensor, heads: int) -> Tensor:
    return rearrange(x, "b n (h d) -> b h n d", h=heads)


def join_heads(x: Tensor) -> Tensor:
    return rearrange(x, "b h n d -> b n (h d)")


class QKV(NamedTuple):
    """Queries, keys and values, each `[b, heads, n, d]`."""

    q: Tensor
    k: Tensor
    v: Tensor


class SelfAttention(nn.Module):
    """Among the tokens of the block and of the past that its window holds."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = PackedLinear(dim, 3 * dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)
        self.o = PackedLinear(dim, dim)

    def project(self, x: Tensor, rotary: RotaryTable) -> QKV:
        """`x`: `[b, tokens, dim]`."""
        q, k, v = self.qkv(x).chunk(3, -1)
        q = rotary.rotate(split_heads(self.norm_q(q), self.heads))
        k = rotary.rotate(split_heads(self.norm_k(k), self.heads))
        return QKV(q, k, split_heads(v, self.heads))

    def project_past(self, x: Tensor, rotary: RotaryTable) -> tuple[Tensor, Tensor]:
        """The keys and values alone."""
        dim = x.shape[-1]
        if isinstance(self.qkv, QuantizedLinear):
            kv = self.qkv(x, first=dim)
        else:
            kv = F.linear(x, self.qkv.weight[dim:], self.qkv.bias[dim:])
        k = rotary.rotate(split_heads(self.norm_k(kv[..., :dim]), self.heads))
        return k, split_heads(kv[..., dim:], self.heads)


class CrossAttention(nn.Module):
    """To the visual context, whose keys and values are computed once a session."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q = PackedLinear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)
        self.o = PackedLinear(dim, dim)

    def keys(self, context: Tensor) -> KeyValues:
        """`context`: `[b, n, dim]`."""
        k, v = self.kv(context).chunk(2, -1)
        return KeyValues(split_heads(self.norm_k(k), self.heads), split_heads(v, self.heads))

    def forward(self, x: Tensor, context: KeyValues) -> Tensor:
        q = split_heads(self.norm_q(self.q(x)), self.heads)
        return self.o(join_heads(attention(q, context.k, context.v)))
