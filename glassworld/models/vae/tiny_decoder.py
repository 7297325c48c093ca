"""A tiny decoder of Wan 2.1 latents: preview quality for a fraction of the work.

The architecture and the weights' layout are those of the public TAEHV model `taew2_1`: 3x3
convolutions and ReLU, no norms and no attention. Time passes through memory blocks, which see
their input and the frame before it, and through 1x1 convolutions that make two frames of one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops.packed_weights import PackedWeights
from glassworld.models.vae.blocks import interleave_phases, polyphase_weight
from glassworld.models.vae.causal_conv import FeatureCache, conv2d_frames, pack_conv_weight
from glassworld.models.vae.streaming import StreamingDecoder
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag
from glassworld.specs import TIME_FACTOR

WIDTHS = (256, 128, 64, 64)  # channels of each stage and of the head
GROWTH = (1, 2, 2)  # output frames of each stage per input frame
BLOCKS = 3  # memory blocks of a stage

# Indices in the released file's sequence; the layers in between have no weights.
FIRST, STAGE, STAGE_LENGTH, HEAD = 1, 3, 6, 22
GROW, NARROW = 4, 5  # within a stage, after its blocks and the upsampling


class TinyInput(nn.Conv2d):
    """A convolution from latent channels to the first stage's width, then ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, t, h, w, inputs]` to `[b, t, h, w, outputs]`."""
        return F.relu(conv2d_frames(x, self.weight, self.bias, 1))


class MemoryBlock(nn.Module):
    """A residual block that also sees the frame before."""

    name = ""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """Apply the block to `[b, t, h, w, c]`."""
        past = cache.frames.get(self.name)
        before = torch.cat([torch.zeros_like(x[:, :1]) if past is None else past, x[:, :-1]], 1)
        cache.keep(self.name, x[:, -1:])
        y = torch.cat([x, before], -1)
        for layer in self.conv:
            y = (
                conv2d_frames(y, layer.weight, layer.bias, 1)
                if isinstance(layer, nn.Conv2d)
                else F.relu(y)
            )
        return F.relu(y + x)


class TemporalGrow(nn.Module):
    """A 1x1 convolution from one frame to `count` frames."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.conv = nn.Conv2d(width, count * width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, t, h, w, c]` to `[b, count * t, h, w, c]`."""
        x = F.linear(x, self.conv.weight.flatten(1))
        return x.unflatten(-1, (self.count, -1)).movedim(-2, 2).flatten(1, 2)


class UpsampleConv(nn.Conv2d):
    """Nearest upsampling to twice the size and a convolution to the next stage's width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)
        self.packed = PackedWeights()

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, t, h, w, inputs]` to `[b, t, 2h, 2w, outputs]`."""
        weight = self.packed.get(self.weight, polyphase_weight)
        weight = pack_conv_weight(weight, x, 1, self.packed)
        return interleave_phases(conv2d_frames(x, weight, None, 1), self.out_channels)


class TinyHead(nn.Conv2d):
    """ReLU and a convolution from the last stage's width to RGB."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, t, h, w, inputs]` to `[b, t, h, w, 3]`."""
        return conv2d_frames(F.relu(x), self.weight, self.bias, 1)


class TinyDecoder(StreamingDecoder):
    """Normalized latents to pixels, one latent frame after another.

    The released network upsamples before its 1x1 convolutions and this one after them: they see
    one pixel, so the result is the same.
    """

    def __init__(self, latent_channels: int = 16, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {str(FIRST): TinyInput(latent_channels, widths[0])}
        for stage, growth in enumerate(GROWTH):
            start, width = STAGE + stage * STAGE_LENGTH, widths[stage]
            for block in range(BLOCKS):
                layers[str(start + block)] = MemoryBlock(width)
            layers[str(start + GROW)] = TemporalGrow(width, growth)
            layers[str(start + NARROW)] = UpsampleConv(width, widths[stage + 1])
        layers[str(HEAD)] = TinyHead(widths[-1])
        self.decoder = nn.ModuleDict(layers)
        for name, layer in self.decoder.items():
            if isinstance(layer, MemoryBlock):
                layer.name = name

    def preprocess(self, latents: Tensor) -> Tensor:
        """Return latents with channels last, squashed to -3..3."""
        with tag(tags.DECODE_PRE):
            x = latents.permute(0, 2, 3, 4, 1).contiguous()
            return 3 * torch.tanh(x / 3)

    def decode_frame(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """Return pixels about 0..1; of the first latent frame's four frames only the last."""
        with tag(tags.DEC_CONV1):
            x = self.decoder[str(FIRST)](x)
        with tag(tags.DEC_UPSAMPLE):
            for name, layer in self.decoder.items():
                if isinstance(layer, MemoryBlock):
                    x = layer(x, cache)
                elif int(name) not in (FIRST, HEAD):
                    x = layer(x)
        with tag(tags.DEC_HEAD):
            pixels = self.decoder[str(HEAD)](x)
        return pixels[:, TIME_FACTOR - 1 :] if cache.first else pixels

    def to_bytes(self, pixels: Tensor) -> Tensor:
        """Return 255 * x, clipped and truncated."""
        return (255 * pixels.float().clamp(0, 1)).to(torch.uint8)
