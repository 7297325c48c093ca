"""CLIP's ViT image encoder, which turns the start image into the transformer's visual context.

Its tensor names are those of the released checkpoint, whose last layer but one gives the output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from glassworld.models.ops.attention import attention, join_heads
from glassworld.models.ops.init import normal_parameter
from glassworld.specs import VisionSpec

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class VisionAttention(nn.Module):
    """Self-attention among the patches of an image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the tokens `[b, n, width]`."""
        q, k, v = rearrange(
            self.to_qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        return self.proj(join_heads(attention(q, k, v)))


class VisionLayer(nn.Module):
    """A pre-norm ViT layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, spec: VisionSpec) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(spec.width)
        self.attn = VisionAttention(spec.width, spec.heads)
        self.norm2 = nn.LayerNorm(spec.width)
        self.mlp = nn.Sequential(
            nn.Linear(spec.width, spec.mlp_width),
            nn.GELU(),
            nn.Linear(spec.mlp_width, spec.width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to tokens `[b, n, width]`."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTower(nn.Module):
    """Image to one class token and one token per patch."""

    def __init__(self, spec: VisionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embedding = nn.Conv2d(3, spec.width, spec.patch, stride=spec.patch, bias=False)
        self.cls_embedding = normal_parameter(1, 1, spec.width)
        self.pos_embedding = normal_parameter(1, spec.tokens, spec.width)
        self.pre_norm = nn.LayerNorm(spec.width)
        self.transformer = nn.ModuleList(VisionLayer(spec) for _ in range(spec.layers))

    def forward(self, image: Tensor) -> Tensor:
        """Encode `image` `[b, 3, h, w]` in [-1, 1] as `[b, tokens, width]`."""
        size = (self.spec.image_size, self.spec.image_size)
        # Bicubic without antialiasing, in float32: what the checkpoints were trained on.
        x = F.interpolate(image.float(), size, mode="bicubic", align_corners=False) * 0.5 + 0.5
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        x = ((x - mean) / std).to(self.patch_embedding.weight.dtype)
        x = self.patch_embedding(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_embedding.expand(len(x), -1, -1), x], 1)
        x = self.pre_norm(x + self.pos_embedding)
        for layer in self.transformer:
            x = layer(x)
        return x
