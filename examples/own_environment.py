"""An environment of your own, and what a world's keys do in it.

glassworld train --source gymnasium:Dot-v0 --mapping examples/own_environment.py --preset smoke
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from glassworld import Action

MODE = "gta_drive"
"""The keys are forward and back; the mouse steers."""

STEER_PIXELS, DRIVE_PIXELS = 3, 2


class Dot(gymnasium.Env):  # type: ignore[misc]
    """A dot that moves over a plane of stripes. What a world learns from is `render`."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 12}
    action_space = gymnasium.spaces.Discrete(5)
    observation_space = gymnasium.spaces.Box(0, 96, (2,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.x, self.y = 48, 32

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.y = (int(self.np_random.integers(8, limit)) for limit in (88, 56))
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        right, down = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))[action]
        self.x = min(max(self.x + STEER_PIXELS * right, 8), 88)
        self.y = min(max(self.y + DRIVE_PIXELS * down, 8), 56)
        return self._observation(), 0.0, False, False, {}

    def render(self) -> np.ndarray:
        image = np.zeros((64, 96, 3), np.uint8)
        image[:, ::8] = 60
        image[self.y - 8 : self.y + 8, self.x - 8 : self.x + 8] = (250, 180, 60)
        return image

    def _observation(self) -> np.ndarray:
        return np.array([self.x, self.y], np.float32)


gymnasium.register("Dot-v0", entry_point=Dot)


def to_action(action: Action) -> int:
    """Return what the environment does in a frame: 0 nothing, 1 up, 2 down, 3 left, 4 right."""
    forward, back = action.keyboard
    _, steering = action.mouse or (0.0, 0.0)
    if steering:
        return 4 if steering > 0 else 3
    return 1 if forward else 2 if back else 0
