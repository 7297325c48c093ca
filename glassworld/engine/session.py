"""A session: one run through a world, block by block."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

import torch
from torch import Tensor

from glassworld.engine.actions.files import ActionSource, load_actions
from glassworld.engine.actions.track import Action, ActionTrack, benchmark_actions, join_tracks
from glassworld.engine.arguments import checked_length
from glassworld.engine.conditioning import ActionHistory, ImageLatents
from glassworld.engine.media.images import Frames, ImageSource, load_start_image
from glassworld.engine.overlap import stream_blocks
from glassworld.engine.pipeline import OnFrames
from glassworld.engine.rollout import BlockReport, report_blocks, until_stopped
from glassworld.engine.runtime.transfer import HostCopy
from glassworld.engine.sampling import NoiseSource
from glassworld.engine.session_file import save_session
from glassworld.engine.state import SessionState, recent_rows
from glassworld.errors import InputError
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag

if TYPE_CHECKING:
    from glassworld.engine.world import World

T = TypeVar("T")


class Session:
    """One run through a world, independent of every other session."""

    def __init__(self, world: World, state: SessionState) -> None:
        self.world, self.state = world, state
        self._turn = RLock()

    def __repr__(self) -> str:
        return f"Session({self.world.name!r}, {self.state.progress})"

    def __reduce__(self) -> NoReturn:
        raise InputError("Session: cannot be pickled; write it to a file with save(path)")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep other threads from generating meanwhile; raise `InputError` if one does now."""
        if not self._turn.acquire(blocking=False):
            raise InputError(
                "this session generates a block in another thread; step it from one at a time"
            )
        try:
            yield
        finally:
            self._turn.release()

    @property
    def next_frames(self) -> int:
        """Pixel frames of the next block: the first block has fewer."""
        spec, generated = self.world.spec, self.state.generated
        return spec.pixel_frames(generated + spec.frames_per_block) - spec.pixel_frames(generated)

    @property
    def _next_rows(self) -> int:
        """Rows of actions of the next block: after given latents, more than its frames."""
        spec, start = self.world.spec, self.state.start
        return spec.pixel_frames(start + spec.frames_per_block) - spec.pixel_frames(start)

    @property
    def next_row(self) -> int:
        """The row, counted from the session's start, of the next block's first frame.

        The last rows of a block are those of its frames: the first latent frame after given ones
        takes four rows, but decodes to one frame.
        """
        spec = self.world.spec
        return spec.pixel_frames(self.state.start + spec.frames_per_block) - self.next_frames

    def step(self, action: Action, on_frames: Callable[[HostCopy], None] | None = None) -> Frames:
        """Return the frames `[n, H, W, 3]` of the next block, generated under `action`.

        `on_frames` gets each latent frame's pixels as soon as they are decoded, on a GPU as soon
        as decoding is queued: `wait()`, to be called in another thread there, returns a tensor
        `[1, 1 or 4, H, W, 3]`.
        `on_frames` must not raise: go back to a saved state if it did.
        """
        with self.turn():
            self.hold(action)
            if on_frames is None:
                return self.advance()[0]
            return self.advance(lambda frames, _: on_frames(frames))[0]

    def check_next(self, action: Action) -> None:
        """Raise `InputError` if there is no next block, or if `action` does not fit it."""
        self.world.space.fill(action, self._next_rows)
        self.state.noise.check_left(self.state.generated, self.world.spec.frames_per_block)

    def hold(self, action: Action) -> None:
        """Set the action of the next block."""
        self._set_actions(self.world.space.fill(action, self._next_rows))

    def _set_actions(self, track: ActionTrack) -> None:
        """Set the actions of the next blocks, in place of any that were set."""
        spec, state = self.world.spec, self.state
        state.actions = state.actions.between(0, spec.pixel_frames(state.start))
        state.actions.append(track.keyboard, track.mouse, recent_rows(spec))

    def advance(self, on_frames: OnFrames | None = None) -> tuple[Frames, Tensor]:
        """Return the frames and latents of the next block, whose actions are set."""
        with self.turn():
            block = self.world.pipeline.generate_block([self.state], on_frames=on_frames)
        return block.frames()[0].numpy(), block.latents

    def run(self, actions: Iterable[Action] | Action) -> Iterator[Frames]:
        """Yield the frames of one block for each of the actions, all known beforehand.

        A single `Action` is held for one block.

        More frames a second than by `step` where the next block can be generated while one is
        decoded; the session may then be a block ahead of what was yielded. An action that does
        not fit raises its `InputError` after the frames of those before it.
        """
        if isinstance(actions, Action):
            actions = (actions,)
        if not isinstance(actions, Iterable):
            raise InputError(f"actions: give one Action per block, not {type(actions).__name__}")
        return self._run(actions)

    def _run(self, actions: Iterable[Action]) -> Iterator[Frames]:
        """Yield the frames of one block for each of the actions."""
        refused: list[InputError] = []

        def held() -> Iterator[None]:
            for action in actions:
                try:
                    self.hold(action)
                except InputError as error:
                    refused.append(error)
                    return
                yield

        outputs = stream_blocks(self.world.pipeline, self.state, held())
        with closing(self._in_turns(outputs)) as blocks:
            for block in blocks:
                yield block.frames()[0].numpy()
        if refused:
            raise refused[0]

    def _in_turns(self, blocks: Generator[T]) -> Generator[T]:
        """Yield `blocks`, and keep other threads from generating while one is generated.

        Raises `InputError` once the session was restored: the blocks are of its former state.
        """
        state = self.state
        with closing(blocks):
            while True:
                with self.turn():
                    if self.state is not state:
                        raise InputError("this session was restored during a run; begin a new run")
                    block = next(blocks, None)
                if block is None:
                    return
                yield block

    def stream(
        self,
        num_latent_frames: int,
        actions: ActionSource | None = None,
        stop: Callable[[Session], bool] | None = None,
    ) -> Generator[BlockReport]:
        """Yield reports of the next blocks, `num_latent_frames` in all.

        Past the end of a run whose length was known, noise is drawn block by block. `actions`: one
        row for each new pixel frame. By default, those of the session's run that are left, then
        random ones, as in `World.generate`. `stop` as in `World.stream`. Raises an `InputError` at
        once if anything does not fit.
        """
        spec, state = self.world.spec, self.state
        num_latent_frames = checked_length(num_latent_frames, spec)
        end = spec.pixel_frames(state.start + num_latent_frames)
        track = self._next_actions(actions, end - spec.pixel_frames(state.start))
        with self.turn():
            self._set_actions(track)
            state.noise.open_ended = True
        return self._reports(num_latent_frames // spec.frames_per_block, track, stop)

    def _next_actions(self, actions: ActionSource | None, rows: int) -> ActionTrack:
        """Return `rows` rows of the given actions; by default what is left of the run's own."""
        space, state = self.world.space, self.state
        if isinstance(actions, Action):
            return space.fill(actions, rows)
        if actions is not None:
            return load_actions(actions, space).fitted(space, rows)
        first = self.world.spec.pixel_frames(state.start)
        left = state.actions.between(first, first + rows)
        drawn = benchmark_actions(space, first + rows, state.config["seed"])
        held = len(left.keyboard)
        if held == 0:
            return drawn.rows(first, first + rows)
        own = ActionTrack(left.keyboard, left.mouse)
        return own if held == rows else join_tracks([own, drawn.rows(first + held, first + rows)])

    def _reports(
        self, blocks: int, track: ActionTrack, stop: Callable[[Session], bool] | None
    ) -> Generator[BlockReport]:
        """Yield a report of each block, whose actions are set."""
        ahead = self.state.noise.run is not None
        turns = until_stopped(blocks, None if stop is None else partial(stop, self))
        with tag(tags.PIPELINE_INFERENCE):
            frame = self.next_row - self.world.spec.pixel_frames(self.state.start)
            outputs = stream_blocks(self.world.pipeline, self.state, turns, ahead)
            yield from self._in_turns(report_blocks(outputs, blocks, track, frame))

    @overload
    def save(self) -> SessionState: ...

    @overload
    def save(self, path: str | Path, light: bool = False) -> None: ...

    def save(self, path: str | Path | None = None, light: bool = False) -> SessionState | None:
        """Return a copy of the state, to come back to with `restore`; or write it to `path`.

        `World.resume` goes on from the file with the same bits. It has 15 MB for the embedded
        world and 3 GB at the released size. A `light` file has about a hundredth of that, but
        `World.resume` rebuilds the caches: a session older than two windows then goes on with
        frames that differ. Raises `InputError` if the file cannot be written.
        """
        with self.turn():
            if path is None:
                return self.state.copy()
            save_session(Path(path), self.world, self.state, light)
        return None

    def restore(self, state: SessionState) -> None:
        """Go back to a saved state, which stays good for further use; a run cannot go on then."""
        with self.turn():
            self.state = state.copy()


@dataclass(frozen=True)
class PreparedInputs:
    """The result of data preparation: all that the first block needs but the caches."""

    image: ImageLatents
    condition: Tensor  # of the first block
    visual: Tensor
    noise: NoiseSource
    track: ActionTrack | None  # all rows of a run whose actions are known
    actions: ActionHistory


@torch.inference_mode()
def prepare_inputs(
    world: World,
    image: ImageSource,
    seed: int,
    num_latent_frames: int | None,
    read_actions: Callable[[], ActionTrack | None],
) -> PreparedInputs:
    """Prepare a run, stage by stage.

    `num_latent_frames`: of a run whose noise is all drawn first; None draws it block by block.
    `read_actions` returns the run's actions, None for a session that gets them one by one.
    """
    spec, networks = world.spec, world.networks
    with tag(tags.IMAGE_LOADING):
        pixels = torch.from_numpy(load_start_image(image, spec.height, spec.width))
        first_frame = pixels[None, :, None].to(networks.encoder.conv1.weight)
    with tag(tags.VAE_ENCODE):
        latents = ImageLatents(first_frame, FeatureCache())
        latents.encode(spec.frames_per_block, networks.encoder)
    with tag(tags.CONDITIONS):
        condition = latents.condition(0, spec.frames_per_block).to(world.device, world.dtype)
    with tag(tags.VISUAL_CONTEXT):
        visual = networks.vision(pixels[None].to(world.device)).to(world.dtype)
    with tag(tags.NOISE):
        shape = (spec.vae.latent_channels, *spec.latent_size)
        noise = NoiseSource(seed, shape, num_latent_frames)
    with tag(tags.ACTIONS):
        track = read_actions()
        history = ActionHistory.of(track, world.space)
    return PreparedInputs(latents, condition, visual, noise, track, history)


@torch.inference_mode()
def open_session(world: World, inputs: PreparedInputs, config: dict[str, Any]) -> Session:
    """Start a session with empty caches; `config` describes its run in traces."""
    with tag(tags.CACHE_INIT):
        dit = world.networks.dit
        state = SessionState(
            caches=dit.empty_caches(1, world.spec.tokens_per_frame),
            context=dit.context_kv(inputs.visual),
            decoder=FeatureCache(),
            image=inputs.image,
            actions=inputs.actions,
            noise=inputs.noise,
            config=config,
            condition=inputs.condition,
        )
    return Session(world, state)
