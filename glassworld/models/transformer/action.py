"""The action module: how keyboard and mouse steer the transformer.

Each latent frame sees the actions of the twelve pixel frames before its last one. The mouse is
mixed into every token, and each position attends to itself over time; the keyboard gives one key
and value per latent frame, to which all tokens attend.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from glassworld.models.ops.attention import AttentionFunction, attention
from glassworld.models.ops.linear import PackedLinear, mlp_layers
from glassworld.models.ops.norms import rms_norm
from glassworld.models.transformer.attention import QKV, RMSNorm, cached_attention
from glassworld.models.transformer.kv_cache import BatchSlots, CacheSlots, LayerCache
from glassworld.models.transformer.rope import RotaryTable
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag
from glassworld.specs import ActionModuleSpec


class ActionWindows(NamedTuple):
    """The actions that each latent frame of a block sees."""

    keyboard: Tensor  # [b, f, rows, keys]
    mouse: Tensor | None  # [b, f, rows, 2]


class ActionInputs(NamedTuple):
    """The inputs that the action modules of all layers share in one forward."""

    windows: ActionWindows
    rotary: RotaryTable  # [f, d / 2]; for several sessions [b, 1, 1, f, d / 2]
    slots: CacheSlots | BatchSlots | None  # of the ring caches; None in training
    visible: Tensor | None  # training: [f, f], which frame sees which


class ActionModule(nn.Module):
    """Two attentions that add mouse and keyboard to the tokens `[b, f, positions, dim]`."""

    def __init__(self, spec: ActionModuleSpec, dim: int, eps: float) -> None:
        super().__init__()
        self.heads, self.eps = spec.heads, eps
        self.mouse_attention: AttentionFunction = attention
        mouse, keyboard = spec.mouse_width, spec.keyboard_width
        if spec.mouse_dim:
            self.mouse_mlp = nn.Sequential(
                *mlp_layers(dim + spec.rows * spec.mouse_dim, mouse, mouse),
                nn.LayerNorm(mouse),
            )
            self.t_qkv = PackedLinear(mouse, 3 * mouse, bias=False)
            # Stored in released checkpoints but never applied: the norms in use have no weight.
            self.img_attn_q_norm = RMSNorm(mouse // spec.heads, eps)
            self.img_attn_k_norm = RMSNorm(mouse // spec.heads, eps)
            self.proj_mouse = PackedLinear(mouse, dim, bias=False)
        self.has_mouse = bool(spec.mouse_dim)
        self.keyboard_embed = nn.Sequential(
            nn.Linear(spec.keyboard_dim, spec.embed_width),
            nn.SiLU(),
            nn.Linear(spec.embed_width, spec.embed_width),
        )
        self.mouse_attn_q = PackedLinear(dim, keyboard, bias=False)  # the keyboard's queries
        self.keyboard_attn_kv = nn.Linear(spec.rows * spec.embed_width, 2 * keyboard, bias=False)
        self.key_attn_q_norm = RMSNorm(keyboard // spec.heads, eps)
        self.key_attn_k_norm = RMSNorm(keyboard // spec.heads, eps)
        self.proj_keyboard = PackedLinear(keyboard, dim, bias=False)

    def forward(self, x: Tensor, inputs: ActionInputs, cache: LayerCache | None) -> Tensor:
        """Add both attentions to `x` `[b, f, positions, dim]`; without a `cache`, in training."""
        windows, rotary, slots, visible = inputs
        if windows.mouse is not None and self.has_mouse:
            with tag(tags.MOUSE_ATTENTION):
                qkv = self.mouse_qkv(x, windows.mouse, rotary)
                ring = cache.mouse if cache else None
                mixed = cached_attention(qkv, ring, slots, visible, self.mouse_attention)
                x = self.mouse_out(x, mixed)
        with tag(tags.KEYBOARD_ATTENTION):
            qkv = self.keyboard_qkv(x, windows.keyboard, rotary)
            ring = cache.keyboard if cache else None
            mask = None if visible is None else visible.repeat(x.shape[2], 1)
            mixed = cached_attention(qkv, ring, slots, mask)
            return self.keyboard_out(x, mixed)

    # `compile_layers` compiles each of these. Tags and writes to the caches stay outside.

    def mouse_qkv(self, x: Tensor, mouse: Tensor, rotary: RotaryTable) -> QKV:
        """Project each position to a sequence over time, `[b * positions, heads, f, d]`."""
        moves = mouse.flatten(2)[:, :, None].expand(-1, -1, x.shape[2], -1)
        qkv = self.t_qkv(self.mouse_mlp(torch.cat([x, moves], -1)))
        qkv = rearrange(qkv, "b f p (three h d) -> three b p h f d", three=3, h=self.heads)
        q, k = rotary.rotate(rms_norm(qkv[:2], self.eps)).flatten(1, 2)
        return QKV(q, k, qkv[2].flatten(0, 1))

    def mouse_out(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Add the mouse attention's output, projected, to `x`."""
        mixed = rearrange(mixed, "(b p) h f d -> b f p (h d)", p=x.shape[2])
        return x + self.proj_mouse(mixed)

    def keyboard_qkv(self, x: Tensor, keyboard: Tensor, rotary: RotaryTable) -> QKV:
        """Project all tokens to queries `[b, heads, p * f, d]`, the keyboard to a key a frame."""
        kv = self.keyboard_attn_kv(self.keyboard_embed(keyboard).flatten(2))
        k, v = rearrange(kv, "b f (two h d) -> two b h 1 f d", two=2, h=self.heads)
        k = rotary.rotate(rms_norm(k, self.eps))
        q = rearrange(self.mouse_attn_q(x), "b f p (h d) -> b h p f d", h=self.heads)
        q = rotary.rotate(rms_norm(q, self.eps)).flatten(2, 3)
        return QKV(q, k.squeeze(2), v.squeeze(2))

    def keyboard_out(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Add the keyboard attention's output, projected, to `x`."""
        mixed = rearrange(mixed, "b h (p f) d -> b f p (h d)", f=x.shape[1])
        return x + self.proj_keyboard(mixed)
