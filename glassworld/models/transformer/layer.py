"""One layer of the transformer, and where the block it works on stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops.init import normal_parameter
from glassworld.models.ops.linear import feed_forward
from glassworld.models.transformer.action import ActionModule, ActionPass, ActionWindows
from glassworld.models.transformer.attention import (
    QKV,
    CrossAttention,
    SelfAttention,
    block_masked_attention,
    cached_attention,
    join_heads,
)
from glassworld.models.transformer.kv_cache import CacheSlots, KeyValues, LayerCache
from glassworld.models.transformer.masks import MaskBlock
from glassworld.models.transformer.rope import RotaryTable
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag
from glassworld.specs import DiTSpec


class Modulation(NamedTuple):
    """What a timestep does to a layer, each `[b, f or 1, 1, dim]`."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """A LayerNorm without parameters, then scale and shift."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)


@dataclass(frozen=True)
class BlockPosition:
    """Where a block of latent frames stands: computed once a block, shared by its passes."""

    rotary: RotaryTable  # [tokens, d / 2]; for several sessions [b, 1, tokens, d / 2]
    action_rotary: RotaryTable
    self_slots: CacheSlots | None = None  # None when training
    action_slots: CacheSlots | None = None
    visible: Tensor | None = None  # training: [f, f], which frame sees which one's actions
    mask_blocks: tuple[MaskBlock, ...] | None = None  # training: which tokens see which

    @staticmethod
    def cat(places: Sequence[BlockPosition]) -> BlockPosition:
        """Of several sessions whose blocks go to the same slots of their windows."""
        first = places[0]
        if len(places) == 1:
            return first
        assert all(each.self_slots == first.self_slots for each in places)
        assert all(each.action_slots == first.action_slots for each in places)
        return replace(
            first,
            rotary=first.rotary.cat([each.rotary for each in places], 1),
            action_rotary=first.rotary.cat([each.action_rotary for each in places], 2),
        )


class Layer(nn.Module):
    """Self-attention, cross-attention, actions, feed-forward."""

    def __init__(self, spec: DiTSpec, has_actions: bool) -> None:
        super().__init__()
        self.eps = spec.eps
        self.self_attn = SelfAttention(spec.dim, spec.num_heads, spec.eps)
        self.norm3 = nn.LayerNorm(spec.dim, spec.eps)
        self.cross_attn = CrossAttention(spec.dim, spec.num_heads, spec.eps)
        self.action_model = ActionModule(spec.action, spec.dim, spec.eps) if has_actions else None
        self.ffn = nn.Sequential(*feed_forward(spec.dim, spec.ffn_dim, spec.dim))
        self.modulation = normal_parameter(1, 6, spec.dim)

    def modulations(self, time: Tensor) -> tuple[Modulation, Modulation]:
        """`time`: `[b, f or 1, 6, dim]`."""
        parts = (self.modulation + time).unsqueeze(3).unbind(2)
        return Modulation(*parts[:3]), Modulation(*parts[3:])

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        place: BlockPosition,
        windows: ActionWindows,
        context: KeyValues,
        cache: LayerCache | None,
    ) -> Tensor:
        """`x`: tokens `[b, f, positions, dim]`."""
        attend, feed = self.modulations(time)
        with tag(tags.SELF_ATTENTION):
            heads = self.qkv(x, attend, place.rotary)
            if place.mask_blocks is not None:
                seen = block_masked_attention(heads, place.mask_blocks)
            else:
                window = cache.self_attention if cache else None
                seen = cached_attention(heads, window, place.self_slots)
            x = self.attention_out(x, seen, attend)
        with tag(tags.CROSS_ATTENTION):
            x = self.cross_attention(x, context)
        if self.action_model is not None:
            shared = ActionPass(windows, place.action_rotary, place.action_slots, place.visible)
            x = self.action_model(x, shared, cache)
        with tag(tags.FEED_FORWARD):
            return self.mlp(x, feed)

    # What lies between the tags and the writing of windows; `compile_layers` compiles each.

    def qkv(self, x: Tensor, attend: Modulation, rotary: RotaryTable) -> QKV:
        y = modulate(x, attend.shift, attend.scale, self.eps).flatten(1, 2)
        return self.self_attn.project(y, rotary)

    def attention_out(self, x: Tensor, seen: Tensor, attend: Modulation) -> Tensor:
        y = self.self_attn.o(join_heads(seen))
        return torch.addcmul(x, y.unflatten(1, x.shape[1:3]), attend.gate)

    def cross_attention(self, x: Tensor, context: KeyValues) -> Tensor:
        y = self.cross_attn(self.norm3(x).flatten(1, 2), context)
        return x + y.unflatten(1, x.shape[1:3])

    def mlp(self, x: Tensor, feed: Modulation) -> Tensor:
        y = self.ffn(modulate(x, feed.shift, feed.scale, self.eps))
        return torch.addcmul(x, y, feed.gate)

    def update_cache(
        self, x: Tensor, time: Tensor, place: BlockPosition, cache: LayerCache
    ) -> None:
        """Leave the keys and values of `x` in the cache; for a layer whose output nobody reads."""
        attend, _ = self.modulations(time)
        assert place.self_slots is not None
        with tag(tags.SELF_ATTENTION):
            y = modulate(x, attend.shift, attend.scale, self.eps).flatten(1, 2)
            k, v = self.self_attn.project_past(y, place.rotary)
            cache.self_attention.update(k, v, place.self_slots)
