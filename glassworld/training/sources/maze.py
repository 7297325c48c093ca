"""The real world behind the embedded one: a maze of the Doom engine, played without a window.

The scenario is ViZDoom's `my_way_home` (fixed rooms, random start) in the colours of `maze.py`
and without a time limit, so play goes on as long as one likes. The engine runs 35 tics a second;
one content frame is three of them, about 12 frames a second.
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glassworld.errors import ActionError, MissingExtraError
from glassworld.training.sources.maze_textures import repaint

if TYPE_CHECKING:
    from glassworld.engine.actions.track import Action

Frame = NDArray[np.uint8]
Pose = tuple[float, float, float]

HEIGHT, WIDTH = 64, 96
TICS_PER_FRAME = 3
FIRST_BLOCK_FRAMES, BLOCK_FRAMES = 9, 12
DEGREES_PER_MOUSE_UNIT = 50.0
"""A mouse of 0.1 turns by 5 degrees a frame, about 60 degrees a second."""
MOUSE_LIMIT = 0.2
FORWARD_THRUST, SIDE_THRUST = 10.0, 8.0
"""Doom's walk is 25 forward and 24 aside; the maze is narrow, so we go slower."""
WARM_UP_FRAMES, REST_FRAMES = 60, 24

_CROP = (0.0, 40 / 3, 320.0, 240 - 40 / 3)
"""Centred, 3:2; then averaged down to WIDTH x HEIGHT."""
_AHEAD = (slice(118, 122), slice(100, 220))
"""The part of the depth picture a player of some width would walk into."""
_UNITS_PER_DEPTH = 10.0
_QUIET = (
    "hud",
    "weapon",
    "crosshair",
    "decals",
    "particles",
    "messages",
    "effects_sprites",
    "corpses",
)


class MazeEnvironment:
    """One player in the maze; the same seed and actions give the same frames.

    Args:
        seed: chooses every later reset's position and heading.

    Raises:
        MissingExtraError: ViZDoom is not installed.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._game = _start_game()
        self._picture: Frame | None = None
        self._first = True

    def reset(self) -> Frame:
        """Start at a random place, at rest. Returns a picture: uint8 [64, 96, 3], RGB."""
        self._game.set_seed(int(self._rng.integers(2**31)))
        self._game.new_episode()
        self._walk_somewhere()
        self._first = True
        self._picture = self._see()
        return self._picture

    def step(self, action: "Action") -> Frame:
        """Hold an action for one block.

        Returns:
            uint8 [n, 64, 96, 3]: after a reset 9 frames, the first of them the reset's picture;
            later 12, all made under the action.
        """
        picture = self.reset() if self._picture is None else self._picture
        frames = [picture] if self._first else []
        count = FIRST_BLOCK_FRAMES if self._first else BLOCK_FRAMES
        self._first = False
        mouse = action.mouse if action.mouse is not None else (0.0, 0.0)
        while len(frames) < count:
            frames.append(self.advance(action.keyboard, mouse))
        return np.stack(frames)

    def advance(self, keyboard: tuple[float, ...], mouse: tuple[float, float]) -> Frame:
        """One content frame.

        Args:
            keyboard: forward, back, left, right, each 0 or 1.
            mouse: (vertical, horizontal); positive horizontal turns right, vertical does
                nothing in this world.

        Returns:
            uint8 [64, 96, 3], RGB.
        """
        if len(keyboard) != 4:
            raise ActionError(f"keyboard has {len(keyboard)} keys: this world takes 4")
        forward, back, left, right = keyboard
        turn = float(np.clip(mouse[1], -MOUSE_LIMIT, MOUSE_LIMIT))
        self._game.make_action(
            [
                FORWARD_THRUST * (forward - back),
                SIDE_THRUST * (right - left),
                turn * DEGREES_PER_MOUSE_UNIT / TICS_PER_FRAME,
            ],
            TICS_PER_FRAME,
        )
        return self._see()

    @property
    def pose(self) -> Pose:
        """x and y in map units, heading in degrees counted counter-clockwise."""
        x, y, angle = self._game.get_state().game_variables
        return float(x), float(y), float(angle)

    @property
    def clearance(self) -> float:
        """About how far the nearest wall ahead is, in map units (a room measures 200)."""
        ahead = self._game.get_state().depth_buffer[_AHEAD]
        return float(ahead.min()) * _UNITS_PER_DEPTH

    def close(self) -> None:
        """Stop the engine."""
        self._game.close()

    def _see(self) -> Frame:
        screen = Image.fromarray(self._game.get_state().screen_buffer)
        return np.asarray(screen.resize((WIDTH, HEIGHT), Image.Resampling.BOX, box=_CROP))

    def _walk_somewhere(self) -> None:
        """The scenario starts in one of 17 places; a short walk makes it any place."""
        turn = float(self._rng.choice([-8.0, 8.0]))
        for _ in range(int(self._rng.integers(WARM_UP_FRAMES))):
            blocked = self.clearance < 60
            thrust = [0.0 if blocked else FORWARD_THRUST, 0.0, turn if blocked else 0.0]
            self._game.make_action(thrust, TICS_PER_FRAME)
        spin = float(self._rng.uniform(-180, 180))
        self._game.make_action([0.0, 0.0, spin], 1)
        self._game.make_action([0.0, 0.0, 0.0], REST_FRAMES * TICS_PER_FRAME)


def _start_game() -> Any:
    try:
        import vizdoom
    except ImportError as error:
        raise MissingExtraError("ViZDoom", "train") from error
    game = vizdoom.DoomGame()
    scenarios = Path(vizdoom.scenarios_path)
    game.load_config(str(scenarios / "my_way_home.cfg"))
    game.set_doom_config_path(os.devnull)
    game.set_window_visible(False)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_depth_buffer_enabled(True)
    for part in _QUIET:
        getattr(game, f"set_render_{part}")(False)
    button, variable = vizdoom.Button, vizdoom.GameVariable
    game.set_available_buttons(
        [
            button.MOVE_FORWARD_BACKWARD_DELTA,
            button.MOVE_LEFT_RIGHT_DELTA,
            button.TURN_LEFT_RIGHT_DELTA,
        ]
    )
    game.set_available_game_variables([variable.POSITION_X, variable.POSITION_Y, variable.ANGLE])
    game.set_episode_timeout(0)
    game.set_episode_start_time(10)
    game.add_game_args("+movebob 0 +stillbob 0")
    original = (scenarios / "my_way_home.wad").read_bytes()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        maze = Path(folder) / "maze.wad"
        maze.write_bytes(repaint(original))
        game.set_doom_scenario_path(str(maze))
        game.init()  # opens the file for good
    return game
