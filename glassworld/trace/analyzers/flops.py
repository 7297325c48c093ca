"""Count the FLOPs and the data movement of a run from its configuration.

Only matmuls, convolutions and attention count. Each reads its weights and its inputs once and
writes its outputs once; a multiply-add is two FLOPs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from glassworld.profiling import registry as tags

Config = dict[str, Any]
"""The configuration a run of the engine leaves in its trace."""


@dataclass(frozen=True)
class Cost:
    """FLOPs of matmuls and of convolutions, and the elements read and written at least."""

    matmul_flops: float = 0.0
    conv_flops: float = 0.0
    elements: float = 0.0

    @property
    def flops(self) -> float:
        """All FLOPs."""
        return self.matmul_flops + self.conv_flops

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.matmul_flops + other.matmul_flops,
            self.conv_flops + other.conv_flops,
            self.elements + other.elements,
        )

    def __mul__(self, times: float) -> Cost:
        return Cost(self.matmul_flops * times, self.conv_flops * times, self.elements * times)


NO_COST = Cost()


def total_cost(works: Iterable[Cost]) -> Cost:
    """Return the sum of costs."""
    return sum(works, NO_COST)


def _linear(rows: float, inner: float, columns: float) -> Cost:
    moved = inner * columns + rows * (inner + columns)
    return Cost(matmul_flops=2.0 * rows * inner * columns, elements=moved)


def _attention(queries: float, keys: float, width: float, groups: float = 1) -> Cost:
    """Return the cost of queries by keys and weights by values; each group has its own keys."""
    moved = 2 * queries * width + 2 * groups * keys * width
    return Cost(matmul_flops=4.0 * queries * keys * width, elements=moved)


def _convolution(taps: int, width_in: float, width: float, points: float) -> Cost:
    moved = taps * width_in * width + points * (width_in + width)
    return Cost(conv_flops=2.0 * taps * points * width_in * width, elements=moved)


def tokens_per_frame(config: Config) -> int:
    """Return the number of tokens of a latent frame."""
    _, height, width = config["latent_shape"]
    _, down, across = config["model"]["patch"]
    return int(height // down * (width // across))


def bytes_per_element(config: Config) -> int:
    """Return the bytes of a weight or an activation at the run's precision."""
    return 4 if config.get("dtype") == "float32" else 2


@dataclass(frozen=True)
class CostInputs:
    """The inputs that the cost of one instance of a tag depends on.

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
        """True if the last layer only computes its keys and values."""
        return self.update and self.model["num_layers"] - 1 not in self.model["action_layers"]

    @property
    def whole_layers(self) -> int:
        """Layers that run to their end."""
        return int(self.model["num_layers"]) - self.ends_at_keys


CostFunction = Callable[[CostInputs], Cost]

COSTS: dict[str, CostFunction] = {}
"""The functions that a tag's `cost` in the registry may name."""


def _cost(function: CostFunction) -> CostFunction:
    COSTS[function.__name__] = function
    return function


def tag_cost(pattern: str, instance: CostInputs) -> Cost:
    """Return the cost of one instance of a tag of the registry; none where it has no cost."""
    cost = tags.REGISTRY[pattern].cost
    return COSTS[cost](instance) if cost else NO_COST


def transformer_pass(config: Config, frames_seen: int, update: bool = False) -> dict[str, Cost]:
    """Return the cost of one pass over a block, by tag, over all layers."""
    instance = CostInputs(config, frames_seen, update)
    return {tag: tag_cost(tag, instance) for tag in tags.leaf_tags(tags.DIFFUSION_FORWARD)}


def decode_frame(config: Config, first: bool) -> dict[str, Cost]:
    """Return the cost of decoding one latent frame, by tag."""
    instance = CostInputs(config, first=first)
    return {tag: tag_cost(tag, instance) for tag in tags.leaf_tags(tags.VAE_DECODE)}


def check_config(config: Config) -> None:
    """Compute every cost once, so that a damaged configuration raises its error."""
    for first in (True, False):
        instance = CostInputs(config, config["window"], update=True, first=first)
        for cost in COSTS.values():
            cost(instance)


@_cost
def patch_embedding(instance: CostInputs) -> Cost:
    """Return the cost of the matmul that makes tokens of patches."""
    model = instance.model
    return _linear(instance.tokens, _patch_area(model) * model["in_dim"], model["dim"])


@_cost
def time_embedding(instance: CostInputs) -> Cost:
    """Return the cost of the MLP and the projection that make modulation of timesteps."""
    frames, dim = instance.config["frames_per_block"], instance.model["dim"]
    return _linear(frames, instance.model["freq_dim"], dim) + _linear(frames, dim, 7 * dim)


@_cost
def self_attention(instance: CostInputs) -> Cost:
    """Return the cost of four projections and attention to the frames seen, in every layer."""
    tokens, dim = instance.tokens, instance.model["dim"]
    seen = tokens_per_frame(instance.config) * instance.frames_seen
    layer = _linear(tokens, dim, dim) * 4 + _attention(tokens, seen, dim)
    keys = _linear(tokens, dim, dim) * 2 if instance.ends_at_keys else NO_COST
    return layer * instance.whole_layers + keys


@_cost
def cross_attention(instance: CostInputs) -> Cost:
    """Return the cost of two projections and attention to the visual context, in every layer."""
    tokens, dim = instance.tokens, instance.model["dim"]
    layer = _linear(tokens, dim, dim) * 2
    layer += _attention(tokens, instance.model["context_tokens"], dim)
    return layer * instance.whole_layers


@_cost
def mouse_attention(instance: CostInputs) -> Cost:
    """Return the cost of the mouse's MLP and attention over time, in every action layer."""
    model, tokens, width = instance.model, instance.tokens, _mouse_width(instance.model)
    if not width:
        return NO_COST
    rows = model.get("action_rows", 12)
    linear = (
        (model["dim"] + 2 * rows, width),
        (width, width),
        (width, 3 * width),
        (width, model["dim"]),
    )
    groups = tokens_per_frame(instance.config)
    mixing = _attention(tokens, instance.frames_seen, width, groups=groups)
    return (total_cost(_linear(tokens, *sizes) for sizes in linear) + mixing) * len(
        model["action_layers"]
    )


@_cost
def keyboard_attention(instance: CostInputs) -> Cost:
    """Return the cost of two projections and attention to the keys, in every action layer."""
    model, tokens, width = instance.model, instance.tokens, instance.model["keyboard_hidden"]
    layer = _linear(tokens, model["dim"], width) + _linear(tokens, width, model["dim"])
    return (layer + _attention(tokens, instance.frames_seen, width)) * len(model["action_layers"])


@_cost
def dit_feed_forward(instance: CostInputs) -> Cost:
    """Return the cost of the MLP, in every layer."""
    tokens, dim, inner = instance.tokens, instance.model["dim"], instance.model["ffn_dim"]
    return (_linear(tokens, dim, inner) + _linear(tokens, inner, dim)) * instance.whole_layers


@_cost
def dit_head(instance: CostInputs) -> Cost:
    """Return the cost of the matmul that makes patches of tokens."""
    model = instance.model
    if instance.update:
        return NO_COST
    return _linear(instance.tokens, model["dim"], _patch_area(model) * model["out_dim"])


def _patch_area(model: dict[str, Any]) -> int:
    return int(model["patch"][1] * model["patch"][2])


def _mouse_width(model: dict[str, Any]) -> int:
    """Return the width of the mouse's attention; 0 in a world without a mouse."""
    return int(model["mouse_hidden"]) if model.get("mouse_dim", 2) else 0


@_cost
def cache_initialization(instance: CostInputs) -> Cost:
    """Return the cost of zeroing every cache, and of the visual context's keys and values."""
    model = instance.model
    dim, acting, context = model["dim"], len(model["action_layers"]), model["context_tokens"]
    layers: int = model["num_layers"]
    per_frame = tokens_per_frame(instance.config)
    rows = layers * per_frame * dim + acting * per_frame * _mouse_width(model)
    rows += acting * model["keyboard_hidden"]
    embedding = _linear(context, model["context_dim"], model["context_dim"])
    embedding += _linear(context, model["context_dim"], dim)
    keys = _linear(context, dim, dim) * (2 * layers)
    return Cost(elements=2.0 * instance.config["window"] * rows) + embedding + keys


def _residual(width_in: int, width: int, points: int) -> Cost:
    cost = _convolution(27, width_in, width, points) + _convolution(27, width, width, points)
    return cost + _convolution(1, width_in, width, points) if width_in != width else cost


def _middle(width: int, points: int, frames: int = 1) -> Cost:
    """Return the cost of two residual blocks around single-head attention over a frame."""
    projections = _convolution(1, width, 3 * width, points) + _convolution(1, width, width, points)
    mixing = _attention(points, points // frames, width, groups=frames)
    return _residual(width, width, points) * 2 + projections + mixing


@_cost
def decoder_conv1(instance: CostInputs) -> Cost:
    """Return the cost of the convolution that enters the decoder."""
    channels, height, width = instance.config["latent_shape"]
    return _convolution(27, channels, _decoder_widths(instance.config)[0], height * width)


@_cost
def decoder_middle(instance: CostInputs) -> Cost:
    """Return the cost of the decoder's middle blocks."""
    _, height, width = instance.config["latent_shape"]
    return _middle(_decoder_widths(instance.config)[0], height * width)


@_cost
def decoder_upsample(instance: CostInputs) -> Cost:
    """Return the cost of all stages that double the frame's sides, and some the frames."""
    vae, widths = instance.config["vae"], _decoder_widths(instance.config)
    temporal = list(reversed(vae["temporal"]))
    _, height, width = instance.config["latent_shape"]
    points, cost, frames, entering = height * width, NO_COST, 1, widths[0]
    for stage, out in enumerate(widths):
        cost += _residual(entering, out, frames * points)
        cost += _residual(out, out, frames * points) * vae["residual_blocks"]
        if stage < len(temporal):
            if temporal[stage] and not instance.first:
                cost += _convolution(3, out, 2 * out, frames * points)
                frames *= 2
            points *= 4
            entering = out // 2
            cost += _convolution(9, out, entering, frames * points)
    return cost


@_cost
def decoder_head(instance: CostInputs) -> Cost:
    """Return the cost of the convolution to RGB."""
    temporal = instance.config["vae"]["temporal"]
    _, height, width = instance.config["latent_shape"]
    frames = 1 if instance.first else 2 ** sum(map(bool, temporal))
    points = height * width * 4 ** len(temporal)
    return _convolution(27, _decoder_widths(instance.config)[-1], 3, frames * points)


def _decoder_widths(config: Config) -> list[int]:
    return list(reversed(config["vae"]["stage_widths"]))


def encode_frames(config: Config, first: bool) -> Cost:
    """Return the cost of encoding the first pixel frame, or four later ones."""
    vae = config["vae"]
    widths, temporal = vae["stage_widths"], vae["temporal"]
    channels, height, width = config["latent_shape"]
    points = height * width * 4 ** len(temporal)
    frames = 1 if first else 2 ** sum(map(bool, temporal))
    cost, entering = _convolution(27, 3, widths[0], frames * points), widths[0]
    for stage, out in enumerate(widths):
        cost += _residual(entering, out, frames * points)
        cost += _residual(out, out, frames * points) * (vae["residual_blocks"] - 1)
        entering = out
        if stage < len(temporal):
            points //= 4
            cost += _convolution(9, out, out, frames * points)
            if temporal[stage] and not first:
                frames //= 2
                cost += _convolution(3, out, out, frames * points)
    cost += _middle(widths[-1], frames * points, frames)
    return cost + _convolution(27, widths[-1], 2 * channels, frames * points)


@_cost
def first_encode(instance: CostInputs) -> Cost:
    """Return the cost of encoding the first block's frames, the start image and blank ones."""
    later: int = instance.config["frames_per_block"] - 1
    one, four = (encode_frames(instance.config, first=first) for first in (True, False))
    return one + four * later


@_cost
def condition_encode(instance: CostInputs) -> Cost:
    """Return the cost of encoding a later block's blank frames."""
    frames: int = instance.config["frames_per_block"]
    return encode_frames(instance.config, first=False) * frames


@_cost
def clip(instance: CostInputs) -> Cost:
    """Return the cost of the image tower over the start image."""
    clip = instance.config["clip"]
    patches = (clip["image_size"] // clip["patch"]) ** 2
    tokens, width = 1 + patches, clip["width"]
    layers: int = clip["layers"]
    layer = _linear(tokens, width, 3 * width) + _linear(tokens, width, width)
    layer += _linear(tokens, width, clip["mlp_width"]) + _linear(tokens, clip["mlp_width"], width)
    layer += _attention(tokens, tokens, width)
    return layer * layers + _linear(patches, 3 * clip["patch"] ** 2, width)


@_cost
def pixels(instance: CostInputs) -> Cost:
    """Return the cost of reading and writing every pixel; none for a session without an end."""
    config = instance.config
    frames = config.get("num_latent_frames") or 0
    height, width = config["image_size"]
    pixel_bytes = max(0, 1 + 4 * (frames - 1)) * height * width * 3.0 if frames else 0.0
    return Cost(elements=2 * pixel_bytes / bytes_per_element(config))
