"""One layer of the transformer, and where the block it works on stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops.init import learned
from glassworld.models.ops.linear import feed_forward
from glassworld.models.transformer.action import ActionModule, ActionPass, ActionWindows
from glassworld.models.transformer.attention import (
    CrossAttention,
    Heads,
    SelfAttention,
    attend_sights,
    attend_window,
    join_heads,
)
from glassworld.models.transformer.kv_cache import CacheSlots, KeyValues, LayerCache
from glassworld.models.transformer.masks import MaskBlock
from glassworld.models.transformer.rope import Rotary
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

    rotary: Rotary  # [tokens, d / 2]; for several sessions [b, 1, tokens, d / 2]
    action_rotary: Rotary
    self_place: CacheSlots | None = None  # None when training
    action_place: CacheSlots | None = None
    visible: Tensor | None = None  # training: [f, f], which frame sees which one's actions
    sights: tuple[MaskBlock, ...] | None = None  # training: which tokens see which

    @staticmethod
    def cat(places: Sequence[BlockPosition]) -> BlockPosition:
        """Of several sessions whose blocks go to the same slots of their windows."""
        first = places[0]
        if len(places) == 1:
            return first
        assert all(each.self_place == first.self_place for each in places)
        assert all(each.action_place == first.action_place for each in places)
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
        self.modulation = learned(1, 6, spec.dim)

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
            heads = self.enter(x, attend, place.rotary)
            if place.sights is not None:
                seen = attend_sights(heads, place.sights)
            else:
                window = cache.self_attention if cache else None
                seen = attend_window(heads, window, place.self_place)
            x = self.leave(x, seen, attend)
        with tag(tags.CROSS_ATTENTION):
            x = self.look(x, context)
        if self.action_model is not None:
            shared = ActionPass(windows, place.action_rotary, place.action_place, place.visible)
            x = self.action_model(x, shared, cache)
        with tag(tags.FEED_FORWARD):
            return self.feed(x, feed)

    # What lies between the tags and the writing of windows; `compile_layers` compiles each.

    def enter(self, x: Tensor, attend: Modulation, rotary: Rotary) -> Heads:
        y = modulate(x, attend.shift, attend.scale, self.eps).flatten(1, 2)
        return self.self_attn.project(y, rotary)

    def leave(self, x: Tensor, seen: Tensor, attend: Modulation) -> Tensor:
        y = self.self_attn.o(join_heads(seen))
        return torch.addcmul(x, y.unflatten(1, x.shape[1:3]), attend.gate)

    def look(self, x: Tensor, context: KeyValues) -> Tensor:
        y = self.cross_attn(self.norm3(x).flatten(1, 2), context)
        return x + y.unflatten(1, x.shape[1:3])

    def feed(self, x: Tensor, feed: Modulation) -> Tensor:
        y = self.ffn(modulate(x, feed.shift, feed.scale, self.eps))
        return torch.addcmul(x, y, feed.gate)

    def remember(self, x: Tensor, time: Tensor, place: BlockPosition, cache: LayerCache) -> None:
        """Leave the keys and values of `x` in the cache; for a layer whose output nobody reads."""
        attend, _ = self.modulations(time)
        assert place.self_place is not None
        with tag(tags.SELF_ATTENTION):
            y = modulate(x, attend.shift, attend.scale, self.eps).flatten(1, 2)
            k, v = self.self_attn.project_past(y, place.rotary)
            cache.self_attention.put(k, v, place.self_place)
