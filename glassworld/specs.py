"""The specs of a world: frozen, validated when built, geometry derived once.

Lengths in latent frames unless a name says otherwise. Every size that the networks, the caches
and the pipeline use follows from these; none is written down twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from glassworld.errors import SpecError

SPACE_FACTOR = 8  # pixels per latent, each way
TIME_FACTOR = 4  # pixel frames per latent frame, after the first

# Per-channel statistics of the Wan 2.1 latents.
WAN_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


MAX_SIZE, MAX_COUNT = 2**20, 1024
"""Limits of widths, and of layers or frames of a window, far above any world's. Larger networks
take all memory before their weights can be counted, and the count no longer fits 64 bits."""


def require(condition: bool, message: str) -> None:
    """Raise `SpecError(message)` unless the condition holds."""
    if not condition:
        raise SpecError(message)


def require_sizes(what: str, most: int = MAX_SIZE, **sizes: int) -> None:
    """Raise `SpecError` for a size that is not between 1 and `most`."""
    for name, size in sizes.items():
        require(0 < size <= most, f"{what}: {name} {size:.12g} must be between 1 and {most}")


@dataclass(frozen=True)
class VAESpec:
    """The causal VAE. `width` is the base width; stage i is `width * multiples[i]` wide."""

    width: int = 96
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2  # per stage in the encoder; the decoder has one more
    temporal: tuple[bool, ...] = (False, True, True)  # which downsamplings halve time too
    latent_channels: int = 16
    mean: tuple[float, ...] = WAN_MEAN
    std: tuple[float, ...] = WAN_STD

    def __post_init__(self) -> None:
        require_sizes("VAE", width=self.width)
        require_sizes("VAE", MAX_COUNT, residual_blocks=self.residual_blocks)
        require(
            len(self.mean) == len(self.std) == self.latent_channels,
            f"VAE: need mean and std of {self.latent_channels} latent channels",
        )

    @cached_property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of each stage, from full resolution down."""
        return tuple(self.width * multiple for multiple in self.multiples)

    @cached_property
    def encoder_receptive_field(self) -> int:
        """The number of latent frames back whose pixels a latent depends on (28 as released).

        Each causal convolution sees two frames back at its own frame rate; a temporal
        downsampling sees two frames of the rate it halves.
        """
        pixel_frames, rate = 2, 1  # the input convolution; pixel frames per frame at this depth
        for index in range(len(self.multiples)):
            pixel_frames += rate * 2 * 2 * self.residual_blocks
            if index < len(self.temporal) and self.temporal[index]:
                pixel_frames += 2 * rate
                rate *= 2
        pixel_frames += rate * 2 * (4 + 1)  # two middle blocks and the head
        return -(-pixel_frames // TIME_FACTOR)


@dataclass(frozen=True)
class VisionSpec:
    """The image tower, a CLIP vision transformer of which all layers but the last are run."""

    width: int = 1280
    layers: int = 31  # those that are run
    heads: int = 16
    patch: int = 14
    image_size: int = 224
    mlp_width: int = 5120

    def __post_init__(self) -> None:
        require_sizes(
            "image tower",
            width=self.width,
            heads=self.heads,
            patch=self.patch,
            image_size=self.image_size,
            mlp_width=self.mlp_width,
        )
        require_sizes("image tower", MAX_COUNT, layers=self.layers)
        require(
            self.width % self.heads == 0,
            f"image tower: width {self.width} is not divisible by {self.heads} heads",
        )
        require(
            self.image_size % self.patch == 0,
            f"image tower: {self.image_size} pixels are not divisible by patches of {self.patch}",
        )

    @cached_property
    def tokens(self) -> int:
        """The class token and one per patch."""
        return 1 + (self.image_size // self.patch) ** 2


@dataclass(frozen=True)
class ActionModuleSpec:
    """The mouse and keyboard attention of the transformer's `layers`."""

    layers: tuple[int, ...]
    keyboard_dim: int
    mouse_dim: int = 2  # 0: no mouse
    embed_width: int = 128  # of one embedded keyboard row
    keyboard_width: int = 1024
    mouse_width: int = 1024
    heads: int = 16
    rotary_dims: int = 8  # how many of a head's dims turn with the frame index
    rope_theta: float = 256.0
    window: int = 3  # latent frames of actions that a latent frame sees

    def __post_init__(self) -> None:
        require_sizes(
            "action module",
            keyboard_dim_in=self.keyboard_dim,
            hidden_size=self.embed_width,
            keyboard_hidden_dim=self.keyboard_width,
            mouse_hidden_dim=self.mouse_width,
            heads_num=self.heads,
        )
        require_sizes("action module", MAX_COUNT, windows_size=self.window)
        require(self.mouse_dim in (0, 2), "action module: mouse_dim_in must be 2, or no mouse")
        require(
            0 < self.rope_theta < math.inf,
            f"action module: rope_theta {self.rope_theta} must be positive and finite",
        )
        width = self.keyboard_width
        require(
            width % (2 * self.heads) == 0,
            f"action module: keyboard_hidden_dim {width} does not split into {self.heads} heads "
            "of even size",
        )
        require(
            self.mouse_width == width or not self.mouse_dim,
            f"action module: mouse_hidden_dim {self.mouse_width} must be the keyboard's, {width}",
        )
        require(
            0 <= self.rotary_dims <= width // self.heads and self.rotary_dims % 2 == 0,
            f"action module: rope_dim_list begins with {self.rotary_dims}, which must be even and "
            f"at most the {width // self.heads} of a head",
        )

    @cached_property
    def rows(self) -> int:
        """Pixel-frame actions that a latent frame sees."""
        return self.window * TIME_FACTOR


@dataclass(frozen=True)
class DiTSpec:
    """The causal diffusion transformer."""

    action: ActionModuleSpec
    dim: int = 1536
    ffn_dim: int = 8960
    num_layers: int = 30
    num_heads: int = 12
    freq_dim: int = 256
    in_dim: int = 36
    out_dim: int = 16
    context_dim: int = 1280
    eps: float = 1e-6
    patch: int = 2  # latents per token, each way in space
    window: int = 6  # latent frames that attention sees, the current block and sinks included
    sink: int = 0  # first latent frames that self-attention never forgets

    def __post_init__(self) -> None:
        require_sizes(
            "transformer",
            dim=self.dim,
            ffn_dim=self.ffn_dim,
            num_heads=self.num_heads,
            freq_dim=self.freq_dim,
            out_dim=self.out_dim,
        )
        require_sizes(
            "transformer", MAX_COUNT, num_layers=self.num_layers, local_attn_size=self.window
        )
        require(0 < self.eps < 1, f"transformer: eps {self.eps} must be between 0 and 1")
        require(
            self.dim % (2 * self.num_heads) == 0,
            f"transformer: dim {self.dim} does not split into {self.num_heads} heads of even size",
        )
        require(self.freq_dim % 2 == 0, f"transformer: freq_dim {self.freq_dim} must be even")
        require(
            all(0 <= layer < self.num_layers for layer in self.action.layers),
            f"transformer: action layers {self.action.layers} of {self.num_layers} layers",
        )
        require(0 <= self.sink < self.window, "transformer: sink_size must be below the window")

    @cached_property
    def head_dim(self) -> int:
        """The width of an attention head."""
        return self.dim // self.num_heads


@dataclass(frozen=True)
class WorldSpec:
    """A world: its networks, the mode of its actions, and how its blocks are sampled."""

    mode: str
    dit: DiTSpec
    vae: VAESpec
    vision: VisionSpec
    height: int = 352  # pixels
    width: int = 640
    frames_per_block: int = 3
    denoising_steps: tuple[int, ...] = (1000, 666, 333)
    timestep_shift: float = 5.0
    warp_steps: bool = True
    eta: float = 1.0  # DDIM's: the share of new noise after each step, 0..1; "fresh_noise" in YAML
    context_noise: float = 0.0  # the timestep of the pass that fills the caches
    seed: int = 0
    frame_rate: int = 12  # content frames per second

    def __post_init__(self) -> None:
        grid = SPACE_FACTOR * self.dit.patch
        require(
            self.height > 0
            and self.width > 0
            and self.height % grid == 0
            and self.width % grid == 0,
            f"frame size {self.height}x{self.width}: both must be positive multiples of {grid}",
        )
        require(self.frames_per_block > 0, "num_frame_per_block must be positive")
        require(self.frame_rate > 0, "frame_rate must be positive")
        require(0 < self.timestep_shift < math.inf, "timestep_shift must be positive and finite")
        require(
            self.frames_per_block <= self.dit.window - self.dit.sink,
            f"num_frame_per_block {self.frames_per_block} does not fit the attention window of "
            f"{self.dit.window} latent frames with {self.dit.sink} sinks",
        )
        require(
            bool(self.denoising_steps) and all(0 < t <= 1000 for t in self.denoising_steps),
            "denoising_step_list must name steps between 1 and 1000",
        )
        require(
            list(self.denoising_steps) == sorted(set(self.denoising_steps), reverse=True),
            "denoising_step_list must fall from step to step",
        )
        require(0 <= self.eta <= 1, "fresh_noise must be between 0 and 1")
        require(0 <= self.context_noise <= 1000, "context_noise must be between 0 and 1000")
        require(
            self.dit.in_dim == 2 * self.vae.latent_channels + TIME_FACTOR,
            f"in_dim {self.dit.in_dim} is not twice the latent channels plus a mask of "
            f"{TIME_FACTOR}",
        )
        require(
            self.dit.out_dim == self.vae.latent_channels,
            f"out_dim {self.dit.out_dim} is not the {self.vae.latent_channels} latent channels",
        )

    @cached_property
    def latent_size(self) -> tuple[int, int]:
        """Latent rows and columns."""
        return self.height // SPACE_FACTOR, self.width // SPACE_FACTOR

    @cached_property
    def token_grid(self) -> tuple[int, int]:
        """Token rows and columns of a latent frame."""
        rows, columns = self.latent_size
        return rows // self.dit.patch, columns // self.dit.patch

    @cached_property
    def tokens_per_frame(self) -> int:
        """Tokens of a latent frame."""
        rows, columns = self.token_grid
        return rows * columns

    def pixel_frames(self, latent_frames: int) -> int:
        """Return how many pixel frames the first `latent_frames` latent frames decode to."""
        return 1 + TIME_FACTOR * (latent_frames - 1) if latent_frames > 0 else 0
