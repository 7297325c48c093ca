"""A world: weights and a spec, shared by any number of sessions."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args

import torch
from torch import Tensor

from glassworld.engine.actions.files import ActionSource, load_actions
from glassworld.engine.actions.track import Action, ActionSpace, ActionTrack, benchmark_actions
from glassworld.engine.arguments import checked_length, checked_seed
from glassworld.engine.checkpoint.save import save_world
from glassworld.engine.light_session import rebuild_session
from glassworld.engine.media.html import card_html
from glassworld.engine.media.images import ImageSource
from glassworld.engine.media.latents import LatentsSource, read_latents
from glassworld.engine.networks import Networks
from glassworld.engine.overlap import stream_blocks
from glassworld.engine.pipeline import ExecutionPlan, Pipeline
from glassworld.engine.rollout import (
    BlockReport,
    Rollout,
    collect_blocks,
    report_blocks,
    until_stopped,
)
from glassworld.engine.run_config import describe
from glassworld.engine.runtime.threads import using_free_cores
from glassworld.engine.sampling import NoiseMode
from glassworld.engine.session import PreparedInputs, Session, open_session, prepare_inputs
from glassworld.engine.session_file import SessionReader, exact_state
from glassworld.engine.variants.registry import action_space
from glassworld.errors import InputError
from glassworld.profiling import registry as tags
from glassworld.profiling.capture import describe_run
from glassworld.profiling.tags import tag
from glassworld.specs import WorldSpec


@dataclass(frozen=True, eq=False, repr=False)
class World:
    """Networks, a spec and how they run: never changed. `load_world` returns one.

    `note`: what the user should know about how the world was loaded. `notice` is the part of it
    that the world's folder says, and `source` what it learned from: `save` keeps both.
    """

    spec: WorldSpec
    networks: Networks
    name: str
    note: str = ""
    plan: ExecutionPlan = field(default_factory=ExecutionPlan)
    notice: str = ""
    source: str = ""
    space: ActionSpace = field(init=False)
    pipeline: Pipeline = field(init=False)

    def __post_init__(self) -> None:
        """Derive the action space and the pipeline."""
        object.__setattr__(self, "space", action_space(self.spec.mode))
        object.__setattr__(self, "pipeline", Pipeline(self.spec, self.networks, self.plan))

    def __repr__(self) -> str:
        return f"World({self.name!r}, {self.spec.height}x{self.spec.width}, {self.device})"

    def _repr_html_(self) -> str:
        """Return a card, for a notebook."""
        spec = self.spec
        mouse = "mouse" if self.space.has_mouse else "no mouse"
        facts = {
            "frames": f"{spec.height}x{spec.width}, {spec.frame_rate} per second",
            "mode": f"{spec.mode}: {', '.join(self.space.keyboard)}; {mouse}",
            "block": f"{spec.frames_per_block} latent frames",
            "denoising steps": ", ".join(map(str, spec.denoising_steps)),
            "window": f"{spec.dit.window} latent frames",
            "transformer": f"{spec.dit.num_layers} layers of width {spec.dit.dim}",
            "runs on": f"{self.device}, {str(self.dtype).removeprefix('torch.')}",
        }
        return card_html(self.name, facts, self.note)

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
        describe_run(config, self.device)
        with tag(tags.DATA_PREPARATION), using_free_cores(self.device):
            inputs = prepare_inputs(self, image, seed, num_latent_frames, lambda: None)
        return open_session(self, inputs, config)

    def resume(self, path: str | Path) -> Session:
        """Go on with a session that `Session.save` wrote to a file.

        With the same bits, unless the file is light: then the caches are rebuilt, which takes
        as long as a few blocks. Raises `InputError` for a file that is damaged or of another world.
        """
        file = SessionReader(Path(path), self)
        light = file.header.light
        session = rebuild_session(self, file) if light else Session(self, exact_state(file))
        describe_run(session.state.config, self.device)
        return session

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

        Holds all frames in memory; `stream` does not. `actions`: one row per pixel frame, in any
        form of `ActionSource`; the benchmark's random ones by default. `initial_latents`
        `[1, c, T, h, w]`: the video to go on from, as a tensor, an array or a file; the image and
        the actions then cover it too. `on_block` gets a report of each block and ends the run
        after it by returning False. `noise`: "run" draws all of it first, as the reference does;
        "blocks" draws it block by block as an open-ended session does: with it, and the same seed
        and actions, the frames are those of `start(image, seed)`. Raises an `InputError` before
        the first block if anything does not fit.
        """
        began = time.perf_counter()
        run = self._prepare(image, num_latent_frames, seed, actions, initial_latents, noise)
        return collect_blocks(
            self._blocks(run), self.spec, num_latent_frames, run.initial, began, on_block
        )

    def stream(
        self,
        image: ImageSource,
        num_latent_frames: int = 150,
        seed: int | None = None,
        actions: ActionSource | None = None,
        initial_latents: LatentsSource | None = None,
        noise: NoiseMode = "run",
        stop: Callable[[Session], bool] | None = None,
    ) -> Generator[BlockReport]:
        """Yield the blocks of the run that `generate` with these arguments returns whole.

        Nothing of a block is kept, so memory does not grow with the frames. Of `noise` "run", all
        noise is drawn first and kept: as many numbers as the latents have. Close the generator to
        end a run early. `stop` is called with the session before each block. Once it returns
        True, the blocks that are begun are yielded, and the session stands after the last one:
        save it then. Raises an `InputError` at once if anything does not fit.
        """
        run = self._prepare(image, num_latent_frames, seed, actions, initial_latents, noise)
        return self._blocks(run, stop)

    def _prepare(
        self,
        image: ImageSource,
        num_latent_frames: int,
        seed: int | None,
        actions: ActionSource | None,
        initial_latents: LatentsSource | None,
        noise: NoiseMode,
    ) -> _Run:
        """Check the arguments of a run and prepare all that its first block needs."""
        _check_noise(noise)
        num_latent_frames = checked_length(num_latent_frames, self.spec)
        initial = read_latents(initial_latents, self.spec)
        total = num_latent_frames + (0 if initial is None else initial.shape[2])
        rows = self.spec.pixel_frames(total)
        seed = checked_seed(seed, self.spec)
        config = describe(self, seed, num_latent_frames)
        describe_run(config, self.device)
        with tag(tags.DATA_PREPARATION), using_free_cores(self.device):
            drawn_first = num_latent_frames if noise == "run" else None
            inputs = prepare_inputs(
                self, image, seed, drawn_first, lambda: self._actions(actions, rows, seed)
            )
        assert inputs.track is not None
        blocks = num_latent_frames // self.spec.frames_per_block
        return _Run(inputs, inputs.track, initial, blocks, config, noise)

    def _blocks(
        self, run: _Run, stop: Callable[[Session], bool] | None = None
    ) -> Generator[BlockReport]:
        """Generate a run's blocks as they are asked for."""
        with tag(tags.PIPELINE_INFERENCE):
            session = open_session(self, run.inputs, run.config)
            if run.initial is not None:
                self.pipeline.prefill(run.initial, session.state)
            turns = until_stopped(run.blocks, None if stop is None else partial(stop, session))
            outputs = stream_blocks(self.pipeline, session.state, turns, run.noise == "run")
            yield from report_blocks(outputs, run.blocks, run.track, session.next_row)

    def save(self, folder: str | Path) -> None:
        """Write the world into a folder that `load_world` reads, to the same frames.

        The folder has the released layout and appears whole or not at all; over a saved world,
        its files are replaced. Raises `InputError` for a folder of other files and for weights
        that acceleration changed.
        """
        save_world(Path(folder), self.spec, self.networks, self.notice, self.source)

    def _actions(self, actions: ActionSource | None, rows: int, seed: int) -> ActionTrack:
        """Return `rows` rows of the given actions, or of the benchmark's random ones."""
        if actions is None:
            return benchmark_actions(self.space, rows, seed)
        if isinstance(actions, Action):
            return self.space.fill(actions, rows)
        return load_actions(actions, self.space).fitted(self.space, rows)


class _Run(NamedTuple):
    """A run whose arguments fit and whose first block is prepared."""

    inputs: PreparedInputs
    track: ActionTrack  # the rows of all its frames, those of the initial latents first
    initial: Tensor | None
    blocks: int
    config: dict[str, Any]
    noise: NoiseMode


def _check_noise(noise: str) -> None:
    """Raise `InputError` for an unknown noise mode."""
    modes = get_args(NoiseMode)
    if noise not in modes:
        raise InputError(f"noise {noise!r:.40}: must be one of {', '.join(modes)}")
