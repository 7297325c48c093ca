"""Attention: the one function that every network calls, and its variants."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

SHORT = 64  # queries times keys of a sequence that counts as short

AttentionFunction = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v.

    `q`: `[b, heads, queries, d]`; `k`, `v`: `[b, heads, keys, d]`; `mask`: boolean, true where a
    query sees a key, broadcast to `[b, heads, queries, keys]`. Returns `[b, heads, queries, d]`.
    """
    if q.device.type == "cpu" and (q.requires_grad or q.shape[-2] * k.shape[-2] <= SHORT):
        return math_attention(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def math_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return `attention` by two matmuls and a softmax, as torch's MATH backend does.

    On CPUs torch's fused kernel has a slow backward pass. For many short sequences, the mouse's,
    it takes twice as long on two threads, with other results than on one.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).to(v.dtype) @ v


def pointwise_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return `attention` by sums: for a handful of keys, where a compiler makes them one kernel."""
    scores = (q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1, dtype=torch.float32) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1).to(v.dtype)
    return (weights.unsqueeze(-1) * v.unsqueeze(-3)).sum(-2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return `[b, n, heads * d]` as `[b, heads, n, d]`."""
    return rearrange(x, "b n (h d) -> b h n d", h=heads)


def join_heads(x: Tensor) -> Tensor:
    """Return `[b, heads, n, d]` as `[b, n, heads * d]`."""
    return rearrange(x, "b h n d -> b n (h d)")
