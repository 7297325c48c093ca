"""A world and its sessions: what an embedding program holds.

A `World` is weights and a spec, never changed once built and shared by any number of sessions. A
`Session` is one walk through it, block by block.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from glassworld.engine.actions.files import load_actions
from glassworld.engine.actions.track import Action, ActionTrack, benchmark_actions
from glassworld.engine.checkpoint.latents import read_latents
from glassworld.engine.checkpoint.save import save_world
from glassworld.engine.conditioning import ActionHistory, ImageLatents
from glassworld.engine.media.images import load_picture
from glassworld.engine.overlap import make_blocks
from glassworld.engine.pipeline import OnFrames, Pipeline
from glassworld.engine.rollout import BlockReport, Frames, Rollout, collect
from glassworld.engine.run_config import describe
from glassworld.engine.sampling import NoiseSource
from glassworld.engine.state import SessionState
from glassworld.engine.variants.registry import action_space
from glassworld.errors import InputError
from glassworld.models.transformer.dit import DiT
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.models.vae.streaming import StreamingDecoder
from glassworld.models.vision import VisionTower
from glassworld.profiling import registry as tags
from glassworld.profiling.metadata import describe_run
from glassworld.profiling.tags import tag
from glassworld.specs import WorldSpec

Picture = str | Path | Image.Image
NoiseMode = Literal["run", "blocks"]


@dataclass(frozen=True)
class Networks:
    """The weights of a world."""

    dit: DiT
    encoder: VAEEncoder
    decoder: StreamingDecoder
    vision: VisionTower


class World:
    """Weights and spec; `load_world` makes one."""

    def __init__(
        self,
        spec: WorldSpec,
        networks: Networks,
        name: str,
        note: str = "",
        decoding: torch.dtype | None = None,
    ) -> None:
        """`note`: what a person should know about how the world was loaded. `decoding`: what to
        decode in, by a copy of the decoder if that has another type; its own by default."""
        self.spec, self.name, self.networks, self.note = spec, name, networks, note
        self.space = action_space(spec.mode)
        decoder = networks.decoder
        if decoding not in (None, next(decoder.parameters()).dtype):
            decoder = copy.deepcopy(decoder).to(decoding)
        self.pipeline = Pipeline(spec, networks.dit, networks.encoder, decoder)
        self.device, self.dtype = self.pipeline.device, self.pipeline.dtype

    def start(
        self, image: Picture, seed: int | None = None, num_latent_frames: int | None = None
    ) -> Session:
        """Begin a session at a picture (a path or a PIL image).

        `seed`: the world's own by default. With `num_latent_frames` the session ends there and
        draws its noise as `generate` does; without, it can go on forever.
        """
        describe_run(**describe(self, seed, num_latent_frames))
        with tag(tags.DATA_PREPARATION):
            prepared = self._prepare(image, seed, num_latent_frames, lambda: None)
        return Session(self, self._initialise(prepared))

    def generate(
        self,
        image: Picture,
        num_latent_frames: int = 150,
        seed: int | None = None,
        actions: ActionTrack | str | Path | None = None,
        initial_latents: Tensor | str | Path | None = None,
        on_block: Callable[[BlockReport], bool | None] | None = None,
        noise: NoiseMode = "run",
    ) -> Rollout:
        """Make `num_latent_frames` new latent frames, `1 + 4 (n - 1)` pixel frames.

        `actions`: a track or a file with one row per pixel frame, the benchmark's random ones by
        default. `initial_latents` `[1, c, T, h, w]`: the video to go on from; the picture and the
        actions then cover it too. `on_block` hears of each block and ends the run after it by
        returning False. `noise`: "run" draws all of it first, as the reference does; "blocks"
        draws it block by block as an open-ended session does, to replay one to the same frames.
        Raises an `InputError` before the first block if anything does not fit.
        """
        began = time.perf_counter()
        modes = get_args(NoiseMode)
        if noise not in modes:
            raise InputError(f"noise {noise!r:.40}: must be one of {', '.join(modes)}")
        blocks = self._blocks(num_latent_frames)
        initial = read_latents(initial_latents, self.spec)
        given = 0 if initial is None else initial.shape[2]
        rows = self.spec.pixel_frames(given + num_latent_frames)
        seed = self.spec.seed if seed is None else seed
        describe_run(**describe(self, seed, num_latent_frames))
        with tag(tags.DATA_PREPARATION):
            drawn = num_latent_frames if noise == "run" else None
            prepared = self._prepare(image, seed, drawn, lambda: self._actions(actions, rows, seed))
        with tag(tags.PIPELINE_INFERENCE):
            session = Session(self, self._initialise(prepared))
            if initial is not None:
                self.pipeline.prefill(initial, session.state)
            turns = make_blocks(self.pipeline, session.state, range(blocks), ahead=noise == "run")
            frames, latents, timings = collect(turns, blocks, began, on_block)
        clip = torch.cat(latents if initial is None else [initial.float().cpu(), *latents], 2)
        made = self.spec.pixel_frames(clip.shape[2])
        assert prepared.track is not None
        return Rollout(
            frames=np.concatenate(frames),
            latents=clip,
            actions=prepared.track.rows(made - sum(map(len, frames)), made),
            timings=timings,
        )

    def save(self, folder: str | Path) -> None:
        """Write the world into a folder that `load_world` reads, to the same frames.

        The folder has the released layout and appears whole or not at all; over a saved world,
        its files are replaced. Raises `InputError` for a folder of other files and for weights
        that acceleration changed.
        """
        save_world(Path(folder), self.spec, self.networks, self.note)

    def _blocks(self, num_latent_frames: int) -> int:
        """How many blocks a run of so many latent frames has."""
        step = self.spec.frames_per_block
        if num_latent_frames <= 0 or num_latent_frames % step:
            raise InputError(
                f"num_output_frames {num_latent_frames}: must be a positive multiple of the "
                f"{step} latent frames of a block"
            )
        return num_latent_frames // step

    def _actions(
        self, actions: ActionTrack | str | Path | None, rows: int, seed: int
    ) -> ActionTrack:
        if actions is None:
            return benchmark_actions(self.space, rows, seed)
        track = actions if isinstance(actions, ActionTrack) else load_actions(actions, self.space)
        return track.fitted(self.space, rows)

    @torch.inference_mode()
    def _prepare(
        self,
        image: Picture,
        seed: int | None,
        frames: int | None,
        set_up_actions: Callable[[], ActionTrack | None],
    ) -> Prepared:
        """Everything the first block needs but the caches, stage by stage."""
        spec = self.spec
        with tag(tags.IMAGE_LOADING):
            pixels = torch.from_numpy(load_picture(image, spec.height, spec.width))
            encoder_weight = self.networks.encoder.conv1.weight
            picture = pixels[None, :, None].to(encoder_weight)
        with tag(tags.VAE_ENCODE):
            latents = ImageLatents(picture, FeatureCache())
            latents.encode(spec.frames_per_block, self.networks.encoder)
        with tag(tags.CONDITIONS):
            condition = latents.condition(0, spec.frames_per_block).to(self.device, self.dtype)
        with tag(tags.VISUAL_CONTEXT):
            visual = self.networks.vision(pixels[None].to(self.device)).to(self.dtype)
        with tag(tags.NOISE):
            shape = (spec.vae.latent_channels, *spec.latent_size)
            noise = NoiseSource(spec.seed if seed is None else seed, shape, frames)
        with tag(tags.ACTIONS):
            track = set_up_actions()
            history = ActionHistory.of(track, self.space)
        return Prepared(latents, condition, visual, noise, track, history)

    @torch.inference_mode()
    def _initialise(self, prepared: Prepared) -> SessionState:
        with tag(tags.CACHE_INIT):
            dit = self.networks.dit
            return SessionState(
                caches=dit.empty_caches(1, self.spec.tokens_per_frame),
                context=dit.context_kv(prepared.visual),
                decoder=FeatureCache(),
                image=prepared.image,
                actions=prepared.actions,
                noise=prepared.noise,
                condition=prepared.condition,
            )


@dataclass(frozen=True)
class Prepared:
    """The result of data preparation."""

    image: ImageLatents
    condition: Tensor  # of the first block
    visual: Tensor
    noise: NoiseSource
    track: ActionTrack | None  # all rows of a run whose actions are known
    actions: ActionHistory


class Session:
    """One walk through a world. Independent of every other session."""

    def __init__(self, world: World, state: SessionState) -> None:
        self.world, self.state = world, state

    @property
    def next_frames(self) -> int:
        """Pixel frames that the next block will have: fewer in the first."""
        spec, state = self.world.spec, self.state
        made = state.start - state.prefilled
        return spec.pixel_frames(made + spec.frames_per_block) - spec.pixel_frames(made)

    def step(self, action: Action, on_frames: OnFrames | None = None) -> Frames:
        """The next block's frames `[n, H, W, 3]`, made while `action` is held.

        `on_frames` is given each latent frame's pictures as soon as they are decoded: `wait()`
        returns a tensor `[1, 1 or 4, H, W, 3]`. On a GPU do so in another thread. It must not
        raise: go back to a saved state if it did.
        """
        self.hold(action)
        return self.advance(on_frames)[0]

    def hold(self, action: Action) -> None:
        """Have `action` held while the next block is made."""
        held = self.world.space.fill(action, self.next_frames)
        keep = self.world.spec.dit.action.rows
        self.state.actions.append(held.keyboard, held.mouse, keep)

    def advance(self, on_frames: OnFrames | None = None) -> tuple[Frames, Tensor]:
        """The next block under the actions already in the state: its frames and latents."""
        made = self.world.pipeline.run_block(self.state, on_frames)
        return made.frames()[0].numpy(), made.latents

    def run(self, actions: Iterable[Action]) -> Iterator[Frames]:
        """The frames of one block for each of the actions, all known beforehand.

        More frames a second than by `step` where the next block can be made while one is decoded;
        the session may then be a block ahead of what was yielded. An action that does not fit
        raises its `InputError` after the frames of those before it.
        """
        refused: list[InputError] = []

        def turns() -> Iterator[None]:
            for action in actions:
                try:
                    self.hold(action)
                except InputError as error:
                    refused.append(error)
                    return
                yield

        for made in make_blocks(self.world.pipeline, self.state, turns()):
            yield made.frames()[0].numpy()
        if refused:
            raise refused[0]

    def save(self) -> SessionState:
        """A copy of the state, to come back to with `restore`."""
        return self.state.copy()

    def restore(self, state: SessionState) -> None:
        """Go back to a saved state; it stays good for further use."""
        self.state = state.copy()
