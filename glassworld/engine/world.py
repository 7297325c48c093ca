"""A world: weights and a spec, shared by any number of sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, get_args

import numpy as np
import torch

from glassworld.engine.actions.files import ActionSource, load_actions
from glassworld.engine.actions.track import Action, ActionSpace, ActionTrack, benchmark_actions
from glassworld.engine.arguments import checked_length, checked_seed
from glassworld.engine.checkpoint.save import save_world
from glassworld.engine.media.images import ImageSource
from glassworld.engine.media.latents import LatentsSource, read_latents
from glassworld.engine.networks import Networks
from glassworld.engine.overlap import stream_blocks
from glassworld.engine.pipeline import ExecutionPlan, Pipeline
from glassworld.engine.rollout import BlockReport, Rollout, collect_blocks
from glassworld.engine.run_config import describe
from glassworld.engine.sampling import NoiseMode
from glassworld.engine.session import Session, open_session, prepare_inputs
from glassworld.engine.variants.registry import action_space
from glassworld.errors import InputError
from glassworld.profiling import registry as tags
from glassworld.profiling.capture import describe_run
from glassworld.profiling.tags import tag
from glassworld.specs import WorldSpec


@dataclass(frozen=True, eq=False, repr=False)
class World:
    """Networks, a spec and how they run: never changed. `load_world` returns one.

    `note`: what the user should know about how the world was loaded.
    """

    spec: WorldSpec
    networks: Networks
    name: str
    note: str = ""
    plan: ExecutionPlan = field(default_factory=ExecutionPlan)
    space: ActionSpace = field(init=False)
    pipeline: Pipeline = field(init=False)

    def __post_init__(self) -> None:
        """Derive the action space and the pipeline."""
        object.__setattr__(self, "space", action_space(self.spec.mode))
        object.__setattr__(self, "pipeline", Pipeline(self.spec, self.networks, self.plan))

    def __repr__(self) -> str:
        return f"World({self.name!r}, {self.spec.height}x{self.spec.width}, {self.device})"

    def __copy__(self) -> World:
        return self  # nothing in it changes

    def __deepcopy__(self, _: object) -> World:
        return self

    def __reduce__(self) -> NoReturn:
        raise InputError("World: cannot be pickled; call load_world in each process, or fork")

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.networks.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the transformer computes in."""
        return self.networks.dtype

    def start(
        self, image: ImageSource, seed: int | None = None, num_latent_frames: int | None = None
    ) -> Session:
        """Start a session at an image, in any form of `ImageSource`.

        `seed`: the world's own by default. With `num_latent_frames` the session ends there and
        draws its noise as `generate` does; without, it can go on forever.

        The same seed gives the same noise in the same order of drawing: `start(seed=s)` equals
        `generate(seed=s, noise="blocks")`, and `start(seed=s, num_latent_frames=n)` equals
        `generate(num_latent_frames=n, seed=s)`, under the same actions.
        """
        seed = checked_seed(seed, self.spec)
        if num_latent_frames is not None:
            num_latent_frames = checked_length(num_latent_frames, self.spec)
        config = describe(self, seed, num_latent_frames)
        describe_run(config)
        with tag(tags.DATA_PREPARATION):
            inputs = prepare_inputs(self, image, seed, num_latent_frames, lambda: None)
        return open_session(self, inputs, config)

    def generate(
        self,
        image: ImageSource,
        num_latent_frames: int = 150,
        seed: int | None = None,
        actions: ActionSource | None = None,
        initial_latents: LatentsSource | None = None,
        on_block: Callable[[BlockReport], bool | None] | None = None,
        noise: NoiseMode = "run",
    ) -> Rollout:
        """Generate `num_latent_frames` new latent frames, `1 + 4 (n - 1)` pixel frames.

        `actions`: one row per pixel frame, in any form of `ActionSource`; the benchmark's random
        ones by default. `initial_latents` `[1, c, T, h, w]`: the video to go on from, as a tensor,
        an array or a file; the image and the actions then cover it too. `on_block` gets a report
        of each block and ends the run after it by returning False. `noise`: "run" draws all of it
        first, as the reference does; "blocks" draws it block by block as an open-ended session
        does: with it, and the same seed and actions, the frames are those of `start(image, seed)`.
        Raises an `InputError` before the first block if anything does not fit.
        """
        began = time.perf_counter()
        _check_noise(noise)
        num_latent_frames = checked_length(num_latent_frames, self.spec)
        blocks = num_latent_frames // self.spec.frames_per_block
        initial = read_latents(initial_latents, self.spec)
        total = num_latent_frames + (0 if initial is None else initial.shape[2])
        rows = self.spec.pixel_frames(total)
        seed = checked_seed(seed, self.spec)
        config = describe(self, seed, num_latent_frames)
        describe_run(config)
        with tag(tags.DATA_PREPARATION):
            drawn_first = num_latent_frames if noise == "run" else None
            inputs = prepare_inputs(
                self, image, seed, drawn_first, lambda: self._actions(actions, rows, seed)
            )
        with tag(tags.PIPELINE_INFERENCE):
            session = open_session(self, inputs, config)
            if initial is not None:
                self.pipeline.prefill(initial, session.state)
            outputs = stream_blocks(
                self.pipeline, session.state, range(blocks), ahead=noise == "run"
            )
            frames, latents, timings = collect_blocks(outputs, blocks, began, on_block)
        clip = torch.cat(latents if initial is None else [initial.float().cpu(), *latents], 2)
        end = self.spec.pixel_frames(clip.shape[2])
        assert inputs.track is not None
        return Rollout(
            frames=np.concatenate(frames),
            latents=clip,
            actions=inputs.track.rows(end - sum(map(len, frames)), end),
            timings=timings,
        )

    def save(self, folder: str | Path) -> None:
        """Write the world into a folder that `load_world` reads, to the same frames.

        The folder has the released layout and appears whole or not at all; over a saved world,
        its files are replaced. Raises `InputError` for a folder of other files and for weights
        that acceleration changed.
        """
        save_world(Path(folder), self.spec, self.networks, self.note)

    def _actions(self, actions: ActionSource | None, rows: int, seed: int) -> ActionTrack:
        """Return `rows` rows of the given actions, or of the benchmark's random ones."""
        if actions is None:
            return benchmark_actions(self.space, rows, seed)
        if isinstance(actions, Action):
            return self.space.fill(actions, rows)
        return load_actions(actions, self.space).fitted(self.space, rows)


def _check_noise(noise: str) -> None:
    """Raise `InputError` for an unknown noise mode."""
    modes = get_args(NoiseMode)
    if noise not in modes:
        raise InputError(f"noise {noise!r:.40}: must be one of {', '.join(modes)}")
