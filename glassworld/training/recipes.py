"""Sizes of a whole training, from play to a world."""

from dataclasses import dataclass, field
from pathlib import Path

from glassworld.errors import InputError
from glassworld.training.objectives.adversarial import DiscriminatorRecipe
from glassworld.training.objectives.transformer import DiTRecipe
from glassworld.training.objectives.vae import VAERecipe


@dataclass(frozen=True)
class Preset:
    """How much to collect and how long to train what."""

    shards: int
    episodes: int
    frames: int = 121
    vae: VAERecipe = field(default_factory=VAERecipe)
    dit: DiTRecipe = field(default_factory=DiTRecipe)


PRESETS = {
    "smoke": Preset(
        shards=1,
        episodes=4,
        vae=VAERecipe(
            width=8,
            picture_steps=20,
            pictures=4,
            clip_steps=10,
            clips=1,
            long_steps=2,
            decoder_steps=5,
        ),
        dit=DiTRecipe(
            dim=32,
            ffn_dim=64,
            layers=2,
            heads=2,
            action_layers=1,
            vision_width=32,
            vision_layers=1,
            steps=10,
            batch=2,
            openings=2,
            critic=DiscriminatorRecipe(steps=4, every=1, alone=2, width=16),
        ),
    ),
    "laptop": Preset(shards=16, episodes=64),
}
"""`smoke` walks through every stage in a minute or two and learns nothing; `laptop` is
meant to make a world overnight; the embedded one's card says how far it was taken."""


def preset(name: str) -> Preset:
    """Look a preset up.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PRESETS:
        raise InputError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass(frozen=True)
class Folders:
    """Where a training keeps what."""

    root: Path

    @property
    def play(self) -> Path:
        return self.root / "play" / "train"

    @property
    def held_out(self) -> Path:
        return self.root / "play" / "held-out"

    @property
    def latents(self) -> Path:
        return self.root / "latents"

    @property
    def vae(self) -> Path:
        return self.root / "vae"

    @property
    def decoder(self) -> Path:
        return self.vae / "decoder"

    @property
    def transformer(self) -> Path:
        return self.root / "transformer"

    @property
    def world(self) -> Path:
        return self.root / "world"
