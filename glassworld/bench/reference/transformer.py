"""The transformer as the released code computes it.

One matmul each for queries, keys and values; norms in float32 and modulations step by step;
rotations in float64, with a new table for every layer; windows of keys and values shifted by a copy
when a frame leaves; keyboard keys of its own for every token; an update pass through all layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from glassworld.models.ops.linear import PackedLinear
from glassworld.models.transformer.action import ActionModule, ActionWindows
from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.kv_cache import KeyValues
from glassworld.models.transformer.layer import Layer
from glassworld.models.transformer.rope import rope_frequencies
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag
from glassworld.specs import ActionModuleSpec


@dataclass(frozen=True)
class EagerPosition:
    """Position of a block: its first latent frame, their number, and the token grid of each."""

    start: int
    frames: int
    grid: tuple[int, int]


class ShiftingKVCache:
    """Keys and values `[b, slots * per_frame, heads, d]` of a window, the oldest frame first."""

    def __init__(self, like: Tensor, shape: tuple[int, ...], per_frame: int, sink: int) -> None:
        self.k, self.v = like.new_zeros(shape), like.new_zeros(shape)
        self.per_frame, self.sink, self.evicted = per_frame, sink, 0

    def put(self, k: Tensor, v: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Write the frames from `start` on, and return the keys and values of the window."""
        step = self.per_frame
        end = (start - self.evicted) * step + k.shape[1]
        if (excess := end - self.k.shape[1]) > 0:
            ahead = self.sink * step
            for cache in (self.k, self.v):
                cache[:, ahead:-excess] = cache[:, ahead + excess :].clone()
            self.evicted += excess // step
            end -= excess
        self.k[:, end - k.shape[1] : end] = k
        self.v[:, end - k.shape[1] : end] = v
        return self.k[:, :end], self.v[:, :end]


@dataclass
class EagerCache:
    """Keys and values of the past frames for one layer."""

    self_attention: ShiftingKVCache
    mouse: ShiftingKVCache | None = None
    keyboard: ShiftingKVCache | None = None


def eager_linear(x: Tensor, layer: PackedLinear) -> Tensor:
    """Compute a linear layer with torch's matmul and a separate activation."""
    x = F.linear(x, layer.weight, layer.bias)
    return F.gelu(x, approximate="tanh") if layer.gelu else x


def eager_sequential(x: Tensor, layers: nn.Sequential) -> Tensor:
    """Apply layers one after another."""
    for layer in layers:
        x = eager_linear(x, layer) if isinstance(layer, PackedLinear) else layer(x)
    return x


def eager_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend: `q`, `k`, `v` and the result are `[b, n, heads, d]`."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()


def eager_rms_norm(x: Tensor, eps: float) -> Tensor:
    """Normalize by the root mean square, in float32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).type_as(x)


def eager_layer_norm(
    x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Normalize to zero mean and unit variance, in float32."""
    weight, bias = (None if y is None else y.float() for y in (weight, bias))
    return F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps).type_as(x)


def eager_rope(x: Tensor, place: EagerPosition) -> Tensor:
    """Rotate tokens `[b, n, heads, d]` by frame, row and column, as complex128."""
    head_dim = x.shape[-1]
    space = 2 * (head_dim // 6)
    counts = (place.frames, *place.grid)
    tables = []
    for axis, dims in enumerate((head_dim - 2 * space, space, space)):
        positions = torch.arange(counts[axis], device=x.device, dtype=torch.float64)
        positions = positions + place.start if axis == 0 else positions
        angles = torch.outer(positions, rope_frequencies(dims, 1e4, x.device))
        shape = [len(positions) if other == axis else 1 for other in range(3)]
        table = torch.polar(torch.ones_like(angles), angles).view(*shape, -1)
        tables.append(table.expand(*counts, -1))
    table = torch.cat(tables, -1).view(-1, 1, head_dim // 2)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).type_as(x)


def eager_time_rope(x: Tensor, start: int, spec: ActionModuleSpec) -> Tensor:
    """Rotate the first dims of `[b, frames, heads, d]` by frame, with cosines and sines."""
    frames = torch.arange(start, start + x.shape[1], device=x.device, dtype=torch.float32)
    angles = torch.outer(
        frames, rope_frequencies(spec.rotary_dims, spec.rope_theta, x.device).float()
    )
    angles = F.pad(angles, (0, x.shape[-1] // 2 - angles.shape[1]))
    angles = angles.repeat_interleave(2, -1)[:, None]
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    crossed = torch.stack([-odd, even], -1).flatten(-2)
    return (x.float() * angles.cos() + crossed * angles.sin()).type_as(x)


class EagerActions(nn.Module):
    """The action module over tokens `[b, n, dim]`."""

    def __init__(self, own: ActionModule, spec: ActionModuleSpec) -> None:
        super().__init__()
        self.own, self.spec = own, spec

    def forward(
        self, x: Tensor, windows: ActionWindows, place: EagerPosition, cache: EagerCache
    ) -> Tensor:
        """Add the attention to mouse movements, if there are any, and to keys."""
        if windows.mouse is not None and cache.mouse is not None:
            with tag(tags.MOUSE_ATTENTION):
                x = x + self.mouse(x, windows.mouse, place, cache.mouse)
        with tag(tags.KEYBOARD_ATTENTION):
            assert cache.keyboard is not None
            return x + self.keyboard(x, windows.keyboard, place, cache.keyboard)

    def mouse(
        self, x: Tensor, moves: Tensor, place: EagerPosition, window: ShiftingKVCache
    ) -> Tensor:
        """Attend over time at every position, with mouse movements `[b, f, n, d]`."""
        own, heads = self.own, self.spec.heads
        hidden = rearrange(x, "b (f p) c -> (b p) f c", f=place.frames)
        moves = moves.flatten(2).repeat_interleave(len(hidden) // len(x), 0)
        qkv = eager_linear(
            eager_sequential(torch.cat([hidden, moves], -1), own.mouse_mlp), own.t_qkv
        )
        q, k, v = rearrange(qkv, "b f (three h d) -> three b f h d", three=3, h=heads)
        q, k = (eager_time_rope(eager_rms_norm(y, own.eps), place.start, self.spec) for y in (q, k))
        mixed = eager_attention(q, *window.put(k, v, place.start))
        mixed = rearrange(mixed, "(b p) f h d -> b (f p) (h d)", b=len(x))
        return eager_linear(mixed, own.proj_mouse)

    def keyboard(
        self, x: Tensor, keys: Tensor, place: EagerPosition, window: ShiftingKVCache
    ) -> Tensor:
        """Attend to keyboard keys, repeated for every position as in the released code."""
        own, heads = self.own, self.spec.heads
        kv = own.keyboard_attn_kv(own.keyboard_embed(keys).flatten(2))
        k, v = rearrange(kv, "b f (two h d) -> two b f h d", two=2, h=heads)
        q = eager_linear(x, own.mouse_attn_q)
        q = rearrange(q, "b (f p) (h d) -> (b p) f h d", f=place.frames, h=heads)
        q, k = (eager_time_rope(eager_rms_norm(y, own.eps), place.start, self.spec) for y in (q, k))
        positions = len(q) // len(x)
        seen = (y.repeat_interleave(positions, 0) for y in window.put(k, v, place.start))
        mixed = eager_attention(q, *seen)
        mixed = rearrange(mixed, "(b p) f h d -> b (f p) (h d)", b=len(x))
        return eager_linear(mixed, own.proj_keyboard)


class EagerLayer(nn.Module):
    """A layer over tokens `[b, n, dim]`."""

    def __init__(self, own: Layer, spec: ActionModuleSpec) -> None:
        super().__init__()
        self.own = own
        self.actions = EagerActions(own.action_model, spec) if own.action_model else None

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        place: EagerPosition,
        windows: ActionWindows,
        context: KeyValues,
        cache: EagerCache,
    ) -> Tensor:
        """Compute the layer; `time` is `[b, f, 6, dim]`."""
        own = self.own
        parts = (own.modulation.unsqueeze(1) + time).chunk(6, 2)
        with tag(tags.SELF_ATTENTION):
            y = self.modulated(x, parts[0], parts[1])
            x = x + self.gated(self.self_attention(y, place, cache), parts[2])
        with tag(tags.CROSS_ATTENTION):
            y = eager_layer_norm(x, own.norm3.eps, own.norm3.weight, own.norm3.bias)
            x = x + self.cross_attention(y, context)
        if self.actions is not None:
            x = self.actions(x, windows, place, cache)
        with tag(tags.FEED_FORWARD):
            y = eager_sequential(self.modulated(x, parts[3], parts[4]), own.ffn)
            return x + self.gated(y, parts[5])

    def modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Normalize and modulate each frame."""
        y = eager_layer_norm(x, self.own.eps).unflatten(1, (shift.shape[1], -1))
        return (y * (1 + scale) + shift).flatten(1, 2)

    def gated(self, y: Tensor, gate: Tensor) -> Tensor:
        """Scale each frame by its gate."""
        return (y.unflatten(1, (gate.shape[1], -1)) * gate).flatten(1, 2)

    def self_attention(self, x: Tensor, place: EagerPosition, cache: EagerCache) -> Tensor:
        """Attend to the tokens of the window."""
        own = self.own.self_attn
        q, k, v = (
            F.linear(x, weight, bias)
            for weight, bias in zip(own.qkv.weight.chunk(3), own.qkv.bias.chunk(3), strict=True)
        )
        q = eager_rms_norm(q, own.norm_q.eps) * own.norm_q.weight
        k = eager_rms_norm(k, own.norm_k.eps) * own.norm_k.weight
        q, k, v = (y.unflatten(-1, (own.heads, -1)) for y in (q, k, v))
        q, k = eager_rope(q, place), eager_rope(k, place)
        seen = eager_attention(q, *cache.self_attention.put(k, v, place.start))
        return eager_linear(seen.flatten(2), own.o)

    def cross_attention(self, x: Tensor, context: KeyValues) -> Tensor:
        """Attend to the visual context."""
        own = self.own.cross_attn
        q = eager_rms_norm(eager_linear(x, own.q), own.norm_q.eps) * own.norm_q.weight
        q = q.unflatten(-1, (own.heads, -1))
        seen = eager_attention(q, context.k.transpose(1, 2), context.v.transpose(1, 2))
        return eager_linear(seen.flatten(2), own.o)


class EagerDiT(nn.Module):
    """Replaces a `DiT` in a pipeline, with its weights."""

    compiled = False

    def __init__(self, own: DiT) -> None:
        super().__init__()
        self.own, self.spec = own, own.spec
        self.patch_embedding, self.context_kv = own.patch_embedding, own.context_kv
        layers = cast(Iterable[Layer], own.blocks)
        self.blocks = nn.ModuleList(EagerLayer(layer, own.spec.action) for layer in layers)

    def stream_position(
        self, start: int, frames: int, grid: tuple[int, int], shift: int = 0
    ) -> EagerPosition:
        """Return the position of a block; `shift` belongs to rings and changes nothing."""
        return EagerPosition(start, frames, grid)

    def empty_caches(self, batch: int, positions: int) -> list[EagerCache]:
        """Return empty caches for every layer."""
        spec, action = self.spec, self.spec.action
        like = self.patch_embedding.weight

        def window(rows: int, per_frame: int, width: int, heads: int, sink: int) -> ShiftingKVCache:
            shape = (rows, spec.window * per_frame, heads, width // heads)
            return ShiftingKVCache(like, shape, per_frame, sink)

        caches = []
        for layer in self.blocks:
            cache = EagerCache(window(batch, positions, spec.dim, spec.num_heads, spec.sink))
            if layer.actions is not None:
                cache.keyboard = window(batch, 1, action.keyboard_width, action.heads, 0)
                if action.mouse_dim:
                    rows = batch * positions
                    cache.mouse = window(rows, 1, action.mouse_width, action.heads, 0)
            caches.append(cache)
        return caches

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        place: EagerPosition,
        windows: ActionWindows,
        context: list[KeyValues],
        caches: list[EagerCache],
        output: bool = True,
    ) -> Tensor:
        """Predict from noisy latents.

        `output` changes nothing: the update pass of the released code runs all layers.
        """
        own = self.own
        with tag(tags.PATCH_EMBEDDING):
            tokens = self.patch_embedding(x).flatten(2).transpose(1, 2)
        with tag(tags.TIME_EMBEDDING):
            sinusoid = own.sinusoid(timesteps.expand(-1, place.frames))
            embedded = own.time_embedding(sinusoid.to(tokens.dtype))
            time = own.time_projection(embedded).unflatten(-1, (6, -1))
        for index, layer in enumerate(self.blocks):
            with tag(tags.LAYER, layer=index):
                tokens = layer(tokens, time, place, windows, context[index], caches[index])
        with tag(tags.HEAD):
            return self.unpatch(tokens, embedded, place)

    def unpatch(self, tokens: Tensor, embedded: Tensor, place: EagerPosition) -> Tensor:
        """Project tokens to the latents of a block."""
        head, patch = self.own.head, self.spec.patch
        shift, scale = (head.modulation.unsqueeze(1) + embedded.unsqueeze(2)).chunk(2, 2)
        y = eager_layer_norm(tokens, head.eps).unflatten(1, (place.frames, -1))
        y = eager_linear(y * (1 + scale) + shift, head.head)
        pattern = "b f (r c) (p q ch) -> b ch f (r p) (c q)"
        return rearrange(y, pattern, r=place.grid[0], c=place.grid[1], p=patch, q=patch)
