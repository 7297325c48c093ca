"""The one attention function that every network here goes through."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v.

    `q`: `[b, heads, queries, d]`; `k`, `v`: `[b, heads, keys, d]`; `mask`: boolean, true where a
    query may look, broadcast to `[b, heads, queries, keys]`. Returns `[b, heads, queries, d]`.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
