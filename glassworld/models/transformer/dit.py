"""The causal diffusion transformer.

One forward serves streaming and training. Streaming passes one block of frames and the KV caches
of the frames before it; training passes all frames at once and a block-causal mask. Weights and
results are the same.
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
from glassworld.models.transformer.rope import RotaryTable, rope_3d, rope_temporal
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag
from glassworld.specs import DiTSpec


class DiTHead(nn.Module):
    """The final layer: adaLN, then a linear layer from tokens to the latents of their patches."""

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        self.eps, self.patch = spec.eps, spec.patch
        self.head = PackedLinear(spec.dim, spec.patch**2 * spec.out_dim)
        self.modulation = normal_parameter(1, 2, spec.dim)

    def forward(self, x: Tensor, time: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return latents `[b, c, f, h, w]`.

        `x`: tokens `[b, f, positions, dim]`; `time`: timestep embedding `[b, f or 1, dim]`;
        `grid`: rows and columns of patches.
        """
        shift, scale = (self.modulation + time.unsqueeze(2)).unsqueeze(3).unbind(2)
        x = self.head(modulate(x, shift, scale, self.eps))
        form = "b f (r c) (p q ch) -> b ch f (r p) (c q)"
        return rearrange(x, form, r=grid[0], c=grid[1], p=self.patch, q=self.patch)


class VisualEmbedding(nn.Module):
    """An MLP from the visual context to the transformer's width."""

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
        """Map `[b, n, context_dim]` to `[b, n, dim]`."""
        return self.proj(context)


class DiT(nn.Module):
    """The diffusion transformer (DiT): predicts the flow (noise - x0) of noisy latents."""

    compiled = False  # set once its layers are compiled

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

    @property
    def takes_batch_slots(self) -> bool:
        """Whether sessions at different points of their windows can share a pass."""
        return all(layer.takes_batch_slots for layer in cast(Iterable[Layer], self.blocks))

    def context_kv(self, visual_context: Tensor) -> list[KeyValues]:
        """Return each layer's keys and values of the visual context `[b, n, context_dim]`."""
        with tag(tags.VISUAL_EMBEDDING):
            context = self.img_emb(visual_context)
        layers = cast(Iterable[Layer], self.blocks)
        return [layer.cross_attn.context_kv(context) for layer in layers]

    def empty_caches(self, batch: int, positions: int) -> list[LayerCache]:
        """Return each layer's ring caches, empty, for latent frames of `positions` tokens."""
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
        """Return the position of latent frames `[f]` in training, with the masks among them.

        `visible`: boolean `[f, f]`, on the host, which frame sees which. Actions know no sinks, so
        with sinks they need a mask of their own, `visible_actions`.
        """
        rotary, action_rotary = self._rotary_tables(frames, grid)
        mask = visible if visible_actions is None else visible_actions
        return BlockPosition(
            rotary=rotary,
            action_rotary=action_rotary,
            visible=None if mask is None else mask.to(frames.device),
            mask_blocks=None if visible is None else mask_blocks(visible, grid[0] * grid[1]),
        )

    def stream_position(
        self, start: int, frames: int, grid: tuple[int, int], shift: int = 0
    ) -> BlockPosition:
        """Return the position of the streamed block that starts at latent frame `start`.

        `shift`: by how many slots its session's caches were rolled (see `RingKVCache.roll`).
        """
        spec = self.spec
        index = torch.arange(start, start + frames, device=self.head.head.weight.device)
        rotary, action_rotary = self._rotary_tables(index, grid)
        return BlockPosition(
            rotary=rotary,
            action_rotary=action_rotary,
            self_slots=CacheSlots.for_block(start, frames, spec.window, spec.sink, shift),
            action_slots=CacheSlots.for_block(start, frames, spec.window, 0, shift),
        )

    def _rotary_tables(
        self, frames: Tensor, grid: tuple[int, int]
    ) -> tuple[RotaryTable, RotaryTable]:
        """Return the tables of self-attention and of the action module for frames `[f]`."""
        action = self.spec.action
        action_dim = action.keyboard_width // action.heads
        return (
            rope_3d(frames, grid, self.spec.head_dim),
            rope_temporal(frames, action.rotary_dims, action_dim, action.rope_theta),
        )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        position: BlockPosition,
        windows: ActionWindows,
        context: list[KeyValues],
        caches: list[LayerCache] | None = None,
        output: bool = True,
    ) -> Tensor | None:
        """Return the flow of the frames in `x`, `[b, out_dim, f, h, w]`.

        `x`: noisy latents and condition `[b, in_dim, f, h, w]`; `timesteps`: `[b, f]`, or
        `[b, 1]` where all frames share one, in 0..1000. Flow matching: x_t = (1 - t) x0 + t noise
        with t = timestep / 1000, and the flow is noise - x0. Returns None with `output=False`,
        which only updates the caches.
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
                    layer.update_cache(tokens, time, position, cache)
                elif self.gradient_checkpointing and torch.is_grad_enabled():
                    inputs = (tokens, time, position, windows, context[index], cache)
                    tokens = checkpoint(layer, *inputs, use_reentrant=False)
                else:
                    tokens = layer(tokens, time, position, windows, context[index], cache)
        if not output:
            return None
        with tag(tags.HEAD):
            grid = (x.shape[-2] // self.spec.patch, x.shape[-1] // self.spec.patch)
            return self.head(tokens, embedded, grid)

    def embed_patches(self, x: Tensor) -> Tensor:
        """Return the tokens `[b, f, positions, dim]` of latents.

        Patches do not overlap, so the convolution is one matmul.
        """
        form, patch = "b ch f (r p) (c q) -> b f (r c) (ch p q)", self.spec.patch
        embedding = self.patch_embedding
        return F.linear(
            rearrange(x, form, p=patch, q=patch), embedding.weight.flatten(1), embedding.bias
        )

    def sinusoid(self, timesteps: Tensor) -> Tensor:
        """Return the cosines, then the sines, of t * 10000^(-i / half), computed in float64."""
        half = self.spec.freq_dim // 2
        steps = torch.arange(half, dtype=torch.float64, device=timesteps.device)
        angles = timesteps.double()[..., None] * torch.pow(10000.0, -steps / half)
        return torch.cat([angles.cos(), angles.sin()], -1).float()
