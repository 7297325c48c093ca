"""A tiny Gymnasium environment: a white square that the actions move over a colored ground."""

from typing import Any

import gymnasium
import numpy as np

SIDE = 8
"""Side of the square in pixels."""


class SquareEnv(gymnasium.Env):  # type: ignore[misc]
    """The square starts at a random place. An action moves it by so many pixels down and right."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 24}  # noqa: RUF012 - as in gymnasium

    def __init__(
        self, render_mode: str | None = None, height: int = 48, width: int = 64, ends: bool = False
    ) -> None:
        self.render_mode, self.ends = render_mode, ends
        self.height, self.width = height, width
        self.action_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Box(0, 256, (2,), np.float32)
        self.place = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.integers(0, (self.height - SIDE, self.width - SIDE))
        return self.place.astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move; the episode ends at the right edge where `ends` says so."""
        assert self.action_space.contains(action)
        edge = np.array([self.height - SIDE, self.width - SIDE])
        self.place = np.clip(self.place + action, 0, edge)
        ended = bool(self.ends and self.place[1] == edge[1])
        return self.place.astype(np.float32), 0.0, ended, False, {}

    def render(self) -> Any:
        image = np.full((self.height, self.width, 3), (40, 90, 160), np.uint8)
        top, left = self.place.astype(int)
        image[top : top + SIDE, left : left + SIDE] = 255
        return image


class BlindEnv(SquareEnv):
    """Renders nothing."""

    def render(self) -> Any:
        return None


class GrowingEnv(SquareEnv):
    """Renders larger images with every step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.height += 2
        return super().step(action)


class FailingEnv(SquareEnv):
    """Cannot render, as without what Gymnasium's own environments render with."""

    def render(self) -> Any:
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed")


class OldEnv(SquareEnv):
    """Returns four values, as environments of the old Gym do."""

    def step(self, action: Any) -> Any:
        return super().step(action)[:4]


class UnclosableEnv(SquareEnv):
    """Fails when it is closed."""

    def close(self) -> None:
        raise RuntimeError("there is no window")


class TextEnv(SquareEnv):
    """Renders text only."""

    metadata = {"render_modes": ["ansi"], "render_fps": 24}  # noqa: RUF012 - as in gymnasium


class DiscreteSquareEnv(SquareEnv):
    """Five actions: rest, up, down, left, right."""

    MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.moves = self.action_space
        self.action_space = gymnasium.spaces.Discrete(5)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        edge = np.array([self.height - SIDE, self.width - SIDE])
        self.place = np.clip(self.place + self.MOVES[action], 0, edge)
        return self.place.astype(np.float32), 0.0, False, False, {}


def register() -> None:
    """Register the environments as `glassworld-tests/Square-v0` and so on, once."""
    for kind in (SquareEnv, *SquareEnv.__subclasses__()):
        name = f"glassworld-tests/{kind.__name__.removesuffix('Env')}-v0"
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=kind, max_episode_steps=5)
    ending = "glassworld-tests/Ending-v0"
    if ending not in gymnasium.registry:
        gymnasium.register(ending, entry_point=SquareEnv, kwargs={"ends": True})


MAPPING = """
mode: universal
idle: [0, 0]
keys:
  forward: [-1, 0]
  back: [1, 0]
  left: [0, -1]
  right: [0, 1]
  camera_left: [0, -2]
  camera_right: [0, 2]
"""
"""A mapping for all of them but the discrete one, as YAML."""
