"""Segments at rest."""

from glassworld.training.data.segments import draw_at_rest
from glassworld.training.trainer import generator
from tests.support.small import latent_episodes, latent_episodes_with_pause


def test_draw_at_rest_repeats_a_settled_view_without_input() -> None:
    episodes = latent_episodes_with_pause()
    segment = draw_at_rest(episodes, 3, 20, generator(0, 0))
    assert segment is not None
    assert segment.latents.shape == (3, 16, 60, 8, 12)
    assert (segment.latents == segment.latents[:, :, :1]).all()
    settled = episodes.latents[:, 7:10].float().flatten(0, 1)
    for view in segment.latents[:, :, 0]:
        assert (view == settled).flatten(1).all(1).any()
    assert not segment.windows.keyboard.any()


def test_draw_at_rest_without_a_pause_returns_none() -> None:
    assert draw_at_rest(latent_episodes(), 3, 20, generator(0, 0)) is None
