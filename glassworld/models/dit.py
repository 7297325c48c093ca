"""The causal diffusion transformer.

One forward serves streaming and training. Streaming gives a block of frames and the caches of
what came before; training gives all frames at once and a mask that says which frame sees which.
The weights are the same and so are the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glassworld.models.action import ActionModule, ActionPass, ActionWindows
from glassworld.models.attention import (
    CrossAttention,
    Heads,
    SelfAttention,
    attend_window,
    join_heads,
)
from glassworld.models.kv_window import (
    KeyValues,
    KVWindow,
    LayerCache,
    Placement,
    tokens_mask,
)
from glassworld.models.rope import Rotary, rotary_3d, rotary_time
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
class BlockPlace:
    """Where a block of latent frames stands: computed once a block, shared by its passes."""

    rotary: Rotary  # [tokens, d / 2]; for several sessions [b, 1, tokens, d / 2]
    action_rotary: Rotary
    self_place: Placement | None = None  # None when training
    action_place: Placement | None = None
    visible: Tensor | None = None  # training: [f, f], which frame sees which one's actions
    visible_tokens: Tensor | None = None

    @staticmethod
    def together(places: Sequence[BlockPlace]) -> BlockPlace:
        """Of several sessions whose blocks go to the same slots of their windows."""
        first = places[0]
        if len(places) == 1:
            return first
        assert all(each.self_place == first.self_place for each in places)
        assert all(each.action_place == first.action_place for each in places)
        return replace(
            first,
            rotary=first.rotary.together([each.rotary for each in places], 1),
            action_rotary=first.rotary.together([each.action_rotary for each in places], 2),
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
        self.ffn = nn.Sequential(
            nn.Linear(spec.dim, spec.ffn_dim),
            nn.GELU("tanh"),
            nn.Linear(spec.ffn_dim, spec.dim),
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, spec.dim) / spec.dim**0.5)

    def modulations(self, time: Tensor) -> tuple[Modulation, Modulation]:
        """`time`: `[b, f or 1, 6, dim]`."""
        parts = (self.modulation + time).unsqueeze(3).unbind(2)
        return Modulation(*parts[:3]), Modulation(*parts[3:])

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        place: BlockPlace,
        windows: ActionWindows,
        context: KeyValues,
        cache: LayerCache | None,
    ) -> Tensor:
        """`x`: tokens `[b, f, positions, dim]`."""
        attend, feed = self.modulations(time)
        with tag(tags.SELF_ATTENTION):
            heads = self.enter(x, attend, place.rotary)
            window = cache.self_attention if cache else None
            seen = attend_window(heads, window, place.self_place, place.visible_tokens)
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

    def remember(self, x: Tensor, time: Tensor, place: BlockPlace, cache: LayerCache) -> None:
        """Leave the keys and values of `x` in the cache; for a layer whose output nobody reads."""
        attend, _ = self.modulations(time)
        assert place.self_place is not None
        with tag(tags.SELF_ATTENTION):
            y = modulate(x, attend.shift, attend.scale, self.eps).flatten(1, 2)
            k, v = self.self_attn.project_past(y, place.rotary)
            cache.self_attention.put(k, v, place.self_place)


class Head(nn.Module):
    """Tokens to the latents of their patch."""

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        self.eps, self.patch = spec.eps, spec.patch
        self.head = nn.Linear(spec.dim, spec.patch**2 * spec.out_dim)
        self.modulation = nn.Parameter(torch.randn(1, 2, spec.dim) / spec.dim**0.5)

    def forward(self, x: Tensor, time: Tensor, grid: tuple[int, int]) -> Tensor:
        """`x`: `[b, f, positions, dim]`, `time`: `[b, f or 1, dim]`. Returns `[b, c, f, h, w]`."""
        shift, scale = (self.modulation + time.unsqueeze(2)).unsqueeze(3).unbind(2)
        x = self.head(modulate(x, shift, scale, self.eps))
        form = "b f (r c) (p q ch) -> b ch f (r p) (c q)"
        return rearrange(x, form, r=grid[0], c=grid[1], p=self.patch, q=self.patch)


class VisualEmbedding(nn.Module):
    """The visual context to the transformer's width."""

    def __init__(self, context_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(context_dim),
            nn.Linear(context_dim, context_dim),
            nn.GELU(),
            nn.Linear(context_dim, dim),
            nn.LayerNorm(dim),
        )

    def forward(self, context: Tensor) -> Tensor:
        return self.proj(context)


class DiT(nn.Module):
    """Noisy latents, condition, time, context and actions to flow (noise - x0)."""

    def __init__(self, spec: DiTSpec, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.gradient_checkpointing = gradient_checkpointing
        dim, patch = spec.dim, (1, spec.patch, spec.patch)
        self.patch_embedding = nn.Conv3d(spec.in_dim, dim, patch, stride=patch)
        self.time_embedding = nn.Sequential(
            nn.Linear(spec.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.img_emb = VisualEmbedding(spec.context_dim, dim)
        self.blocks = nn.ModuleList(
            Layer(spec, index in spec.action.layers) for index in range(spec.num_layers)
        )
        self.head = Head(spec)

    def context_keys(self, visual_context: Tensor) -> list[KeyValues]:
        """Each layer's keys and values of the visual context `[b, n, context_dim]`."""
        with tag(tags.VISUAL_EMBEDDING):
            context = self.img_emb(visual_context)
        layers = cast(Iterable[Layer], self.blocks)
        return [layer.cross_attn.keys(context) for layer in layers]

    def empty_caches(self, batch: int, positions: int) -> list[LayerCache]:
        """Each layer's rings for frames of `positions` tokens."""
        spec, action = self.spec, self.spec.action
        like = self.head.head.weight

        def ring(rows: int, heads: int, per_frame: int, head_dim: int) -> KVWindow:
            return KVWindow.empty(rows, heads, spec.window, per_frame, like, head_dim)

        caches = []
        for layer in self.blocks:
            cache = LayerCache(ring(batch, spec.num_heads, positions, spec.head_dim))
            if layer.action_model is not None:
                keyboard_dim = action.keyboard_width // action.heads
                cache.keyboard = ring(batch, action.heads, 1, keyboard_dim)
                if action.mouse_dim:
                    mouse_dim = action.mouse_width // action.heads
                    cache.mouse = ring(batch * positions, action.heads, 1, mouse_dim)
            caches.append(cache)
        return caches

    def place(
        self,
        frames: Tensor,
        grid: tuple[int, int],
        visible: Tensor | None = None,
        visible_actions: Tensor | None = None,
    ) -> BlockPlace:
        """The place of latent frames `[f]` in training, with the masks among them `[f, f]`.

        `visible` says which frame sees which (see `block_causal`); actions know no sinks, so
        with sinks they have a mask of their own.
        """
        action = self.spec.action
        action_dim = action.keyboard_width // action.heads
        return BlockPlace(
            rotary=rotary_3d(frames, grid, self.spec.head_dim),
            action_rotary=rotary_time(frames, action.turning_dims, action_dim, action.rope_theta),
            visible=visible if visible_actions is None else visible_actions,
            visible_tokens=None if visible is None else tokens_mask(visible, grid[0] * grid[1]),
        )

    def stream_place(
        self, start: int, frames: int, grid: tuple[int, int], shift: int = 0
    ) -> BlockPlace:
        """The place of the streamed block that starts at latent frame `start`.

        `shift`: by how many slots its session's windows are turned (see `KVWindow.turn`).
        """
        spec = self.spec
        index = torch.arange(start, start + frames, device=self.head.head.weight.device)
        free = self.place(index, grid)
        return BlockPlace(
            rotary=free.rotary,
            action_rotary=free.action_rotary,
            self_place=Placement.of(start, frames, spec.window, spec.sink, shift),
            action_place=Placement.of(start, frames, spec.window, 0, shift),
        )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        place: BlockPlace,
        windows: ActionWindows,
        context: list[KeyValues],
        caches: list[LayerCache] | None = None,
        output: bool = True,
    ) -> Tensor | None:
        """The flow of the frames in `x`.

        `x`: noisy latents and condition `[b, in_dim, f, h, w]`; `timesteps`: `[b, f]`, or
        `[b, 1]` where all frames share one, in 0..1000. Returns `[b, out_dim, f, h, w]`, or
        None with `output=False`, when only what it leaves in the caches is wanted.
        """
        with tag(tags.PATCH_EMBEDDING):
            tokens = self.embed_patches(x)
        with tag(tags.TIME_EMBEDDING):
            embedded = self.time_embedding(self.sinusoid(timesteps).to(tokens.dtype))
            time = self.time_projection(embedded).unflatten(-1, (6, -1))
        last = len(self.blocks) - 1
        for index, layer in enumerate(self.blocks):
            cache = caches[index] if caches else None
            with tag(tags.LAYER, layer=index):
                if index == last and not output and cache and layer.action_model is None:
                    layer.remember(tokens, time, place, cache)
                elif self.gradient_checkpointing and torch.is_grad_enabled():
                    given = (tokens, time, place, windows, context[index], cache)
                    tokens = checkpoint(layer, *given, use_reentrant=False)
                else:
                    tokens = layer(tokens, time, place, windows, context[index], cache)
        if not output:
            return None
        with tag(tags.HEAD):
            grid = (x.shape[-2] // self.spec.patch, x.shape[-1] // self.spec.patch)
            return self.head(tokens, embedded, grid)

    def embed_patches(self, x: Tensor) -> Tensor:
        """Latents to tokens `[b, f, positions, dim]`: patches do not overlap, so by one product."""
        form, patch = "b ch f (r p) (c q) -> b f (r c) (ch p q)", self.spec.patch
        embedding = self.patch_embedding
        return F.linear(
            rearrange(x, form, p=patch, q=patch), embedding.weight.flatten(1), embedding.bias
        )

    def sinusoid(self, timesteps: Tensor) -> Tensor:
        """Cosines then sines of t * 10000^(-i / half), computed in float64."""
        half = self.spec.freq_dim // 2
        steps = torch.arange(half, dtype=torch.float64, device=timesteps.device)
        angles = timesteps.double()[..., None] * torch.pow(10000.0, -steps / half)
        return torch.cat([angles.cos(), angles.sin()], -1).float()
