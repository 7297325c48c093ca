"""Where each tag stands under the machine's roof: FLOP/s reached against what was possible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace.analysis import Analysis
from glassworld.trace.expectation import (
    Ceilings,
    Config,
    decode_parts,
    read_ceilings,
    run_config,
    tokens_per_frame,
    transformer_pass,
)


@dataclass(frozen=True)
class RoofPoint:
    """A tag over all its instances. `intensity` is FLOPs per byte of weights and activations.

    `roof_gflops` is the lower of the arithmetic ceiling and intensity times the copy ceiling;
    `bound` names which. None without ceilings, or where bytes are not counted (convolutions
    are held against the convolution ceiling alone).
    """

    tag: str
    ms: float
    gflop: float
    gflops: float
    intensity: float | None
    roof_gflops: float | None
    roof_share: float | None
    bound: str


def roofline(analysis: Analysis) -> list[RoofPoint]:
    """The tags whose work is counted; empty where the trace carries no configuration."""
    config = run_config(analysis.trace.metadata)
    if config is None:
        return []
    ceilings = read_ceilings(config)
    points = []
    for tag, work in _work(analysis, config).items():
        found = analysis.tree.where(tag)
        ms = float(analysis.time_ns(found).sum() / 1e6)
        if ms and work[0]:
            points.append(_point(tag, ms, *work, ceilings))
    return points


def _point(
    tag: str, ms: float, flops: float, moved: float | None, ceilings: Ceilings | None
) -> RoofPoint:
    intensity = flops / moved if moved else None
    roof, bound = None, ""
    if ceilings:
        roof, bound = ceilings.conv_gflops, "arithmetic"
        if intensity is not None:
            roof, bound = ceilings.matmul_gflops, "arithmetic"
            if intensity * ceilings.copy_gbps < roof:
                roof, bound = intensity * ceilings.copy_gbps, "memory"
    reached = flops / ms / 1e6
    return RoofPoint(
        tag, ms, flops / 1e9, reached, intensity, roof, reached / roof if roof else None, bound
    )


def _work(analysis: Analysis, config: Config) -> dict[str, tuple[float, float | None]]:
    """FLOPs and bytes of each tag over all its instances."""
    model = config["model"]
    layers, acting = model["num_layers"], max(1, len(model["action_layers"]))
    made: dict[str, tuple[float, float | None]] = {}
    for tag, part, count in (
        (tags.SELF_ATTENTION, "self_attention", layers),
        (tags.CROSS_ATTENTION, "cross_attention", layers),
        (tags.MOUSE_ATTENTION, "mouse_attention", acting),
        (tags.KEYBOARD_ATTENTION, "keyboard_attention", acting),
        (tags.FEED_FORWARD, "feed_forward", layers),
    ):
        found = analysis.tree.where(tag)
        blocks = analysis.tree.dims["block"][found].tolist()
        seen = [min(config["window"], (b + 1) * config["frames_per_block"]) for b in blocks]
        each = {n: getattr(transformer_pass(config, n), part) / count for n in set(seen)}
        moved = sum(_bytes(config, part, n) for n in seen)
        made[tag] = (sum(each[n] for n in seen), moved)
    first, later = decode_parts(config, first=True), decode_parts(config, first=False)
    for tag, part in (
        (tags.DEC_CONV1, "conv1"),
        (tags.DEC_MIDDLE, "middle"),
        (tags.DEC_UPSAMPLE, "upsample"),
        (tags.DEC_HEAD, "head"),
    ):
        found = analysis.tree.where(tag)
        opening = analysis.tree.dims["block"][found] == 0
        opening &= analysis.tree.dims["frame"][found] == 0
        made[tag] = (float(np.where(opening, first[part], later[part]).sum()), None)
    return made


def _bytes(config: Config, part: str, seen: int) -> float:
    """Bytes one layer's part must move at least: its weights, its inputs and its outputs."""
    model = config["model"]
    dim, mouse, keyboard = model["dim"], model["mouse_hidden"], model["keyboard_hidden"]
    per_frame = tokens_per_frame(config)
    tokens = config["frames_per_block"] * per_frame
    rows = model.get("action_rows", 12)
    numbers = {
        "self_attention": 4 * dim**2 + 6 * tokens * dim + 2 * seen * per_frame * dim,
        "cross_attention": 2 * dim**2 + 4 * tokens * dim + 2 * model["context_tokens"] * dim,
        "mouse_attention": (dim + 2 * rows + 4 * mouse + dim) * mouse
        + tokens * (2 * dim + 6 * mouse)
        + 2 * seen * per_frame * mouse,
        "keyboard_attention": 2 * dim * keyboard + tokens * (2 * dim + 2 * keyboard),
        "feed_forward": 2 * dim * model["ffn_dim"] + 2 * tokens * (dim + model["ffn_dim"]),
    }[part]
    return float(numbers * (4 if config.get("dtype") == "float32" else 2))
