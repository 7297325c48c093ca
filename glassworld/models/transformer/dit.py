"""The causal diffusion transformer.

One forward serves streaming and training. Streaming gives a block of frames and the caches of
what came before; training gives all frames at once and a mask that says which frame sees which.
The weights are the same and so are the results.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glassworld.models.ops.init import normal_parameter
from glassworld.models.ops.linear import PackedLinear
from glassworld.models.transformer.action import ActionWindows
from glassworld.models.transformer.kv_cache import (
    CacheSlots,
    KeyValues,
    LayerCache,
    RingKVCache,
)
from glassworld.models.transformer.layer import BlockPosition, Layer, modulate
from glassworld.models.transformer.masks import mask_blocks
from glassworld.models.transformer.rope import rope_3d, rope_temporal
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag
from glassworld.specs import DiTSpec


class DiTHead(nn.Module):
    """Tokens to the latents of their patch."""

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        self.eps, self.patch = spec.eps, spec.patch
        self.head = PackedLinear(spec.dim, spec.patch**2 * spec.out_dim)
        self.modulation = normal_parameter(1, 2, spec.dim)

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

    compiled = False  # set when its layers are

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
        self.head = DiTHead(spec)

    def context_kv(self, visual_context: Tensor) -> list[KeyValues]:
        """Each layer's keys and values of the visual context `[b, n, context_dim]`."""
        with tag(tags.VISUAL_EMBEDDING):
            context = self.img_emb(visual_context)
        layers = cast(Iterable[Layer], self.blocks)
        return [layer.cross_attn.keys(context) for layer in layers]

    def empty_caches(self, batch: int, positions: int) -> list[LayerCache]:
        """Each layer's rings for frames of `positions` tokens."""
        spec, action = self.spec, self.spec.action
        like = self.head.head.weight

        def ring(rows: int, heads: int, per_frame: int, head_dim: int) -> RingKVCache:
            return RingKVCache.empty(rows, heads, spec.window, per_frame, like, head_dim)

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

    def training_position(
        self,
        frames: Tensor,
        grid: tuple[int, int],
        visible: Tensor | None = None,
        visible_actions: Tensor | None = None,
    ) -> BlockPosition:
        """The place of latent frames `[f]` in training, with the masks among them `[f, f]`.

        `visible` says which frame sees which, on the host, where it is read; actions know no
        sinks, so with sinks they have a mask of their own.
        """
        action = self.spec.action
        mask = visible if visible_actions is None else visible_actions
        action_dim = action.keyboard_width // action.heads
        return BlockPosition(
            rotary=rope_3d(frames, grid, self.spec.head_dim),
            action_rotary=rope_temporal(frames, action.turning_dims, action_dim, action.rope_theta),
            visible=None if mask is None else mask.to(frames.device),
            mask_blocks=None if visible is None else mask_blocks(visible, grid[0] * grid[1]),
        )

    def stream_position(
        self, start: int, frames: int, grid: tuple[int, int], shift: int = 0
    ) -> BlockPosition:
        """The place of the streamed block that starts at latent frame `start`.

        `shift`: by how many slots its session's windows are turned (see `RingKVCache.roll`).
        """
        spec = self.spec
        index = torch.arange(start, start + frames, device=self.head.head.weight.device)
        free = self.training_position(index, grid)
        return BlockPosition(
            rotary=free.rotary,
            action_rotary=free.action_rotary,
            self_slots=CacheSlots.for_block(start, frames, spec.window, spec.sink, shift),
            action_slots=CacheSlots.for_block(start, frames, spec.window, 0, shift),
        )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        place: BlockPosition,
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
                    layer.update_cache(tokens, time, place, cache)
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
