"""How much a run has to compute and to move, counted from its configuration.

Only what costs is counted: matrix products, convolutions and attention. Each reads its weights
and its inputs once and writes its outputs once; a multiply-add is two FLOPs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from glassworld.profiling import registry as tags

Config = dict[str, Any]
"""The configuration a run of the engine leaves in its trace."""


@dataclass(frozen=True)
class Work:
    """FLOPs of matrix products and of convolutions, and the numbers moved at the least."""

    products: float = 0.0
    convolutions: float = 0.0
    numbers: float = 0.0

    @property
    def flops(self) -> float:
        """All FLOPs."""
        return self.products + self.convolutions

    def __add__(self, other: Work) -> Work:
        return Work(
            self.products + other.products,
            self.convolutions + other.convolutions,
            self.numbers + other.numbers,
        )

    def __mul__(self, times: float) -> Work:
        return Work(self.products * times, self.convolutions * times, self.numbers * times)


NOTHING = Work()


def total(works: Iterable[Work]) -> Work:
    """Return the sum of works."""
    return sum(works, NOTHING)


def _linear(rows: float, inner: float, columns: float) -> Work:
    moved = inner * columns + rows * (inner + columns)
    return Work(products=2.0 * rows * inner * columns, numbers=moved)


def _attention(queries: float, keys: float, width: float, groups: float = 1) -> Work:
    """Return the work of queries by keys and weights by values; each group has its own keys."""
    moved = 2 * queries * width + 2 * groups * keys * width
    return Work(products=4.0 * queries * keys * width, numbers=moved)


def _convolution(taps: int, width_in: float, width: float, points: float) -> Work:
    moved = taps * width_in * width + points * (width_in + width)
    return Work(convolutions=2.0 * taps * points * width_in * width, numbers=moved)


def tokens_per_frame(config: Config) -> int:
    """Tokens of a latent frame."""
    _, height, width = config["latent_shape"]
    _, down, across = config["model"]["patch"]
    return int(height // down * (width // across))


def bytes_per_number(config: Config) -> int:
    """Return the bytes of a weight or an activation at the run's precision."""
    return 4 if config.get("dtype") == "float32" else 2


@dataclass(frozen=True)
class TagInstance:
    """What the work of one instance of a tag depends on.

    `frames_seen` are the latent frames that attention sees; `update` marks a pass for the caches
    only, which needs no head and ends at the last layer's keys; `first` marks the clip's first
    latent frame, which stands for one pixel frame, later ones for four.
    """

    config: Config
    frames_seen: int = 0
    update: bool = False
    first: bool = False

    @property
    def model(self) -> dict[str, Any]:
        """The transformer's part of the configuration."""
        model: dict[str, Any] = self.config["model"]
        return model

    @property
    def tokens(self) -> int:
        """Tokens of a block."""
        return int(self.config["frames_per_block"]) * tokens_per_frame(self.config)

    @property
    def ends_at_keys(self) -> bool:
        """Whether the last layer only computes its keys and values."""
        return self.update and self.model["num_layers"] - 1 not in self.model["action_layers"]

    @property
    def whole_layers(self) -> int:
        """Layers that run to their end."""
        return int(self.model["num_layers"]) - self.ends_at_keys


CostFunction = Callable[[TagInstance], Work]

COSTS: dict[str, CostFunction] = {}
"""The functions that a tag's `cost` in the registry may name."""


def _cost(function: CostFunction) -> CostFunction:
    COSTS[function.__name__] = function
    return function


def tag_work(pattern: str, instance: TagInstance) -> Work:
    """Return the work of one instance of a tag of the registry; none where it has no cost."""
    cost = tags.REGISTRY[pattern].cost
    return COSTS[cost](instance) if cost else NOTHING


def transformer_pass(config: Config, frames_seen: int, update: bool = False) -> dict[str, Work]:
    """Return the work of one pass over a block, by tag, over all layers."""
    instance = TagInstance(config, frames_seen, update)
    return {tag: tag_work(tag, instance) for tag in tags.leaf_tags(tags.DIFFUSION_FORWARD)}


def decode_frame(config: Config, first: bool) -> dict[str, Work]:
    """Return the work of decoding one latent frame, by tag."""
    instance = TagInstance(config, first=first)
    return {tag: tag_work(tag, instance) for tag in tags.leaf_tags(tags.VAE_DECODE)}


def check_config(config: Config) -> None:
    """Count everything once; raise what a damaged configuration makes it raise."""
    for first in (True, False):
        instance = TagInstance(config, config["window"], update=True, first=first)
        for cost in COSTS.values():
            cost(instance)


@_cost
def patch_embedding(instance: TagInstance) -> Work:
    """Return the work of the product that makes tokens of patches."""
    model = instance.model
    return _linear(instance.tokens, _patch_area(model) * model["in_dim"], model["dim"])


@_cost
def time_embedding(instance: TagInstance) -> Work:
    """Return the work of the MLP and the projection that make modulation of timesteps."""
    frames, dim = instance.config["frames_per_block"], instance.model["dim"]
    return _linear(frames, instance.model["freq_dim"], dim) + _linear(frames, dim, 7 * dim)


@_cost
def self_attention(instance: TagInstance) -> Work:
    """Return the work of four projections and attention to the frames seen, in every layer."""
    tokens, dim = instance.tokens, instance.model["dim"]
    seen = tokens_per_frame(instance.config) * instance.frames_seen
    layer = _linear(tokens, dim, dim) * 4 + _attention(tokens, seen, dim)
    keys = _linear(tokens, dim, dim) * 2 if instance.ends_at_keys else NOTHING
    return layer * instance.whole_layers + keys


@_cost
def cross_attention(instance: TagInstance) -> Work:
    """Return the work of two projections and attention to the visual context, in every layer."""
    tokens, dim = instance.tokens, instance.model["dim"]
    layer = _linear(tokens, dim, dim) * 2
    layer += _attention(tokens, instance.model["context_tokens"], dim)
    return layer * instance.whole_layers


@_cost
def mouse_attention(instance: TagInstance) -> Work:
    """Return the work of the mouse's MLP and attention over time, in every action layer."""
    model, tokens, width = instance.model, instance.tokens, _mouse_width(instance.model)
    if not width:
        return NOTHING
    rows = model.get("action_rows", 12)
    linear = (
        (model["dim"] + 2 * rows, width),
        (width, width),
        (width, 3 * width),
        (width, model["dim"]),
    )
    groups = tokens_per_frame(instance.config)
    mixing = _attention(tokens, instance.frames_seen, width, groups=groups)
    return (total(_linear(tokens, *sizes) for sizes in linear) + mixing) * len(
        model["action_layers"]
    )


@_cost
def keyboard_attention(instance: TagInstance) -> Work:
    """Return the work of two projections and attention to the keys, in every action layer."""
    model, tokens, width = instance.model, instance.tokens, instance.model["keyboard_hidden"]
    layer = _linear(tokens, model["dim"], width) + _linear(tokens, width, model["dim"])
    return (layer + _attention(tokens, instance.frames_seen, width)) * len(model["action_layers"])


@_cost
def dit_feed_forward(instance: TagInstance) -> Work:
    """Return the work of the MLP, in every layer."""
    tokens, dim, inner = instance.tokens, instance.model["dim"], instance.model["ffn_dim"]
    return (_linear(tokens, dim, inner) + _linear(tokens, inner, dim)) * instance.whole_layers


@_cost
def dit_head(instance: TagInstance) -> Work:
    """Return the work of the product that makes patches of tokens."""
    model = instance.model
    if instance.update:
        return NOTHING
    return _linear(instance.tokens, model["dim"], _patch_area(model) * model["out_dim"])


def _patch_area(model: dict[str, Any]) -> int:
    return int(model["patch"][1] * model["patch"][2])


def _mouse_width(model: dict[str, Any]) -> int:
    """Return the width of the mouse's attention; 0 in a world without a mouse."""
    return int(model["mouse_hidden"]) if model.get("mouse_dim", 2) else 0


@_cost
def cache_initialization(instance: TagInstance) -> Work:
    """Return the work of zeroing every cache, and of the visual context's keys and values."""
    model = instance.model
    dim, acting, context = model["dim"], len(model["action_layers"]), model["context_tokens"]
    layers: int = model["num_layers"]
    per_frame = tokens_per_frame(instance.config)
    rows = layers * per_frame * dim + acting * per_frame * _mouse_width(model)
    rows += acting * model["keyboard_hidden"]
    embedding = _linear(context, model["context_dim"], model["context_dim"])
    embedding += _linear(context, model["context_dim"], dim)
    keys = _linear(context, dim, dim) * (2 * layers)
    return Work(numbers=2.0 * instance.config["window"] * rows) + embedding + keys


def _residual(width_in: int, width: int, points: int) -> Work:
    made = _convolution(27, width_in, width, points) + _convolution(27, width, width, points)
    return made + _convolution(1, width_in, width, points) if width_in != width else made


def _middle(width: int, points: int, frames: int = 1) -> Work:
    """Two residual blocks around single-head attention over a frame's positions."""
    projections = _convolution(1, width, 3 * width, points) + _convolution(1, width, width, points)
    mixing = _attention(points, points // frames, width, groups=frames)
    return _residual(width, width, points) * 2 + projections + mixing


@_cost
def decoder_conv1(instance: TagInstance) -> Work:
    """Return the work of the convolution that enters the decoder."""
    channels, height, width = instance.config["latent_shape"]
    return _convolution(27, channels, _decoder_widths(instance.config)[0], height * width)


@_cost
def decoder_middle(instance: TagInstance) -> Work:
    """Return the work of the decoder's middle blocks."""
    _, height, width = instance.config["latent_shape"]
    return _middle(_decoder_widths(instance.config)[0], height * width)


@_cost
def decoder_upsample(instance: TagInstance) -> Work:
    """Return the work of all stages that double the frame's sides, and some the frames."""
    vae, widths = instance.config["vae"], _decoder_widths(instance.config)
    temporal = list(reversed(vae["temporal"]))
    _, height, width = instance.config["latent_shape"]
    points, work, frames, entering = height * width, NOTHING, 1, widths[0]
    for stage, out in enumerate(widths):
        work += _residual(entering, out, frames * points)
        work += _residual(out, out, frames * points) * vae["residual_blocks"]
        if stage < len(temporal):
            if temporal[stage] and not instance.first:
                work += _convolution(3, out, 2 * out, frames * points)
                frames *= 2
            points *= 4
            entering = out // 2
            work += _convolution(9, out, entering, frames * points)
    return work


@_cost
def decoder_head(instance: TagInstance) -> Work:
    """Return the work of the convolution to RGB."""
    temporal = instance.config["vae"]["temporal"]
    _, height, width = instance.config["latent_shape"]
    frames = 1 if instance.first else 2 ** sum(map(bool, temporal))
    points = height * width * 4 ** len(temporal)
    return _convolution(27, _decoder_widths(instance.config)[-1], 3, frames * points)


def _decoder_widths(config: Config) -> list[int]:
    return list(reversed(config["vae"]["stage_widths"]))


def encode_frames(config: Config, first: bool) -> Work:
    """Return the work of encoding the first pixel frame, or four later ones."""
    vae = config["vae"]
    widths, temporal = vae["stage_widths"], vae["temporal"]
    channels, height, width = config["latent_shape"]
    points = height * width * 4 ** len(temporal)
    frames = 1 if first else 2 ** sum(map(bool, temporal))
    made, entering = _convolution(27, 3, widths[0], frames * points), widths[0]
    for stage, out in enumerate(widths):
        made += _residual(entering, out, frames * points)
        made += _residual(out, out, frames * points) * (vae["residual_blocks"] - 1)
        entering = out
        if stage < len(temporal):
            points //= 4
            made += _convolution(9, out, out, frames * points)
            if temporal[stage] and not first:
                frames //= 2
                made += _convolution(3, out, out, frames * points)
    made += _middle(widths[-1], frames * points, frames)
    return made + _convolution(27, widths[-1], 2 * channels, frames * points)


@_cost
def first_encode(instance: TagInstance) -> Work:
    """Return the work of encoding the first block's frames, the start image and blank ones."""
    later: int = instance.config["frames_per_block"] - 1
    one, four = (encode_frames(instance.config, first=first) for first in (True, False))
    return one + four * later


@_cost
def condition_encode(instance: TagInstance) -> Work:
    """Return the work of encoding a later block's blank frames."""
    frames: int = instance.config["frames_per_block"]
    return encode_frames(instance.config, first=False) * frames


@_cost
def clip(instance: TagInstance) -> Work:
    """Return the work of the image tower over the start image."""
    clip = instance.config["clip"]
    patches = (clip["image_size"] // clip["patch"]) ** 2
    tokens, width = 1 + patches, clip["width"]
    layers: int = clip["layers"]
    layer = _linear(tokens, width, 3 * width) + _linear(tokens, width, width)
    layer += _linear(tokens, width, clip["mlp_width"]) + _linear(tokens, clip["mlp_width"], width)
    layer += _attention(tokens, tokens, width)
    return layer * layers + _linear(patches, 3 * clip["patch"] ** 2, width)


@_cost
def pixels(instance: TagInstance) -> Work:
    """Return the work of reading and writing every pixel; none for a session without an end."""
    config = instance.config
    frames = config.get("num_latent_frames") or 0
    height, width = config["image_size"]
    pixel_bytes = max(0, 1 + 4 * (frames - 1)) * height * width * 3.0 if frames else 0.0
    return Work(numbers=2 * pixel_bytes / bytes_per_number(config))
