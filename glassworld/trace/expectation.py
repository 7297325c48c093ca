"""What a run should cost, counted from its configuration, at the machine's measured ceilings.

The configuration is in the trace's metadata under "glassworld". Counts are multiply-adds times
two of matrix products and convolutions; everything else is small beside them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class Ceilings:
    """What the machine was measured to do: GFLOP/s of products and convolutions, GB/s of copies."""

    key: str
    matmul_gflops: float
    conv_gflops: float
    copy_gbps: float


@dataclass(frozen=True)
class Pass:
    """FLOPs of one pass of the transformer over a block, by part and over all layers."""

    self_attention: float
    cross_attention: float
    mouse_attention: float
    keyboard_attention: float
    feed_forward: float
    embedding: float
    head: float
    softmax: float
    """The part of the attentions that is queries by keys and weights by values."""

    @property
    def total(self) -> float:
        """FLOPs of the whole pass."""
        return (
            self.self_attention
            + self.cross_attention
            + self.mouse_attention
            + self.keyboard_attention
            + self.feed_forward
            + self.embedding
            + self.head
        )


def run_config(metadata: dict[str, object]) -> Config | None:
    """The run's configuration, if the engine wrote one into the trace."""
    ours = metadata.get("glassworld")
    if isinstance(ours, str):
        ours = json.loads(ours)
    config = ours.get("config") if isinstance(ours, dict) else None
    return config if isinstance(config, dict) and "model" in config else None


def read_ceilings(config: Config) -> Ceilings | None:
    """The stored ceilings for the run's device and precision; None if none were measured."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    device = str(config.get("device", "cpu")).split(":")[0]
    key = f"{device}:{config.get('dtype', 'float32')}"
    try:
        stored = json.loads((cache / "glassworld" / "ceilings.json").read_text())
        found = stored[key]
        return Ceilings(
            key,
            float(found["matmul_gflops"]),
            float(found["conv_gflops"]),
            float(found["copy_gbps"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def tokens_per_frame(config: Config) -> int:
    """Tokens of a latent frame."""
    _, height, width = config["latent_shape"]
    _, down, across = config["model"]["patch"]
    return int(height // down * (width // across))


def transformer_pass(config: Config, frames_seen: int) -> Pass:
    """One pass over a block whose attention sees `frames_seen` latent frames."""
    model = config["model"]
    dim, layers = model["dim"], model["num_layers"]
    per_frame = tokens_per_frame(config)
    frames = config["frames_per_block"]
    tokens = frames * per_frame
    context = model["context_tokens"]
    window = 4 * tokens * per_frame * frames_seen * dim
    visual = 4 * tokens * context * dim
    patch = model["in_dim"] * model["patch"][1] * model["patch"][2]
    output = model["out_dim"] * model["patch"][1] * model["patch"][2]
    mouse, keyboard, action_softmax = _action_layer(config, tokens, frames_seen)
    action_layers = len(model["action_layers"])
    return Pass(
        self_attention=layers * (8 * tokens * dim**2 + window),
        cross_attention=layers * (4 * tokens * dim**2 + visual),
        mouse_attention=action_layers * mouse,
        keyboard_attention=action_layers * keyboard,
        feed_forward=layers * 4 * tokens * dim * model["ffn_dim"],
        embedding=2 * tokens * patch * dim + frames * (2 * model["freq_dim"] * dim + 14 * dim**2),
        head=2 * tokens * dim * output,
        softmax=layers * (window + visual) + action_layers * action_softmax,
    )


def _action_layer(config: Config, tokens: int, frames_seen: int) -> tuple[float, float, float]:
    """FLOPs of one layer's mouse part, its keyboard part, and the softmax attention in both."""
    model = config["model"]
    dim, keyboard = model["dim"], model["keyboard_hidden"]
    has_mouse = bool(model.get("mouse_dim", 2))
    mouse = model["mouse_hidden"] if has_mouse else 0
    rows = model.get("action_rows", 12)
    embed = (dim + 2 * rows) * mouse + mouse * mouse
    mouse_linear = 2 * tokens * (embed + 3 * mouse * mouse + mouse * dim)
    mouse_softmax = 4 * tokens * frames_seen * mouse
    keyboard_linear = 4 * tokens * dim * keyboard
    keyboard_softmax = 4 * tokens * frames_seen * keyboard
    return (
        float(mouse_linear + mouse_softmax),
        float(keyboard_linear + keyboard_softmax),
        float(mouse_softmax + keyboard_softmax),
    )


def _residual(width_in: int, width: int, points: int) -> float:
    shortcut = width_in * width if width_in != width else 0
    return 2.0 * points * (27 * width_in * width + 27 * width * width + shortcut)


def _middle(width: int, points: int, frames: int = 1) -> float:
    """Two residual blocks around single-head attention over a frame's positions."""
    attention = 2.0 * points * 4 * width**2 + 4.0 * points * (points // frames) * width
    return 2 * _residual(width, width, points) + attention


def decode_parts(config: Config, first: bool) -> dict[str, float]:
    """FLOPs of decoding one latent frame: conv1, middle, upsample, head."""
    vae = config["vae"]
    widths = list(reversed(vae["stage_widths"]))
    temporal = list(reversed(vae["temporal"]))
    channels, height, width = config["latent_shape"]
    points = height * width
    made = {
        "conv1": 2.0 * 27 * points * channels * widths[0],
        "middle": _middle(widths[0], points),
    }
    upsample, frames, entering = 0.0, 1, widths[0]
    for stage, out in enumerate(widths):
        upsample += _residual(entering, out, frames * points)
        upsample += vae["residual_blocks"] * _residual(out, out, frames * points)
        if stage < len(temporal):
            if temporal[stage] and not first:
                upsample += 2.0 * 3 * frames * points * out * 2 * out
                frames *= 2
            points *= 4
            entering = out // 2
            upsample += 2.0 * 9 * frames * points * out * entering
    made["upsample"] = upsample
    made["head"] = 2.0 * 27 * frames * points * widths[-1] * 3
    return made


def encode_flops(config: Config, first: bool) -> float:
    """FLOPs of encoding the first pixel frame, or four later ones."""
    vae = config["vae"]
    widths, temporal = vae["stage_widths"], vae["temporal"]
    channels, height, width = config["latent_shape"]
    points = height * width * 4 ** len(temporal)
    frames = 1 if first else 2 ** sum(temporal)
    flops, entering = 2.0 * 27 * frames * points * 3 * widths[0], widths[0]
    for stage, out in enumerate(widths):
        flops += _residual(entering, out, frames * points)
        flops += (vae["residual_blocks"] - 1) * _residual(out, out, frames * points)
        entering = out
        if stage < len(temporal):
            points //= 4
            flops += 2.0 * 9 * frames * points * out * out
            if temporal[stage] and not first:
                frames //= 2
                flops += 2.0 * 3 * frames * points * out * out
    flops += _middle(widths[-1], frames * points, frames)
    return float(flops + 2.0 * 27 * frames * points * widths[-1] * 2 * channels)


def vision_flops(config: Config) -> float:
    """FLOPs of the image tower."""
    clip = config["clip"]
    tokens = 1 + (clip["image_size"] // clip["patch"]) ** 2
    width = clip["width"]
    layer = 2 * tokens * (4 * width**2 + 2 * width * clip["mlp_width"]) + 4 * tokens**2 * width
    return float(clip["layers"] * layer + 2 * tokens * 3 * clip["patch"] ** 2 * width)
