"""One layer of the transformer, its adaLN modulation, and the position of a block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops.attention import join_heads
from glassworld.models.ops.init import normal_parameter
from glassworld.models.ops.linear import mlp_layers
from glassworld.models.transformer.action import ActionInputs, ActionModule, ActionWindows
from glassworld.models.transformer.attention import (
    QKV,
    CrossAttention,
    SelfAttention,
    block_masked_attention,
    cached_attention,
)
from glassworld.models.transformer.kv_cache import BatchSlots, CacheSlots, KeyValues, LayerCache
from glassworld.models.transformer.masks import MaskBlock
from glassworld.models.transformer.rope import RotaryTable
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag
from glassworld.specs import DiTSpec


class AdaLNModulation(NamedTuple):
    """Shift, scale and gate of an adaptive layer norm (adaLN), each `[b, f or 1, 1, dim]`.

    Peebles and Xie 2022, arXiv:2212.09748: x + gate * f(layer_norm(x) * (1 + scale) + shift).
    """

    shift: Tensor
    scale: Tensor
    gate: Tensor


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Return layer_norm(x) * (1 + scale) + shift; the norm has no parameters."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)


@dataclass(frozen=True)
class BlockPosition:
    """The position of a block of latent frames: computed once a block, shared by its passes."""

    rotary: RotaryTable  # [tokens, d / 2]; for several sessions [b, 1, tokens, d / 2]
    action_rotary: RotaryTable
    self_slots: CacheSlots | BatchSlots | None = None  # of self-attention; None in training
    action_slots: CacheSlots | BatchSlots | None = None
    visible: Tensor | None = None  # training: [f, f], which frame sees which one's actions
    mask_blocks: tuple[MaskBlock, ...] | None = None  # training: the block-causal mask
    token_mask: Tensor | None = None  # training at fixed shapes: the same, dense [tokens, tokens]

    @staticmethod
    def cat(positions: Sequence[BlockPosition]) -> BlockPosition:
        """Join those of several sessions, wherever in their windows each of them stands."""
        first = positions[0]
        if len(positions) == 1:
            return first
        return replace(
            first,
            self_slots=BatchSlots.join([position.self_slots for position in positions]),
            action_slots=BatchSlots.join([position.action_slots for position in positions]),
            rotary=RotaryTable.cat([position.rotary for position in positions], 1),
            action_rotary=RotaryTable.cat([position.action_rotary for position in positions], 2),
        )


class Layer(nn.Module):
    """Self-attention, cross-attention, actions, feed-forward."""

    takes_batch_slots = True  # whether its sessions may stand at different points of their windows

    def __init__(self, spec: DiTSpec, has_actions: bool) -> None:
        super().__init__()
        self.eps = spec.eps
        self.self_attn = SelfAttention(spec.dim, spec.num_heads, spec.eps)
        self.norm3 = nn.LayerNorm(spec.dim, spec.eps)
        self.cross_attn = CrossAttention(spec.dim, spec.num_heads, spec.eps)
        self.action_model = ActionModule(spec.action, spec.dim, spec.eps) if has_actions else None
        self.ffn = nn.Sequential(*mlp_layers(spec.dim, spec.ffn_dim, spec.dim))
        self.modulation = normal_parameter(1, 6, spec.dim)

    def modulations(self, time: Tensor) -> tuple[AdaLNModulation, AdaLNModulation]:
        """Return the modulations of self-attention and feed-forward.

        `time`: the projected timestep embedding, `[b, f or 1, 6, dim]`.
        """
        parts = (self.modulation + time).unsqueeze(3).unbind(2)
        return AdaLNModulation(*parts[:3]), AdaLNModulation(*parts[3:])

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        position: BlockPosition,
        windows: ActionWindows,
        context: KeyValues,
        cache: LayerCache | None,
    ) -> Tensor:
        """Apply the layer to tokens `x` `[b, f, positions, dim]`; `time` as in `modulations`."""
        attention_modulation, mlp_modulation = self.modulations(time)
        with tag(tags.SELF_ATTENTION):
            qkv = self.qkv(x, attention_modulation, position.rotary)
            if position.mask_blocks is not None:
                mixed = block_masked_attention(qkv, position.mask_blocks)
            else:
                ring = cache.self_attention if cache else None
                mixed = cached_attention(qkv, ring, position.self_slots, position.token_mask)
            x = self.attention_out(x, mixed, attention_modulation)
        with tag(tags.CROSS_ATTENTION):
            x = self.cross_attention(x, context)
        if self.action_model is not None:
            inputs = ActionInputs(
                windows, position.action_rotary, position.action_slots, position.visible
            )
            x = self.action_model(x, inputs, cache)
        with tag(tags.FEED_FORWARD):
            return self.mlp(x, mlp_modulation)

    # `compile_layers` compiles each of these. Tags and writes to the caches stay outside.

    def qkv(self, x: Tensor, modulation: AdaLNModulation, rotary: RotaryTable) -> QKV:
        """Return self-attention's queries, keys and values of the modulated tokens."""
        y = modulate(x, modulation.shift, modulation.scale, self.eps).flatten(1, 2)
        return self.self_attn.project(y, rotary)

    def attention_out(self, x: Tensor, mixed: Tensor, modulation: AdaLNModulation) -> Tensor:
        """Add self-attention's output, projected and gated, to `x`."""
        y = self.self_attn.o(join_heads(mixed))
        return torch.addcmul(x, y.unflatten(1, x.shape[1:3]), modulation.gate)

    def cross_attention(self, x: Tensor, context: KeyValues) -> Tensor:
        """Add the attention to the visual context to `x`."""
        y = self.cross_attn(self.norm3(x).flatten(1, 2), context)
        return x + y.unflatten(1, x.shape[1:3])

    def mlp(self, x: Tensor, modulation: AdaLNModulation) -> Tensor:
        """Add the modulated and gated feed-forward to `x`."""
        y = self.ffn(modulate(x, modulation.shift, modulation.scale, self.eps))
        return torch.addcmul(x, y, modulation.gate)

    def update_cache(
        self, x: Tensor, time: Tensor, position: BlockPosition, cache: LayerCache
    ) -> None:
        """Write the keys and values of `x` to the cache, for a layer whose output is not needed."""
        modulation, _ = self.modulations(time)
        assert position.self_slots is not None
        with tag(tags.SELF_ATTENTION):
            y = modulate(x, modulation.shift, modulation.scale, self.eps).flatten(1, 2)
            k, v = self.self_attn.project_kv(y, position.rotary)
            cache.self_attention.write(k, v, position.self_slots)
