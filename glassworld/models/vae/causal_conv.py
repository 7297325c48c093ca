"""Causal convolutions over time and space, chunk by chunk.

Activations are `[batch, time, height, width, channels]`, contiguous: every convolution sees a
batch of channels-last images without a copy. A causal convolution over time and space is one 2-D
convolution with its temporal taps folded into the channels: with the one to four frames of a
streaming step, narrow networks gain 5x to 20x on a CPU over `conv3d`, and at a width of 96 the two
are even. Weights are stored in that folded form (`fold_taps`).

Causal layers keep the end of their input in a `FeatureCache`, so that a clip given in chunks comes
out as if it were given at once. Without a cache they start from zeros and keep nothing.
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

TAPS = 3  # the temporal kernel size of every causal convolution
LARGE = 2**19  # elements of an output that is accumulated tap by tap
LANES = 16  # a convolution to this many output channels takes as long as one to a single channel

CONV3D_MIN_CHANNELS = 96
"""From this many output channels on, `conv3d` is as fast or faster on a GPU, and it needs no copy
of three times its input (docs/lab/performance.md)."""
CONV3D_MIN_CHANNELS_FUSED = 128
"""The same where a fused epilogue stacks the taps. On an H200 `conv3d` was faster except at 96
channels (1.8 ms instead of 0.6), and on par at 384 channels and 88x160."""
CONV3D_MAX_CHANNELS_TRAINED = 16
"""Up to this many output channels a step of training is faster by `conv3d` on a CPU that ends at
AVX2, as its gradients need no stacked taps (docs/lab/training.md)."""


@dataclass
class FeatureCache:
    """The features that the causal layers of one encoder or decoder carry between chunks.

    `frames[name]` is the end of a layer's last input, `[b, 1 or 2, h, w, c]`; an absent name
    stands for zeros. `first` is true until the first chunk has passed: only that chunk begins with
    a frame that is a latent frame by itself instead of one of four.
    """

    first: bool = True
    frames: dict[str, Tensor] = field(default_factory=dict)

    def copy(self) -> FeatureCache:
        """Return a copy in storage of its own."""
        return FeatureCache(self.first, {name: end.clone() for name, end in self.frames.items()})

    def stage(self) -> tuple[bool, frozenset[str]]:
        """Return a key that is equal for caches which can be concatenated."""
        return self.first, frozenset(self.frames)

    @staticmethod
    def cat(caches: Sequence[FeatureCache]) -> FeatureCache:
        """Concatenate the caches of sessions at the same stage along the batch axis."""
        frames = {
            name: torch.cat([cache.frames[name] for cache in caches]) for name in caches[0].frames
        }
        return FeatureCache(caches[0].first, frames)

    def split(self, count: int) -> list[FeatureCache]:
        """Return the cache of each of `count` sessions, in the same storage."""
        parts = {name: end.chunk(count) for name, end in self.frames.items()}
        return [
            FeatureCache(self.first, {name: ends[index] for name, ends in parts.items()})
            for index in range(count)
        ]

    def keep(self, name: str, end: Tensor) -> None:
        """Store `end`, in place if the layer has stored something before."""
        if name in self.frames:
            self.frames[name].copy_(end)
        else:
            self.frames[name] = end.clone(memory_format=torch.contiguous_format)


def fold_taps(weight: Tensor) -> Tensor:
    """Return a conv3d weight `[out, in, t, h, w]` as a conv2d weight `[out, t * in, h, w]`."""
    out, channels, taps, height, width = weight.shape
    folded = weight.transpose(1, 2).reshape(out, taps * channels, height, width)
    return folded.contiguous(memory_format=torch.channels_last)


def unfold_taps(weight: Tensor, taps: int) -> Tensor:
    """Invert `fold_taps`."""
    out, channels, height, width = weight.shape
    return weight.reshape(out, taps, channels // taps, height, width).transpose(1, 2).contiguous()


def conv3d_weight(weight: Tensor) -> Tensor:
    """Return a folded weight as the weight of a conv3d, channels last."""
    return unfold_taps(weight, TAPS).contiguous(memory_format=torch.channels_last_3d)


def banded_weight(weight: Tensor, frames: int) -> Tensor:
    """Return a folded weight as one that computes `frames` frames at once, zero off the band.

    `[out, TAPS * in, h, w]` to `[frames * out, (frames + TAPS - 1) * in, h, w]`.
    """
    taps = weight.unflatten(1, (TAPS, -1))
    outputs, _, inputs, height, width = taps.shape
    banded = weight.new_zeros(frames, outputs, frames + TAPS - 1, inputs, height, width)
    for frame in range(frames):
        banded[frame, :, frame : frame + TAPS] = taps
    banded = banded.flatten(2, 3).flatten(0, 1)
    return banded.contiguous(memory_format=torch.channels_last)


def conv2d_frames(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int = 0, stride: int = 1
) -> Tensor:
    """Apply a 2-D convolution to every frame of `[b, t, h, w, c]`.

    The stride of a packed weight is 1.
    """
    images = as_images(x)
    if weight.is_mkldnn:
        images = onednn.conv2d(images, weight, bias, padding)
    else:
        images = F.conv2d(images, weight, bias, stride, padding)
    # For 16 images and more, torch's convolutions without oneDNN answer with channels first.
    return images.permute(0, 2, 3, 1).contiguous().unflatten(0, x.shape[:2])


def conv1x1(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Apply a 1x1 convolution to `[..., c]`: with channels last a matmul, which is faster."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def as_images(x: Tensor) -> Tensor:
    """Return frames `[b, t, h, w, c]` as channels-last images `[b * t, c, h, w]`, a view."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def as_clip(x: Tensor) -> Tensor:
    """Return frames `[b, t, h, w, c]` as a channels-last clip `[b, c, t, h, w]`, a view."""
    return x.permute(0, 4, 1, 2, 3)


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    """Return whether frames `[b, t, h, w, c]` are convolved by calling oneDNN directly."""
    return onednn.supports(x, weight, x.shape[:-1].numel() * weight.numel())


def pack_conv_weight(
    weight: Tensor, x: Tensor, padding: int, packed: PackedWeights, key: object = None
) -> Tensor:
    """Return the weight packed for frames like `x`, or as it is where oneDNN does not take them.

    `packed` caches the result; `key` tells the weights of one layer apart.
    """
    if not uses_onednn(x, weight):
        return weight
    images = as_images(x)
    return packed.get(
        weight,
        lambda weight: onednn.pack_conv2d_weight(weight, images, padding),
        ("packed", key),
    )


def pack_tap(weight: Tensor, tap: int, images: Tensor, padding: int) -> Tensor:
    """Return one tap of a folded weight, packed for the images that it sees."""
    one = weight.chunk(TAPS, 1)[tap].contiguous(memory_format=torch.channels_last)
    return onednn.pack_conv2d_weight(one, images, padding)


class CausalConv(nn.Conv2d):
    """A causal convolution over three frames and a `kernel x kernel` neighborhood."""

    name = ""
    uses_conv3d = False  # see `apply_conv_policy`
    epilogue_fused = False  # set where a kernel stacks the taps of its input

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(TAPS * inputs, outputs, kernel, padding=kernel // 2)
        self.packed = PackedWeights()

    def forward(self, x: Tensor, cache: FeatureCache | None) -> Tensor:  # type: ignore[override]
        """Convolve the next frames `[b, t, h, w, c]` after those in the cache."""
        frames = x.shape[1]
        past = None if cache is None else cache.frames.get(self.name)
        if past is None and cache is None and frames == 1:
            return self.convolve_single_frame(x)
        if past is None:
            past = x.new_zeros(x.shape[0], TAPS - 1, *x.shape[2:])
        x = torch.cat([past, x], 1)
        if cache is not None:
            cache.keep(self.name, x[:, -(TAPS - 1) :])
        return self.convolve(x, frames)

    def convolve(self, x: Tensor, frames: int) -> Tensor:
        """Return the `frames` output frames for the input `[b, TAPS - 1 + frames, h, w, c]`."""
        one_by_one = not self.uses_conv3d and self.frames_per_conv(frames) == 1
        if self.trains_by_conv3d(x):
            return self.convolve_as_conv3d(x, self.bias)
        multiplications = len(x) * frames * x.shape[2:4].numel() * self.weight.numel()
        if one_by_one and onednn.supports(x, self.weight, multiplications):
            if onednn.prefers_conv3d() and self.weight.numel() <= onednn.MAX_PACKED_NUMEL:
                return self.convolve_as_packed_conv3d(x)
            if self.accumulates_taps(x, frames):
                return self.convolve_tap_by_tap(x, frames)
        return self.convolve_stacked(self.stack_taps(x, frames), frames, self.bias)

    def trains_by_conv3d(self, x: Tensor) -> bool:
        """Return whether a step of training uses `conv3d`, whatever the policy for a GPU says."""
        trains = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        small = self.kernel_size == (3, 3) and self.out_channels <= CONV3D_MAX_CHANNELS_TRAINED
        return trains and small and x.device.type == "cpu" and onednn.prefers_conv3d()

    def accumulates_taps(self, x: Tensor, frames: int) -> bool:
        """Return whether to accumulate the output tap by tap: where it is large."""
        return len(x) * frames * x.shape[2:4].numel() * self.out_channels >= LARGE

    def frames_per_conv(self, frames: int) -> int:
        """Return how many frames share a convolution: few channels would leave lanes idle."""
        count = 1
        while frames % (2 * count) == 0 and 2 * count * self.out_channels <= LANES:
            count *= 2
        return count

    def stack_taps(self, x: Tensor, frames: int) -> Tensor:
        """Return the input of `convolve_stacked`: the taps of each output frame as channels.

        For `conv3d` that is `x` itself.
        """
        if self.uses_conv3d:
            return x
        count = self.frames_per_conv(frames)
        return torch.cat([x[:, tap : tap + frames : count] for tap in range(count + TAPS - 1)], -1)

    def convolve_stacked(self, stacked: Tensor, frames: int, bias: Tensor | None) -> Tensor:
        """Return the `frames` output frames; `bias` is the layer's own, or None to leave it out."""
        if self.uses_conv3d:
            return self.convolve_as_conv3d(stacked, bias)
        count = self.frames_per_conv(frames)
        side = self.kernel_size[0] // 2
        if count == 1:
            weight = pack_conv_weight(self.weight, stacked, side, self.packed)
            return conv2d_frames(stacked, weight, bias, side)
        weight = self.packed.get(self.weight, lambda weight: banded_weight(weight, count), count)
        weight = pack_conv_weight(weight, stacked, side, self.packed, count)
        if bias is not None:
            bias = self.packed.get(bias, lambda bias: bias.repeat(count), ("bias", count))
        y = conv2d_frames(stacked, weight, bias, side)
        return y.unflatten(-1, (count, -1)).movedim(-2, 2).flatten(1, 2)

    def convolve_tap_by_tap(self, x: Tensor, frames: int) -> Tensor:
        """Accumulate the taps' outputs in place: stacked taps would not fit the CPU's caches."""
        side, total, bias = self.kernel_size[0] // 2, None, self.bias
        for tap in range(TAPS):
            images = as_images(x[:, tap : tap + frames])
            pack = partial(pack_tap, tap=tap, images=images, padding=side)
            weight = self.packed.get(self.weight, pack, ("tap", tap))
            total, bias = onednn.conv2d(images, weight, bias, side, total), None
        assert total is not None
        return total.permute(0, 2, 3, 1).unflatten(0, (len(x), frames))

    def convolve_as_packed_conv3d(self, x: Tensor) -> Tensor:
        """Convolve `[b, TAPS - 1 + frames, h, w, c]` by oneDNN's conv3d, without stacked taps."""
        clip, side = as_clip(x), self.kernel_size[0] // 2
        padding = [0, side, side]
        weight = self.packed.get(
            self.weight,
            lambda weight: onednn.pack_conv3d_weight(unfold_taps(weight, TAPS), clip, padding),
            "packed conv3d",
        )
        return onednn.conv3d(clip, weight, self.bias, padding).permute(0, 2, 3, 4, 1)

    def convolve_as_conv3d(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve `[b, TAPS - 1 + frames, h, w, c]` by `conv3d`."""
        weight = self.packed.get(self.weight, conv3d_weight, "conv3d")
        side = self.kernel_size[0] // 2
        y = F.conv3d(as_clip(x), weight, bias, padding=(0, side, side))
        return y.permute(0, 2, 3, 4, 1)

    def convolve_single_frame(self, x: Tensor) -> Tensor:
        """Convolve a lone image: the frames before it are zero, so the last tap is enough."""
        return conv2d_frames(x, self.weight[:, -x.shape[-1] :], self.bias, self.kernel_size[0] // 2)


def name_causal_layers(network: nn.Module) -> None:
    """Set each causal layer's name in the cache to its path in `network`."""
    for path, layer in network.named_modules():
        if isinstance(layer, CausalConv):
            layer.name = path


def apply_conv_policy(network: nn.Module, fused: bool = False) -> None:
    """Decide which 3x3 causal convolutions of `network` run as `conv3d`, by device and width.

    On a CPU each layer chooses as it runs. On a GPU wide ones run as `conv3d`; `fused` is for
    a decoder whose convolutions have a fused epilogue. `choose_convolutions` measures instead.
    """
    minimum = CONV3D_MIN_CHANNELS_FUSED if fused else CONV3D_MIN_CHANNELS
    for layer in network.modules():
        if isinstance(layer, CausalConv) and layer.kernel_size == (3, 3):
            layer.uses_conv3d = layer.weight.is_cuda and layer.out_channels >= minimum
