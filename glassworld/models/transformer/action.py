"""The action module: how keyboard and mouse steer the transformer.

Each latent frame sees the actions of the twelve pixel frames before its last one. The mouse is
mixed into every token and attended over time, position by position; the keyboard is one key and
value per latent frame that all tokens attend to.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from glassworld.models.ops.linear import PackedLinear, feed_forward
from glassworld.models.ops.norms import rms_norm
from glassworld.models.transformer.attention import (
    QKV,
    AttentionFunction,
    RMSNorm,
    attention,
    cached_attention,
)
from glassworld.models.transformer.kv_cache import CacheSlots, LayerCache
from glassworld.models.transformer.rope import RotaryTable
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag
from glassworld.specs import ActionModuleSpec


class ActionWindows(NamedTuple):
    """What each latent frame of a block sees of the actions."""

    keyboard: Tensor  # [b, f, rows, keys]
    mouse: Tensor | None  # [b, f, rows, 2]


class ActionPass(NamedTuple):
    """What the action modules of all layers share in one forward."""

    windows: ActionWindows
    rotary: RotaryTable  # [f, d / 2]; for several sessions [b, 1, 1, f, d / 2]
    place: CacheSlots | None  # where the block goes in the rings; None when training
    visible: Tensor | None  # [f, f]: which frame sees which, without rings


class ActionModule(nn.Module):
    """Adds what mouse and keyboard say to the tokens `[b, f, positions, dim]`."""

    def __init__(self, spec: ActionModuleSpec, dim: int, eps: float) -> None:
        super().__init__()
        self.heads, self.eps = spec.heads, eps
        self.mouse_attention: AttentionFunction = attention
        mouse, keyboard = spec.mouse_width, spec.keyboard_width
        if spec.mouse_dim:
            self.mouse_mlp = nn.Sequential(
                *feed_forward(dim + spec.rows * spec.mouse_dim, mouse, mouse),
                nn.LayerNorm(mouse),
            )
            self.t_qkv = PackedLinear(mouse, 3 * mouse, bias=False)
            # Stored in released checkpoints, never applied: its norms have no weight.
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

    def forward(self, x: Tensor, shared: ActionPass, cache: LayerCache | None) -> Tensor:
        windows, rotary = shared.windows, shared.rotary
        if windows.mouse is not None and self.has_mouse:
            with tag(tags.MOUSE_ATTENTION):
                heads = self.mouse_qkv(x, windows.mouse, rotary)
                past = cache.mouse if cache else None
                place, visible = shared.place, shared.visible
                seen = cached_attention(heads, past, place, visible, self.mouse_attention)
                x = self.mouse_out(x, seen)
        with tag(tags.KEYBOARD_ATTENTION):
            heads = self.keyboard_qkv(x, windows.keyboard, rotary)
            past = cache.keyboard if cache else None
            mask = None if shared.visible is None else shared.visible.repeat(x.shape[2], 1)
            seen = cached_attention(heads, past, shared.place, mask)
            return self.keyboard_out(x, seen)

    # What lies between the tags and the writing of windows; `compile_layers` compiles each.

    def mouse_qkv(self, x: Tensor, mouse: Tensor, rotary: RotaryTable) -> QKV:
        """Every position attends to itself over time: `[b * positions, heads, f, d]`."""
        moves = mouse.flatten(2)[:, :, None].expand(-1, -1, x.shape[2], -1)
        qkv = self.t_qkv(self.mouse_mlp(torch.cat([x, moves], -1)))
        qkv = rearrange(qkv, "b f p (three h d) -> three b p h f d", three=3, h=self.heads)
        q, k = rotary.rotate(rms_norm(qkv[:2], self.eps)).flatten(1, 2)
        return QKV(q, k, qkv[2].flatten(0, 1))

    def mouse_out(self, x: Tensor, seen: Tensor) -> Tensor:
        mixed = rearrange(seen, "(b p) h f d -> b f p (h d)", p=x.shape[2])
        return x + self.proj_mouse(mixed)

    def keyboard_qkv(self, x: Tensor, keyboard: Tensor, rotary: RotaryTable) -> QKV:
        """Every token attends to the window's frames, one key each: `[b, heads, p * f, d]`."""
        kv = self.keyboard_attn_kv(self.keyboard_embed(keyboard).flatten(2))
        k, v = rearrange(kv, "b f (two h d) -> two b h 1 f d", two=2, h=self.heads)
        k = rotary.rotate(rms_norm(k, self.eps))
        q = rearrange(self.mouse_attn_q(x), "b f p (h d) -> b h p f d", h=self.heads)
        q = rotary.rotate(rms_norm(q, self.eps)).flatten(2, 3)
        return QKV(q, k.squeeze(2), v.squeeze(2))

    def keyboard_out(self, x: Tensor, seen: Tensor) -> Tensor:
        mixed = rearrange(seen, "b h (p f) d -> b f p (h d)", f=x.shape[1])
        return x + self.proj_keyboard(mixed)
