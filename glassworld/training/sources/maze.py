"""The maze that the world `maze` learned from: a Doom level in ViZDoom, run without a window.

The scenario is ViZDoom's `my_way_home` (fixed rooms, random start) with the textures of
`maze_textures.py` and without a time limit, so an episode may be of any length. The Doom engine
runs 35 tics per second. One content frame is three tics: about 12 frames per second.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from glassworld.engine.actions.track import Action
from glassworld.errors import MissingExtraError
from glassworld.training.sources.maze_policies import POLICIES, InputSampler
from glassworld.training.sources.maze_textures import repaint
from glassworld.training.sources.source import (
    LATENT_FRAMES_PER_SECOND,
    ActionPair,
    Frame,
    HeldInput,
    Keyboard,
    Mouse,
    Source,
    WorldFormat,
)

HEIGHT, WIDTH = 64, 96
TICS_PER_FRAME = 3
CENTER, STD = (620.0, -175.0), 230.0
"""Mean and standard deviation of the positions that the episodes visit, in map units."""
START_CLEARANCE = 100
"""Smallest distance to the wall ahead in a start image, in map units."""
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


STILL = Action((0.0, 0.0, 0.0, 0.0), (0.0, 0.0))
FORWARD = Action((1.0, 0.0, 0.0, 0.0), (0.0, 0.0))
BACK = Action((0.0, 1.0, 0.0, 0.0), (0.0, 0.0))
LEFT = Action((0.0, 0.0, 1.0, 0.0), (0.0, 0.0))
RIGHT = Action((0.0, 0.0, 0.0, 1.0), (0.0, 0.0))
TURN_LEFT = Action((0.0, 0.0, 0.0, 0.0), (0.0, -0.1))
TURN_RIGHT = Action((0.0, 0.0, 0.0, 0.0), (0.0, 0.1))
CURVE_LEFT = Action((1.0, 0.0, 0.0, 0.0), (0.0, -0.1))
CURVE_RIGHT = Action((1.0, 0.0, 0.0, 0.0), (0.0, 0.1))

OPPOSITE = {
    STILL: FORWARD,
    FORWARD: BACK,
    BACK: FORWARD,
    LEFT: RIGHT,
    RIGHT: LEFT,
    TURN_LEFT: TURN_RIGHT,
    TURN_RIGHT: TURN_LEFT,
    CURVE_LEFT: CURVE_RIGHT,
    CURVE_RIGHT: CURVE_LEFT,
}
EVALUATION_SHARES = (1, 3, 1, 1, 1, 2, 2, 2, 2)
"""How often the evaluation holds each of them."""


class VizdoomMaze(Source):
    """A player in the maze. The same seed and actions give the same frames.

    W S A D walk. A mouse value of 0.1 turns by 5 degrees per frame, to the right if positive; its
    vertical part has no effect. Creating one changes the working directory of the process for a
    moment (see `_start_game`).

    Parameters
    ----------
    seed
        Determines the position and the heading of every reset.

    Raises
    ------
    MissingExtraError
        ViZDoom is not installed.
    """

    format = WorldFormat("universal", HEIGHT, WIDTH)

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._game = _start_game()

    def reset(self, seed: int | None = None) -> Frame:
        """Start at a random position, at rest (see `Source.reset`)."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._game.set_seed(int(self._rng.integers(2**31)))
        self._game.new_episode()
        self._walk_to_random_position()
        return self.start_blocks(self._render())

    def advance(self, keyboard: Keyboard, mouse: Mouse | None = None) -> Frame:
        """Hold an action for one content frame (see `Source.advance`)."""
        self.check_keyboard(keyboard)
        forward, back, left, right = keyboard
        turn = float(np.clip(mouse[1] if mouse else 0.0, -MOUSE_LIMIT, MOUSE_LIMIT))
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
    def location(self) -> tuple[float, float, float]:
        """Position x, y in map units and heading in degrees, counterclockwise."""
        x, y, angle = self._game.get_state().game_variables
        return float(x), float(y), float(angle)

    @property
    def pose(self) -> tuple[float, ...]:
        """Position x, y with about unit standard deviation, cosine and sine of the heading."""
        x, y, angle = self.location
        heading = np.deg2rad(angle)
        return (
            (x - CENTER[0]) / STD,
            (y - CENTER[1]) / STD,
            float(np.cos(heading)),
            float(np.sin(heading)),
        )

    @property
    def clearance(self) -> float:
        """Approximate distance to the nearest wall ahead, in map units (a room measures 200)."""
        ahead = self._game.get_state().depth_buffer[_AHEAD]
        return float(ahead.min()) * _UNITS_PER_DEPTH

    @property
    def is_good_start(self) -> bool:
        """Whether there is some room ahead."""
        return self.clearance >= START_CLEARANCE

    def policy(self, rng: np.random.Generator) -> Iterator[HeldInput]:
        """Yield the inputs of one of the `POLICIES`, chosen by its share."""
        shares = [share for _, share in POLICIES.values()]
        name = str(rng.choice(list(POLICIES), p=shares))
        policy = POLICIES[name][0](InputSampler(rng, whole_seconds=bool(rng.random() < 0.5)))
        held = next(policy)
        while True:
            yield held
            held = policy.send(self.clearance)

    def evaluation_actions(self, rng: np.random.Generator) -> Iterator[Action]:
        """Yield random actions, mostly walking and turning, each for a second."""
        choices, shares = list(OPPOSITE), np.array(EVALUATION_SHARES, np.float64)
        blocks = LATENT_FRAMES_PER_SECOND // self.format.frames_per_block
        while True:
            action = choices[int(rng.choice(len(choices), p=shares / shares.sum()))]
            yield from [action] * blocks

    def mismatched(self, action: Action) -> Action:
        """Return the opposite action; standing still becomes walking."""
        return OPPOSITE[action]

    @property
    def action_pairs(self) -> Mapping[str, ActionPair]:
        """Opposite actions, each after a second of standing still."""
        return {
            "turn": ActionPair(TURN_LEFT, TURN_RIGHT, STILL, turns=True),
            "forward_back": ActionPair(FORWARD, BACK, STILL),
            "strafe": ActionPair(LEFT, RIGHT, STILL),
            "still_moving": ActionPair(STILL, FORWARD, STILL),
        }

    def close(self) -> None:
        """Stop the Doom engine."""
        self._game.close()

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
