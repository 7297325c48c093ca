"""The maze that the embedded world learned from: a Doom level in ViZDoom, run without a window.

The scenario is ViZDoom's `my_way_home` (fixed rooms, random start) with the textures of
`maze_textures.py` and without a time limit, so an episode may be of any length. The Doom engine
runs 35 tics per second. One content frame is three tics: about 12 frames per second.
"""

import os
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

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
"""A mouse value of 0.1 turns by 5 degrees per frame, about 60 degrees per second."""
MOUSE_LIMIT = 0.2
FORWARD_THRUST, SIDE_THRUST = 10.0, 8.0
"""Doom walks 25 forward and 24 sideways. The maze is narrow, so these are slower."""
WARM_UP_FRAMES, REST_FRAMES = 60, 24

_CROP = (0.0, 40 / 3, 320.0, 240 - 40 / 3)
"""The 3:2 center of the screen, which is averaged down to WIDTH x HEIGHT."""
_AHEAD = (slice(118, 122), slice(100, 220))
"""The part of the depth buffer straight ahead, about as wide as the player."""
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


class VizdoomMaze:
    """A player in the maze. The same seed and actions give the same frames.

    Creating one changes the working directory of the process for a moment (see `_start_game`).

    Parameters
    ----------
    seed
        Determines the position and the heading of every reset.

    Raises
    ------
    MissingExtraError
        ViZDoom is not installed.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._game = _start_game()
        self._start_image: Frame | None = None
        self._first = True

    def reset(self, seed: int | None = None) -> Frame:
        """Start at a random position, at rest.

        Parameters
        ----------
        seed
            Starts the sequence of positions again, as a new environment of this seed would. None
            continues the sequence.

        Returns
        -------
        The start image: uint8 [64, 96, 3], RGB.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._game.set_seed(int(self._rng.integers(2**31)))
        self._game.new_episode()
        self._walk_to_random_position()
        self._first = True
        self._start_image = self._render()
        return self._start_image

    def step(self, action: "Action") -> Frame:
        """Hold an action for one block.

        Returns
        -------
        uint8 [n, 64, 96, 3]. The first block after a reset has 9 frames, of which the first is the
        start image. Later blocks have 12 frames, all rendered under the action.
        """
        start_image = self.reset() if self._start_image is None else self._start_image
        frames = [start_image] if self._first else []
        count = FIRST_BLOCK_FRAMES if self._first else BLOCK_FRAMES
        self._first = False
        mouse = action.mouse if action.mouse is not None else (0.0, 0.0)
        while len(frames) < count:
            frames.append(self.advance(action.keyboard, mouse))
        return np.stack(frames)

    def advance(self, keyboard: tuple[float, ...], mouse: tuple[float, float]) -> Frame:
        """Hold an action for one content frame.

        Parameters
        ----------
        keyboard
            Forward, back, left, right, each 0 or 1.
        mouse
            (vertical, horizontal); positive horizontal turns right, vertical has no effect in this
            world.

        Returns
        -------
        The frame: uint8 [64, 96, 3], RGB.

        Raises
        ------
        ActionError
            The keyboard does not have 4 keys.
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
        return self._render()

    @property
    def pose(self) -> Pose:
        """Position x, y in map units and heading in degrees, counterclockwise."""
        x, y, angle = self._game.get_state().game_variables
        return float(x), float(y), float(angle)

    @property
    def clearance(self) -> float:
        """Approximate distance to the nearest wall ahead, in map units (a room measures 200)."""
        ahead = self._game.get_state().depth_buffer[_AHEAD]
        return float(ahead.min()) * _UNITS_PER_DEPTH

    def close(self) -> None:
        """Stop the Doom engine."""
        self._game.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _render(self) -> Frame:
        screen = Image.fromarray(self._game.get_state().screen_buffer)
        return np.asarray(screen.resize((WIDTH, HEIGHT), Image.Resampling.BOX, box=_CROP))

    def _walk_to_random_position(self) -> None:
        """Walk a random distance and turn: the scenario itself starts in one of 17 places."""
        turn = float(self._rng.choice([-8.0, 8.0]))
        for _ in range(int(self._rng.integers(WARM_UP_FRAMES))):
            blocked = self.clearance < 60
            thrust = [0.0 if blocked else FORWARD_THRUST, 0.0, turn if blocked else 0.0]
            self._game.make_action(thrust, TICS_PER_FRAME)
        spin = float(self._rng.uniform(-180, 180))
        self._game.make_action([0.0, 0.0, spin], 1)
        self._game.make_action([0.0, 0.0, 0.0], REST_FRAMES * TICS_PER_FRAME)


def _start_game() -> Any:
    """Start the Doom engine on the repainted level.

    The engine creates a folder `_vizdoom` in its working directory, under any settings. So it is
    started in a temporary folder, which is removed again.

    Raises
    ------
    MissingExtraError
        ViZDoom is not installed.
    """
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
        with chdir(folder):
            game.init()  # The engine keeps the level open, so its file may be deleted.
    return game
