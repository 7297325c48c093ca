"""The transformer as the released code computes it.

Queries, keys and values by a product each; norms in float32 and modulations step by step;
rotations in float64, their table laid out anew for every layer; windows of keys and values
shifted by a copy when a frame leaves; every token with keyboard keys of its own; an update pass
that goes to the end.
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
class Place:
    """Where a block stands: its first latent frame, how many it has, and each one's tokens."""

    start: int
    frames: int
    grid: tuple[int, int]


class ShiftingWindow:
    """Keys and values `[b, slots * per_frame, heads, d]` of a window, the oldest frame first."""

    def __init__(self, like: Tensor, shape: tuple[int, ...], per_frame: int, sink: int) -> None:
        self.k, self.v = like.new_zeros(shape), like.new_zeros(shape)
        self.per_frame, self.sink, self.evicted = per_frame, sink, 0

    def put(self, k: Tensor, v: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Write the frames from `start` on. Returns what the window then holds."""
        step = self.per_frame
        end = (start - self.evicted) * step + k.shape[1]
        if (excess := end - self.k.shape[1]) > 0:
            ahead = self.sink * step
            for kept in (self.k, self.v):
                kept[:, ahead:-excess] = kept[:, ahead + excess :].clone()
            self.evicted += excess // step
            end -= excess
        self.k[:, end - k.shape[1] : end] = k
        self.v[:, end - k.shape[1] : end] = v
        return self.k[:, :end], self.v[:, :end]


@dataclass
class EagerCache:
    """What a layer keeps of the past."""

    self_attention: ShiftingWindow
    mouse: ShiftingWindow | None = None
    keyboard: ShiftingWindow | None = None


def dense(x: Tensor, layer: PackedLinear) -> Tensor:
    """By torch's product, and the activation as an operator of its own."""
    x = F.linear(x, layer.weight, layer.bias)
    return F.gelu(x, approximate="tanh") if layer.gelu else x


def in_turn(x: Tensor, layers: nn.Sequential) -> Tensor:
    for layer in layers:
        x = dense(x, layer) if isinstance(layer, PackedLinear) else layer(x)
    return x


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`[b, n, heads, d]` each."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()


def rms_norm(x: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).type_as(x)


def layer_norm(
    x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    weight, bias = (None if y is None else y.float() for y in (weight, bias))
    return F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps).type_as(x)


def rotate(x: Tensor, place: Place) -> Tensor:
    """Turn the tokens `[b, n, heads, d]` by frame, row and column, as complex128."""
    head_dim = x.shape[-1]
    space = 2 * (head_dim // 6)
    counts = (place.frames, *place.grid)
    turns = []
    for axis, dims in enumerate((head_dim - 2 * space, space, space)):
        positions = torch.arange(counts[axis], device=x.device, dtype=torch.float64)
        positions = positions + place.start if axis == 0 else positions
        angles = torch.outer(positions, rope_frequencies(dims, 1e4, x.device))
        shape = [len(positions) if other == axis else 1 for other in range(3)]
        table = torch.polar(torch.ones_like(angles), angles).view(*shape, -1)
        turns.append(table.expand(*counts, -1))
    table = torch.cat(turns, -1).view(-1, 1, head_dim // 2)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).type_as(x)


def rotate_time(x: Tensor, start: int, spec: ActionModuleSpec) -> Tensor:
    """Turn the first dims of `[b, frames, heads, d]` with the frame, by cosines and sines."""
    frames = torch.arange(start, start + x.shape[1], device=x.device, dtype=torch.float32)
    angles = torch.outer(
        frames, rope_frequencies(spec.turning_dims, spec.rope_theta, x.device).float()
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

    def forward(self, x: Tensor, windows: ActionWindows, place: Place, cache: EagerCache) -> Tensor:
        if windows.mouse is not None and cache.mouse is not None:
            with tag(tags.MOUSE_ATTENTION):
                x = x + self.mouse(x, windows.mouse, place, cache.mouse)
        with tag(tags.KEYBOARD_ATTENTION):
            assert cache.keyboard is not None
            return x + self.keyboard(x, windows.keyboard, place, cache.keyboard)

    def mouse(self, x: Tensor, moves: Tensor, place: Place, window: ShiftingWindow) -> Tensor:
        own, heads = self.own, self.spec.heads
        hidden = rearrange(x, "b (f p) c -> (b p) f c", f=place.frames)
        moves = moves.flatten(2).repeat_interleave(len(hidden) // len(x), 0)
        qkv = dense(in_turn(torch.cat([hidden, moves], -1), own.mouse_mlp), own.t_qkv)
        q, k, v = rearrange(qkv, "b f (three h d) -> three b f h d", three=3, h=heads)
        q, k = (rotate_time(rms_norm(y, own.eps), place.start, self.spec) for y in (q, k))
        mixed = attend(q, *window.put(k, v, place.start))
        mixed = rearrange(mixed, "(b p) f h d -> b (f p) (h d)", b=len(x))
        return dense(mixed, own.proj_mouse)

    def keyboard(self, x: Tensor, keys: Tensor, place: Place, window: ShiftingWindow) -> Tensor:
        own, heads = self.own, self.spec.heads
        kv = own.keyboard_attn_kv(own.keyboard_embed(keys).flatten(2))
        k, v = rearrange(kv, "b f (two h d) -> two b f h d", two=2, h=heads)
        q = dense(x, own.mouse_attn_q)
        q = rearrange(q, "b (f p) (h d) -> (b p) f h d", f=place.frames, h=heads)
        q, k = (rotate_time(rms_norm(y, own.eps), place.start, self.spec) for y in (q, k))
        positions = len(q) // len(x)
        seen = (y.repeat_interleave(positions, 0) for y in window.put(k, v, place.start))
        mixed = attend(q, *seen)
        mixed = rearrange(mixed, "(b p) f h d -> b (f p) (h d)", b=len(x))
        return dense(mixed, own.proj_keyboard)


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
        place: Place,
        windows: ActionWindows,
        context: KeyValues,
        cache: EagerCache,
    ) -> Tensor:
        """`time`: `[b, f, 6, dim]`."""
        own = self.own
        parts = (own.modulation.unsqueeze(1) + time).chunk(6, 2)
        with tag(tags.SELF_ATTENTION):
            y = self.modulated(x, parts[0], parts[1])
            x = x + self.gated(self.self_attention(y, place, cache), parts[2])
        with tag(tags.CROSS_ATTENTION):
            y = layer_norm(x, own.norm3.eps, own.norm3.weight, own.norm3.bias)
            x = x + self.cross_attention(y, context)
        if self.actions is not None:
            x = self.actions(x, windows, place, cache)
        with tag(tags.FEED_FORWARD):
            y = in_turn(self.modulated(x, parts[3], parts[4]), own.ffn)
            return x + self.gated(y, parts[5])

    def modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        y = layer_norm(x, self.own.eps).unflatten(1, (shift.shape[1], -1))
        return (y * (1 + scale) + shift).flatten(1, 2)

    def gated(self, y: Tensor, gate: Tensor) -> Tensor:
        return (y.unflatten(1, (gate.shape[1], -1)) * gate).flatten(1, 2)

    def self_attention(self, x: Tensor, place: Place, cache: EagerCache) -> Tensor:
        own = self.own.self_attn
        q, k, v = (
            F.linear(x, weight, bias)
            for weight, bias in zip(own.qkv.weight.chunk(3), own.qkv.bias.chunk(3), strict=True)
        )
        q = rms_norm(q, own.norm_q.eps) * own.norm_q.weight
        k = rms_norm(k, own.norm_k.eps) * own.norm_k.weight
        q, k, v = (y.unflatten(-1, (own.heads, -1)) for y in (q, k, v))
        q, k = rotate(q, place), rotate(k, place)
        seen = attend(q, *cache.self_attention.put(k, v, place.start))
        return dense(seen.flatten(2), own.o)

    def cross_attention(self, x: Tensor, context: KeyValues) -> Tensor:
        own = self.own.cross_attn
        q = rms_norm(dense(x, own.q), own.norm_q.eps) * own.norm_q.weight
        q = q.unflatten(-1, (own.heads, -1))
        seen = attend(q, context.k.transpose(1, 2), context.v.transpose(1, 2))
        return dense(seen.flatten(2), own.o)


class EagerDiT(nn.Module):
    """Takes the place of a `DiT` in a pipeline, with its weights."""

    compiled = False

    def __init__(self, own: DiT) -> None:
        super().__init__()
        self.own, self.spec = own, own.spec
        self.patch_embedding, self.context_kv = own.patch_embedding, own.context_kv
        layers = cast(Iterable[Layer], own.blocks)
        self.blocks = nn.ModuleList(EagerLayer(layer, own.spec.action) for layer in layers)

    def stream_position(
        self, start: int, frames: int, grid: tuple[int, int], shift: int = 0
    ) -> Place:
        return Place(start, frames, grid)

    def empty_caches(self, batch: int, positions: int) -> list[EagerCache]:
        spec, action = self.spec, self.spec.action
        like = self.patch_embedding.weight

        def window(rows: int, per_frame: int, width: int, heads: int, sink: int) -> ShiftingWindow:
            shape = (rows, spec.window * per_frame, heads, width // heads)
            return ShiftingWindow(like, shape, per_frame, sink)

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
        place: Place,
        windows: ActionWindows,
        context: list[KeyValues],
        caches: list[EagerCache],
        output: bool = True,
    ) -> Tensor:
        """`output` changes nothing: the released code's update pass goes to the end."""
        own = self.own
        with tag(tags.PATCH_EMBEDDING):
            tokens = self.patch_embedding(x).flatten(2).transpose(1, 2)
        with tag(tags.TIME_EMBEDDING):
            each = own.sinusoid(timesteps.expand(-1, place.frames))
            embedded = own.time_embedding(each.to(tokens.dtype))
            time = own.time_projection(embedded).unflatten(-1, (6, -1))
        for index, layer in enumerate(self.blocks):
            with tag(tags.LAYER, layer=index):
                tokens = layer(tokens, time, place, windows, context[index], caches[index])
        with tag(tags.HEAD):
            return self.unpatch(tokens, embedded, place)

    def unpatch(self, tokens: Tensor, embedded: Tensor, place: Place) -> Tensor:
        head, patch = self.own.head, self.spec.patch
        shift, scale = (head.modulation.unsqueeze(1) + embedded.unsqueeze(2)).chunk(2, 2)
        y = layer_norm(tokens, head.eps).unflatten(1, (place.frames, -1))
        y = dense(y * (1 + scale) + shift, head.head)
        form = "b f (r c) (p q ch) -> b ch f (r p) (c q)"
        return rearrange(y, form, r=place.grid[0], c=place.grid[1], p=patch, q=patch)
