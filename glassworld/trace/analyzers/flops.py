"""How much a run has to compute and to move, counted from its configuration.

Only what costs is counted: matrix products, convolutions and attention. Each reads its weights
and its inputs once and writes its outputs once; a multiply-add is two FLOPs.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    """The sum of works."""
    return sum(works, NOTHING)


def _linear(rows: float, inner: float, columns: float) -> Work:
    moved = inner * columns + rows * (inner + columns)
    return Work(products=2.0 * rows * inner * columns, numbers=moved)


def _attention(queries: float, keys: float, width: float, groups: float = 1) -> Work:
    """Queries by keys and weights by values, in so many groups with keys of their own."""
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


def transformer_pass(config: Config, frames_seen: int) -> dict[str, Work]:
    """One pass over a block that sees `frames_seen` latent frames, by tag, over all layers."""
    model = config["model"]
    dim, layers = model["dim"], model["num_layers"]
    per_frame = tokens_per_frame(config)
    frames = config["frames_per_block"]
    tokens = frames * per_frame
    patch = model["patch"][1] * model["patch"][2]
    mouse, keyboard = _actions(config, tokens, frames_seen)
    projections = _linear(tokens, dim, dim)
    feed_forward = _linear(tokens, dim, model["ffn_dim"]) + _linear(tokens, model["ffn_dim"], dim)
    time = _linear(frames, model["freq_dim"], dim) + _linear(frames, dim, 7 * dim)
    return {
        tags.PATCH_EMBEDDING: _linear(tokens, patch * model["in_dim"], dim),
        tags.TIME_EMBEDDING: time,
        tags.SELF_ATTENTION: (projections * 4 + _attention(tokens, per_frame * frames_seen, dim))
        * layers,
        tags.CROSS_ATTENTION: (projections * 2 + _attention(tokens, model["context_tokens"], dim))
        * layers,
        tags.MOUSE_ATTENTION: mouse * len(model["action_layers"]),
        tags.KEYBOARD_ATTENTION: keyboard * len(model["action_layers"]),
        tags.FEED_FORWARD: feed_forward * layers,
        tags.HEAD: _linear(tokens, dim, patch * model["out_dim"]),
    }


def update_pass(config: Config, frames_seen: int) -> dict[str, Work]:
    """A pass for the caches only: without the head, and the last layer ends at its keys."""
    made = transformer_pass(config, frames_seen)
    made[tags.HEAD] = NOTHING
    model = config["model"]
    layers = model["num_layers"]
    if layers - 1 not in model["action_layers"]:
        tokens = config["frames_per_block"] * tokens_per_frame(config)
        keys = _linear(tokens, model["dim"], model["dim"]) * 2
        for tag in (tags.SELF_ATTENTION, tags.CROSS_ATTENTION, tags.FEED_FORWARD):
            made[tag] *= (layers - 1) / layers
        made[tags.SELF_ATTENTION] += keys
    return made


def _actions(config: Config, tokens: int, frames_seen: int) -> tuple[Work, Work]:
    """One layer's mouse part and its keyboard part."""
    model = config["model"]
    dim, keyboard = model["dim"], model["keyboard_hidden"]
    mouse = model["mouse_hidden"] if model.get("mouse_dim", 2) else 0
    rows = model.get("action_rows", 12)
    linear = (
        (dim + 2 * rows, mouse),
        (mouse, mouse),
        (mouse, 3 * mouse),
        (mouse, dim),
    )
    steered = _attention(tokens, frames_seen, mouse, groups=tokens_per_frame(config))
    return (
        total(_linear(tokens, *sizes) for sizes in linear) + steered if mouse else NOTHING,
        _linear(tokens, dim, keyboard)
        + _linear(tokens, keyboard, dim)
        + _attention(tokens, frames_seen, keyboard),
    )


def cache_initialisation(config: Config) -> Work:
    """Zeroing every cache, and the keys and values of the visual context."""
    model = config["model"]
    dim, acting, context = model["dim"], len(model["action_layers"]), model["context_tokens"]
    layers: int = model["num_layers"]
    per_frame = tokens_per_frame(config)
    mouse = model["mouse_hidden"] if model.get("mouse_dim", 2) else 0
    rows = layers * per_frame * dim + acting * per_frame * mouse
    rows += acting * model["keyboard_hidden"]
    embedding = _linear(context, model["context_dim"], model["context_dim"])
    embedding += _linear(context, model["context_dim"], dim)
    keys = _linear(context, dim, dim) * (2 * layers)
    return Work(numbers=2.0 * config["window"] * rows) + embedding + keys


def _residual(width_in: int, width: int, points: int) -> Work:
    made = _convolution(27, width_in, width, points) + _convolution(27, width, width, points)
    return made + _convolution(1, width_in, width, points) if width_in != width else made


def _middle(width: int, points: int, frames: int = 1) -> Work:
    """Two residual blocks around single-head attention over a frame's positions."""
    projections = _convolution(1, width, 3 * width, points) + _convolution(1, width, width, points)
    mixing = _attention(points, points // frames, width, groups=frames)
    return _residual(width, width, points) * 2 + projections + mixing


def decode_frame(config: Config, first: bool) -> dict[str, Work]:
    """Decoding one latent frame, by tag; the clip's first gives one picture, later ones four."""
    vae = config["vae"]
    widths = list(reversed(vae["stage_widths"]))
    temporal = list(reversed(vae["temporal"]))
    channels, height, width = config["latent_shape"]
    points = height * width
    made = {
        tags.DEC_CONV1: _convolution(27, channels, widths[0], points),
        tags.DEC_MIDDLE: _middle(widths[0], points),
    }
    upsample, frames, entering = NOTHING, 1, widths[0]
    for stage, out in enumerate(widths):
        upsample += _residual(entering, out, frames * points)
        upsample += _residual(out, out, frames * points) * vae["residual_blocks"]
        if stage < len(temporal):
            if temporal[stage] and not first:
                upsample += _convolution(3, out, 2 * out, frames * points)
                frames *= 2
            points *= 4
            entering = out // 2
            upsample += _convolution(9, out, entering, frames * points)
    made[tags.DEC_UPSAMPLE] = upsample
    made[tags.DEC_HEAD] = _convolution(27, widths[-1], 3, frames * points)
    return made


def encode_frames(config: Config, first: bool) -> Work:
    """Encoding the first pixel frame, or four later ones."""
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


def vision(config: Config) -> Work:
    """The image tower over the starting picture."""
    clip = config["clip"]
    patches = (clip["image_size"] // clip["patch"]) ** 2
    tokens, width = 1 + patches, clip["width"]
    layers: int = clip["layers"]
    layer = _linear(tokens, width, 3 * width) + _linear(tokens, width, width)
    layer += _linear(tokens, width, clip["mlp_width"]) + _linear(tokens, clip["mlp_width"], width)
    layer += _attention(tokens, tokens, width)
    return layer * layers + _linear(patches, 3 * clip["patch"] ** 2, width)


def pixel_bytes(config: Config) -> float:
    """Bytes of all pictures of the run; 0 for a session without an end."""
    frames = config.get("num_latent_frames") or 0
    height, width = config["image_size"]
    return float(max(0, 1 + 4 * (frames - 1)) * height * width * 3) if frames else 0.0
