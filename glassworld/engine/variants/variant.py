"""A released model: its action space, its sizes, how it is sampled, and its file.

To add a variant, add a module with a `VARIANT` to this folder, its row to
docs/released-checkpoints.md, and a test.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from glassworld.engine.actions.track import ActionSpace

CAMERA_STEP = 0.1
"""How far one key moves the mouse per pixel frame; the models were trained on it."""

SIZE = (352, 640)
"""Height and width that all variants were trained at, in pixels."""

LAYERS = 30


def camera(up: float, right: float) -> tuple[float, float]:
    """Return a mouse movement of so many steps up and to the right."""
    return (up * CAMERA_STEP, right * CAMERA_STEP)


def pairs(movements: Iterable[str], cameras: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return each movement with each camera key."""
    turns = tuple(cameras)
    return tuple((*movement.split(), turn) for movement in movements for turn in turns)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A released model and its defaults."""

    name: str
    space: ActionSpace
    file: str  # in the release
    steps: tuple[int, ...]
    window: int  # latent frames; -1: unlimited
    action_layers: int = 15  # the first so many of the layers
    keys: str  # for people: how many, and how they are used
    mouse: str

    @property
    def model(self) -> dict[str, Any]:
        """The transformer's settings, as a config.json of the release holds them."""
        return {
            "dim": 1536,
            "ffn_dim": 8960,
            "num_layers": LAYERS,
            "num_heads": 12,
            "local_attn_size": self.window,
            "action_config": {
                "blocks": list(range(self.action_layers)),
                "keyboard_dim_in": len(self.space.keyboard),
                "enable_mouse": self.space.has_mouse,
                "hidden_size": 128,
                "keyboard_hidden_dim": 1024,
                "heads_num": 16,
            },
        }

    @property
    def inference(self) -> dict[str, Any]:
        """How it is sampled, as an inference YAML of the release says it."""
        height, width = SIZE
        return {
            "mode": self.space.mode,
            "denoising_step_list": list(self.steps),
            "warp_denoising_step": True,
            "image_or_video_shape": [1, 16, 3, height // 8, width // 8],
            "num_frame_per_block": 3,
        }

    @property
    def row(self) -> str:
        """Its row in the table of docs/released-checkpoints.md."""
        steps = ", ".join(map(str, self.steps))
        if len(self.steps) > 5:
            steps = f"{len(self.steps)}, from {self.steps[0]} to {self.steps[-1]}"
        window = "unlimited" if self.window < 0 else str(self.window)
        cells = (f"`{self.name}`", self.keys, self.mouse, window, steps, f"`{self.file}`")
        return f"| {' | '.join(cells)} |"
