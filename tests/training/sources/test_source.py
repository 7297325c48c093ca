"""The defaults of a source: what one gets by implementing `reset` and `advance` alone."""

import numpy as np
import pytest

from glassworld.engine.actions.track import Action
from glassworld.training.sources.source import Frame, Keyboard, Mouse, Source, WorldFormat


class _Counter(Source):
    """Shows how often it advanced, and remembers what was held."""

    def __init__(self, mode: str, frames_per_block: int) -> None:
        self.format = WorldFormat(mode, 16, 16, frames_per_block)
        self.held: list[tuple[Keyboard, Mouse | None]] = []

    def reset(self, seed: int | None = None) -> Frame:
        self.held = []
        return self.start_blocks(np.zeros((16, 16, 3), np.uint8))

    def advance(self, keyboard: Keyboard, mouse: Mouse | None = None) -> Frame:
        self.check_keyboard(keyboard)
        self.held.append((keyboard, mouse))
        return np.full((16, 16, 3), len(self.held), np.uint8)


@pytest.mark.parametrize(("frames_per_block", "first", "later"), [(1, 1, 4), (3, 9, 12)])
def test_step_returns_the_frames_of_a_block(frames_per_block: int, first: int, later: int) -> None:
    source = _Counter("gta_drive", frames_per_block)
    go = source.format.space.press("w")
    blocks = [source.step(go) for _ in range(3)]
    assert [len(block) for block in blocks] == [first, later, later]
    values = np.concatenate(blocks)[:, 0, 0, 0]
    assert values.tolist() == list(range(first + 2 * later))
    assert source.held == [((1.0, 0.0), (0.0, 0.0))] * (first - 1 + 2 * later)


@pytest.mark.parametrize("mode", ["universal", "gta_drive", "templerun"])
def test_policy_holds_actions_of_the_mode(mode: str) -> None:
    source = _Counter(mode, 1)
    policy = source.policy(np.random.default_rng(0))
    held = [next(policy) for _ in range(50)]
    space = source.format.space
    for item in held:
        source.advance(item.keyboard, item.mouse)
        assert 1 <= item.length <= 6
        assert (item.mouse is not None) == space.has_mouse
        assert sum(item.keyboard) == 1 or not space.idle
    assert len({item.keyboard for item in held}) >= len(space.keyboard)


@pytest.mark.parametrize("mode", ["universal", "gta_drive", "templerun"])
def test_mismatched_action_differs_and_belongs_to_the_mode(mode: str) -> None:
    source = _Counter(mode, 1)
    space = source.format.space
    for control in space.controls:
        action = space.press(control.name)
        other = source.mismatched(action)
        assert other != action
        space.fill(other, 1)
        if space.idle:
            assert sum(other.keyboard) == 1


def test_action_pairs_compare_each_control_with_no_input() -> None:
    pairs = _Counter("gta_drive", 1).action_pairs
    assert set(pairs) == {"forward", "back", "left", "right"}
    assert pairs["left"].one == Action((0.0, 0.0), (0.0, -0.1))
    assert pairs["left"].other == Action((0.0, 0.0), (0.0, 0.0))
