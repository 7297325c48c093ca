"""Presets: the sizes and lengths of a whole training, from episodes to an exported world."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from glassworld.engine.checkpoint.locate import TRAINED_WORLD
from glassworld.errors import InputError
from glassworld.training.objectives.adversarial import DiscriminatorRecipe
from glassworld.training.objectives.transformer import DiTRecipe
from glassworld.training.objectives.vae import VAERecipe
from glassworld.training.sources.source import WorldFormat


@dataclass(frozen=True)
class TrainingRecipe:
    """How much to collect and how to train.

    Parameters
    ----------
    shards
        Number of training shards.
    episodes
        Episodes per shard.
    frames
        Content frames per episode.
    source
        Name of the source to learn from.
    recordings
        Folder of recorded videos to learn from instead.
    mode
        Mode of the recordings. None takes the one that their actions fit.
    vae
        How to train the VAE.
    dit
        How to train the transformer.
    lora
        Rank of the trained updates of a world's transformer, whose VAE and image tower then stay as
        they are. 0 trains all weights.
    preset
        Name of the preset that it comes from.
    """

    shards: int
    episodes: int
    frames: int = 121
    source: str = "maze"
    recordings: Path | None = None
    mode: str | None = None
    vae: VAERecipe = field(default_factory=VAERecipe)
    dit: DiTRecipe = field(default_factory=DiTRecipe)
    lora: int = 0
    preset: str = ""

    def fitted(self, format: WorldFormat, rests: bool) -> "TrainingRecipe":
        """Return this recipe for worlds of a format, by a source that comes to rest or does not.

        Blocks of one latent frame take fewer denoising steps, so that a CPU generates them in real
        time. Where nothing rests, nothing is trained at rest.
        """
        dit = replace(self.dit, format=format)
        if format.frames_per_block == 1:
            dit = replace(dit, denoising_steps=SHORT_SAMPLER)
        if not rests:
            dit = replace(
                dit,
                history_mix=replace(dit.history_mix, at_rest=0.0),
                discriminator=replace(dit.discriminator, rest_share=0.0),
            )
        return replace(self, dit=dit)


SHORT_SAMPLER = (1000, 666, 333)
"""Timesteps of the sampler for blocks of one latent frame."""

SHARDS, EPISODES = 256, 4
"""Shards of a whole collection, and their episodes: small, so that an interruption loses little
where a simulator is slow. 2.3 GB in all at 64x96 pixels."""

PRESETS = {
    "smoke": TrainingRecipe(
        preset="smoke",
        shards=1,
        episodes=4,
        vae=VAERecipe(
            width=8,
            image_steps=20,
            image_batch_size=4,
            clip_steps=10,
            clip_batch_size=1,
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
            batch_size=2,
            first_blocks=2,
            discriminator=DiscriminatorRecipe(steps=4, every=1, warmup_steps=2, width=16),
        ),
    ),
    "compact": TrainingRecipe(
        preset="compact",
        shards=SHARDS,
        episodes=EPISODES,
        vae=VAERecipe(image_steps=1500, clip_steps=3000, long_steps=1500, decoder_steps=1000),
        dit=DiTRecipe(
            layers=6,
            ffn_dim=768,
            window=6,
            steps=7000,
            batch_size=6,
            first_blocks=8,
            discriminator=DiscriminatorRecipe(steps=1800),
        ),
    ),
    "laptop": TrainingRecipe(preset="laptop", shards=SHARDS, episodes=EPISODES),
}
"""`smoke` runs every stage in a minute or two and learns nothing. The others train a world.

`laptop` is meant to run overnight on a CPU with AVX-512, `compact` on one without: its transformer
is smaller and sees two seconds instead of three, for blocks of one latent frame. The card of an
embedded world tells how it was trained.
"""


def preset_recipe(name: str) -> TrainingRecipe:
    """Return the recipe of a preset.

    Raises
    ------
    InputError
        There is no preset of that name.
    """
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass(frozen=True)
class RunFolders:
    """The folders of a training run."""

    root: Path

    @property
    def episodes(self) -> Path:
        """Collected training episodes."""
        return self.root / "play" / "train"

    @property
    def held_out(self) -> Path:
        """Collected held-out episodes."""
        return self.root / "play" / "held-out"

    @property
    def latents(self) -> Path:
        """Encoded training episodes."""
        return self.root / "latents"

    @property
    def vae(self) -> Path:
        """Training of encoder and decoder together, and the finished VAE."""
        return self.root / "vae"

    @property
    def decoder(self) -> Path:
        """Training of the decoder alone."""
        return self.vae / "decoder"

    @property
    def transformer(self) -> Path:
        """Training of the transformer."""
        return self.root / "transformer"

    @property
    def world(self) -> Path:
        """The exported world."""
        return self.root / TRAINED_WORLD
