"""Keys and mouse drawn onto frames."""

from __future__ import annotations

import numpy as np
import pytest

from glassworld.engine.actions.files import parse_segments
from glassworld.engine.actions.track import benchmark_actions
from glassworld.engine.media.overlay import ACCENT, draw_keys
from glassworld.engine.variants.registry import ACTION_SPACES, action_space
from glassworld.errors import ActionError


def _accented(frame: np.ndarray) -> int:
    return int((np.abs(frame.astype(int) - ACCENT).max(axis=-1) < 40).sum())


@pytest.mark.parametrize(
    ("height", "width"), [(64, 96), (176, 320), (352, 640), (33, 47), (16, 16)]
)
@pytest.mark.parametrize("mode", ACTION_SPACES)
def test_draw_keys_works_at_every_size(mode: str, height: int, width: int) -> None:
    space = action_space(mode)
    frames = np.full((2, height, width, 3), 90, np.uint8)
    drawn = draw_keys(frames, parse_segments("q w", space), space)
    assert drawn.shape == frames.shape
    assert (frames == 90).all(), "the frames given stay as they are"
    assert _accented(drawn[0]) == 0
    assert _accented(drawn[1]) > 0


def test_draw_keys_leans_the_dial_where_the_camera_turns() -> None:
    space = action_space("universal")
    frames = np.full((4, 352, 640, 3), 90, np.uint8)
    drawn = draw_keys(frames, parse_segments("j l i k", space), space)
    lit = [
        np.argwhere(np.abs(f.astype(int) - ACCENT).max(axis=-1) < 40).mean(axis=0) for f in drawn
    ]
    (_, left), (_, right), (up, _), (down, _) = lit
    assert left + 10 < right
    assert up + 10 < down


def test_draw_keys_shows_each_frame_its_own_action() -> None:
    space = action_space("gta_drive")
    track = benchmark_actions(space, 40, 3)
    frames = np.full((40, 64, 96, 3), 90, np.uint8)
    together = draw_keys(frames, track, space)
    for index in (0, 1, 13, 39):
        alone = draw_keys(frames[index : index + 1], track.rows(index, index + 1), space)
        np.testing.assert_array_equal(together[index], alone[0])


def test_draw_keys_refuses_too_few_actions() -> None:
    space = action_space("universal")
    with pytest.raises(ActionError, match="needs 3"):
        draw_keys(np.zeros((3, 32, 32, 3), np.uint8), parse_segments("w*2", space), space)
