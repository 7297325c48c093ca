"""Causal convolutions over time and space, chunk by chunk.

Activations are `[batch, time, height, width, channels]`, contiguous: for every convolution that
is a batch of channels-last pictures without a copy. A causal convolution over time and space is
one 2-D convolution over its temporal taps side by side in the channels: with the one to four
frames a streaming step has, narrow networks gain 5x to 20x on a CPU over `conv3d`, and at a
width of 96 the two are even. Weights are kept in that folded form (`fold_taps`).

Causal layers keep the end of their input in a `FeatureCache`, so that a clip given in chunks comes
out as if it were given at once. Without a memory they start from zeros and remember nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.models.ops import onednn
from glassworld.models.ops.packed_weights import PackedWeights

TAPS = 3  # the temporal kernel of every causal convolution
LARGE = 2**19  # numbers of an output that is added up tap by tap
LANES = 16  # output channels that a convolution takes as much time for as for one of them

CONV3D_MIN_CHANNELS = 96
"""From this many output channels on, `conv3d` is as fast or faster on a GPU (docs/performance.md),
and it needs no copy of three times its input."""
CONV3D_MIN_CHANNELS_FUSED = 128
"""The same where a fused epilogue stacks the taps. On an H200 `conv3d` was faster except at 96
channels (1.8 ms instead of 0.6), and on par at 384 channels and 88x160."""


@dataclass
class FeatureCache:
    """What the causal layers of one encoder or decoder remember between chunks.

    `frames[name]` is the end of a layer's last input, `[b, 1 or 2, h, w, c]`; a name that is
    absent stands for zeros. `first` is true until the first chunk has passed: it alone holds a
    frame that stands for itself in time instead of being one of four.
    """

    first: bool = True
    frames: dict[str, Tensor] = field(default_factory=dict)

    def copy(self) -> FeatureCache:
        return FeatureCache(self.first, {name: kept.clone() for name, kept in self.frames.items()})

    @staticmethod
    def cat(memories: Sequence[FeatureCache]) -> FeatureCache:
        """Of several sessions, along the batch's axis."""
        kept = {
            name: torch.cat([each.frames[name] for each in memories]) for name in memories[0].frames
        }
        return FeatureCache(memories[0].first, kept)

    def split(self, count: int) -> list[FeatureCache]:
        """Of each of `count` sessions, in the same storage."""
        parts = {name: kept.chunk(count) for name, kept in self.frames.items()}
        return [
            FeatureCache(self.first, {name: rows[index] for name, rows in parts.items()})
            for index in range(count)
        ]

    def keep(self, name: str, end: Tensor) -> None:
        """Remember `end`, in the storage of the last time where there is one."""
        if name in self.frames:
            self.frames[name].copy_(end)
        else:
            self.frames[name] = end.clone(memory_format=torch.contiguous_format)


def fold_taps(weight: Tensor) -> Tensor:
    """A conv3d weight `[out, in, t, h, w]` as the conv2d weight `[out, t * in, h, w]`."""
    out, channels, taps, height, width = weight.shape
    folded = weight.transpose(1, 2).reshape(out, taps * channels, height, width)
    return folded.contiguous(memory_format=torch.channels_last)


def unfold_taps(weight: Tensor, taps: int) -> Tensor:
    """The inverse of `fold_taps`."""
    out, channels, height, width = weight.shape
    return weight.reshape(out, taps, channels // taps, height, width).transpose(1, 2).contiguous()


def conv3d_weight(weight: Tensor) -> Tensor:
    """A folded weight as a conv3d's, its channels last."""
    return unfold_taps(weight, TAPS).contiguous(memory_format=torch.channels_last_3d)


def conv2d_frames(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int = 0, stride: int = 1
) -> Tensor:
    """Apply a 2-D convolution to every frame of `[b, t, h, w, c]`.

    The stride of a weight that was laid out is 1.
    """
    pictures = as_images(x)
    if weight.is_mkldnn:
        pictures = onednn.conv2d(pictures, weight, bias, padding)
    else:
        pictures = F.conv2d(pictures, weight, bias, stride, padding)
    # Of 16 pictures and more torch's convolutions without oneDNN answer with channels first.
    return pictures.permute(0, 2, 3, 1).contiguous().unflatten(0, x.shape[:2])


def as_images(x: Tensor) -> Tensor:
    """Frames `[b, t, h, w, c]` as a batch of channels-last pictures, in the same storage."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def pack_conv_weight(
    weight: Tensor, x: Tensor, padding: int, packed: PackedWeights, key: object = None
) -> Tensor:
    """Return the weight packed for frames like `x`, or as it is where oneDNN does not take them.

    `key` tells the weights apart that a layer convolves with.
    """
    if not uses_onednn(x, weight):
        return weight
    pictures = as_images(x)
    return packed.get(
        weight,
        lambda weight: onednn.pack_conv2d_weight(weight, pictures, padding),
        ("laid out", key),
    )


def pack_tap(weight: Tensor, tap: int, pictures: Tensor, padding: int) -> Tensor:
    """One tap of a folded weight, for the pictures that it sees."""
    one = weight.chunk(TAPS, 1)[tap].contiguous(memory_format=torch.channels_last)
    return onednn.pack_conv2d_weight(one, pictures, padding)


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether to convolve frames `[b, t, h, w, c]` by oneDNN itself."""
    return onednn.supports(x, weight, x.shape[:-1].numel() * weight.numel())


def conv1x1(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Apply a 1x1 convolution: in this layout a product, which is quicker."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def name_causal_layers(network: nn.Module) -> None:
    """Give each causal layer its path in `network` as the name it remembers under."""
    for path, layer in network.named_modules():
        if isinstance(layer, CausalConv):
            layer.name = path


def apply_conv_policy(network: nn.Module, fused: bool = False) -> None:
    """Decide which 3x3 causal convolutions of `network` run as `conv3d`, by device and width.

    On a CPU all of them run over folded taps. On a GPU wide ones run as `conv3d`; `fused` is for
    a decoder whose convolutions have a fused epilogue. `choose_convolutions` measures instead.
    """
    minimum = CONV3D_MIN_CHANNELS_FUSED if fused else CONV3D_MIN_CHANNELS
    for layer in network.modules():
        if isinstance(layer, CausalConv) and layer.kernel_size == (3, 3):
            layer.uses_conv3d = layer.weight.is_cuda and layer.out_channels >= minimum


def banded_weight(weight: Tensor, frames: int) -> Tensor:
    """A folded weight as one that makes `frames` frames at once, zero off the band.

    `[out, TAPS * in, h, w]` to `[frames * out, (frames + TAPS - 1) * in, h, w]`.
    """
    taps = weight.unflatten(1, (TAPS, -1))
    outputs, _, inputs, height, width = taps.shape
    banded = weight.new_zeros(frames, outputs, frames + TAPS - 1, inputs, height, width)
    for frame in range(frames):
        banded[frame, :, frame : frame + TAPS] = taps
    banded = banded.flatten(2, 3).flatten(0, 1)
    return banded.contiguous(memory_format=torch.channels_last)


class CausalConv(nn.Conv2d):
    """A causal convolution over three frames and a `kernel x kernel` neighbourhood."""

    name = ""
    uses_conv3d = False  # by `conv3d`: quicker for many channels on some devices
    epilogue_fused = False  # whether a kernel lays out what it convolves

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(TAPS * inputs, outputs, kernel, padding=kernel // 2)
        self.packed = PackedWeights()

    def forward(self, x: Tensor, memory: FeatureCache | None) -> Tensor:  # type: ignore[override]
        frames = x.shape[1]
        past = None if memory is None else memory.frames.get(self.name)
        if past is None and memory is None and frames == 1:
            return self.convolve_single_frame(x)
        if past is None:
            past = x.new_zeros(x.shape[0], TAPS - 1, *x.shape[2:])
        x = torch.cat([past, x], 1)
        if memory is not None:
            memory.keep(self.name, x[:, -(TAPS - 1) :])
        return self.convolve(x, frames)

    def convolve(self, x: Tensor, frames: int) -> Tensor:
        """The last `frames` frames of the output for the input `[b, TAPS - 1 + frames, ...]`."""
        if not self.uses_conv3d and self.adds_taps(x, frames):
            return self.convolve_tap_by_tap(x, frames)
        return self.convolve_stacked(self.stack_taps(x, frames), frames, self.bias)

    def adds_taps(self, x: Tensor, frames: int) -> bool:
        """Whether to add up the output tap by tap: where it is large, on a processor."""
        large = len(x) * frames * x.shape[2:4].numel() * self.out_channels >= LARGE
        return self.at_once(frames) == 1 and large and uses_onednn(x, self.weight)

    def stack_taps(self, x: Tensor, frames: int) -> Tensor:
        """What `convolve_stacked` takes: `x` itself for `conv3d`, else its taps side by side."""
        if self.uses_conv3d:
            return x
        count = self.at_once(frames)
        seen = range(count + TAPS - 1)
        return torch.cat([x[:, tap : tap + frames : count] for tap in seen], -1)

    def convolve_stacked(self, laid: Tensor, frames: int, bias: Tensor | None) -> Tensor:
        """The output's `frames` frames; `bias` is the layer's own, or None to do without."""
        if self.uses_conv3d:
            return self.convolve_as_conv3d(laid, bias)
        count = self.at_once(frames)
        side = self.kernel_size[0] // 2
        if count == 1:
            weight = pack_conv_weight(self.weight, laid, side, self.packed)
            return conv2d_frames(laid, weight, bias, side)
        weight = self.packed.get(self.weight, lambda weight: banded_weight(weight, count), count)
        weight = pack_conv_weight(weight, laid, side, self.packed, count)
        if bias is not None:
            bias = self.packed.get(bias, lambda bias: bias.repeat(count), ("bias", count))
        y = conv2d_frames(laid, weight, bias, side)
        return y.unflatten(-1, (count, -1)).movedim(-2, 2).flatten(1, 2)

    def convolve_tap_by_tap(self, x: Tensor, frames: int) -> Tensor:
        """What each tap sees, added up in place: taps side by side would leave the caches."""
        side, mixed, bias = self.kernel_size[0] // 2, None, self.bias
        for tap in range(TAPS):
            pictures = as_images(x[:, tap : tap + frames])
            make = partial(pack_tap, tap=tap, pictures=pictures, padding=side)
            weight = self.packed.get(self.weight, make, ("tap", tap))
            mixed, bias = onednn.conv2d(pictures, weight, bias, side, mixed), None
        assert mixed is not None
        return mixed.permute(0, 2, 3, 1).unflatten(0, (len(x), frames))

    def convolve_as_conv3d(self, x: Tensor, bias: Tensor | None) -> Tensor:
        weight = self.packed.get(self.weight, conv3d_weight, "volume")
        side = self.kernel_size[0] // 2
        mixed = F.conv3d(x.permute(0, 4, 1, 2, 3), weight, bias, padding=(0, side, side))
        return mixed.permute(0, 2, 3, 4, 1)

    def at_once(self, frames: int) -> int:
        """How many frames share a convolution: few channels would leave most lanes idle."""
        count = 1
        while frames % (2 * count) == 0 and 2 * count * self.out_channels <= LANES:
            count *= 2
        return count

    def convolve_single_frame(self, x: Tensor) -> Tensor:
        """A lone picture: all before it is zero, so a third of the work is enough."""
        return conv2d_frames(x, self.weight[:, -x.shape[-1] :], self.bias, self.kernel_size[0] // 2)
