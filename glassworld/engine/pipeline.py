"""The block loop: denoise, decode, update the caches.

Nothing here reads a value back from the device; the only copy to the host is of finished frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from glassworld.engine.acceleration.cuda_graphs import PassGraphs, PassInput
from glassworld.engine.runtime.transfer import HostCopy, to_device
from glassworld.engine.sampling import (
    DenoisingStep,
    FlowSchedule,
    add_noise,
    flow_to_x0,
    renew_noise,
)
from glassworld.engine.state import NetworkState, SessionState
from glassworld.models.transformer.action import ActionWindows
from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.layer import BlockPosition
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.models.vae.streaming import StreamingDecoder
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag
from glassworld.specs import WorldSpec


class BlockOutput(NamedTuple):
    """A finished block; `b` is 1, or the number of sessions that made it together."""

    latents: Tensor  # [b, c, f, h, w], on the device
    parts: list[HostCopy]  # of latent frames uint8 [b, n, H, W, 3], to the host

    def frames(self) -> Tensor:
        """All of the block's frames `[b, pixel frames, H, W, 3]`, on the host."""
        return cat([part.wait() for part in self.parts], 1)


OnFrames = Callable[[HostCopy], None]
"""Hears of a latent frame's pictures as soon as they are decoded, on a GPU: asked for."""


@dataclass(frozen=True)
class BlockConditioning:
    """What every pass over one block is given beside the latents and the time."""

    condition: Tensor
    place: BlockPosition
    windows: ActionWindows

    @staticmethod
    def cat(each: Sequence[BlockConditioning]) -> BlockConditioning:
        """Of several sessions, along the batch's axis."""
        windows = [given.windows for given in each]
        mouse = [window.mouse for window in windows if window.mouse is not None]
        return BlockConditioning(
            cat([given.condition for given in each]),
            BlockPosition.cat([given.place for given in each]),
            ActionWindows(
                cat([window.keyboard for window in windows]), cat(mouse) if mouse else None
            ),
        )


def cat(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


class Pipeline:
    """The networks of a world, run over a session's state."""

    def __init__(
        self, spec: WorldSpec, dit: DiT, encoder: VAEEncoder, decoder: StreamingDecoder
    ) -> None:
        self.spec, self.dit, self.encoder, self.decoder = spec, dit, encoder, decoder
        schedule = FlowSchedule(spec.timestep_shift)
        self.steps = schedule.steps(spec.denoising_steps, spec.warp_steps)
        self.clean = schedule.step(spec.context_noise)
        weight = dit.patch_embedding.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.decoder_dtype = next(decoder.parameters()).dtype
        self.times = {
            step: torch.full((1, 1), step.timestep, device=self.device)
            for step in (*self.steps, self.clean)
        }
        # Set by `accelerate`: whether passes are captured, and what attention runs under.
        self.captures = False
        self.attention: Callable[[], AbstractContextManager[None]] = nullcontext

    def run_block(
        self, state: SessionState, on_frames: OnFrames | None = None, at_once: int = 1
    ) -> BlockOutput:
        """Make the next block; `state.actions` already holds its rows."""
        return self.run_together([state], state, on_frames, at_once)

    @torch.inference_mode()
    def run_together(
        self,
        states: Sequence[SessionState],
        networks: NetworkState,
        on_frames: OnFrames | None = None,
        at_once: int = 1,
    ) -> BlockOutput:
        """Make the next block of every session in `states`.

        `networks` holds what the networks keep of all of them, in their order. They stand at the
        same point of their windows (see `SessionBatch`). `on_frames` is called within, for every
        latent frame or as many as are decoded `at_once`.
        """
        parts = []

        def show(latents: Tensor) -> None:
            for pictures in self.decode(latents, networks, at_once):
                parts.append(HostCopy(pictures))
                if on_frames is not None:
                    on_frames(parts[-1])

        return BlockOutput(self.make(states, networks, show), parts)

    def make(
        self,
        states: Sequence[SessionState],
        networks: NetworkState,
        show: Callable[[Tensor], object],
    ) -> Tensor:
        """The block's latents. `show` has them decoded, before the update pass."""
        frames, block = self.spec.frames_per_block, states[0].block
        if self.captures and networks.graphs is None:
            networks.graphs = PassGraphs(self.device)
        with self.attention(), tag(tags.BLOCK, block=block):
            given = BlockConditioning.cat([self.given(state, frames) for state in states])
            latents = self.denoise(states, networks, given)
            with tag(tags.VAE_DECODE, block=block):
                show(latents)  # on their way while the update pass, which nobody waits for, runs
            with tag(tags.UPDATE_CACHE, block=block):
                self.remember(latents, given, networks)
        for state in states:
            state.start += frames
            state.block += 1
        return latents

    def denoise(
        self, states: Sequence[SessionState], networks: NetworkState, given: BlockConditioning
    ) -> Tensor:
        """From noise to the block's clean latents, step by step."""
        frames, last = self.spec.frames_per_block, len(self.steps) - 1
        first = states[0]
        x = self.draw_noise(
            states, lambda each: each.noise.block(each.start - each.prefilled, frames)
        )
        for index, step in enumerate(self.steps):
            named = {"block": first.block, "step": index, "timestep": int(step.timestep)}
            with tag(tags.DENOISING_STEP, **named):
                forward = tags.GENERATOR_FORWARD if index < last else tags.GENERATOR_FORWARD_FINAL
                with tag(forward):
                    x0 = self.predict(x, step, given, networks)
                if index < last:
                    with tag(tags.ADD_NOISE):
                        fresh = self.draw_noise(states, lambda each: each.noise.fresh(frames))
                        noise = renew_noise(x, x0, step, fresh, self.spec.eta)
                        x = add_noise(x0, noise, self.steps[index + 1])
        return x0

    def draw_noise(
        self, states: Sequence[SessionState], draw: Callable[[SessionState], Tensor]
    ) -> Tensor:
        """Noise of every session, from its own source."""
        return self.to_device(cat([draw(state) for state in states]))

    def predict(
        self, x: Tensor, step: DenoisingStep, given: BlockConditioning, networks: NetworkState
    ) -> Tensor:
        """The clean latents that the network sees in `x`."""
        with tag(tags.DIFFUSION_FORWARD):
            flow = self.forward(x, step, given, networks, output=True)
        with tag(tags.FLOW_TO_X0):
            assert flow is not None
            return flow_to_x0(x, flow, step)

    def remember(self, latents: Tensor, given: BlockConditioning, networks: NetworkState) -> None:
        """Leave the keys and values of clean latents in the caches."""
        with tag(tags.DIFFUSION_FORWARD):
            self.forward(latents, self.clean, given, networks, output=False)

    def forward(
        self,
        x: Tensor,
        step: DenoisingStep,
        given: BlockConditioning,
        networks: NetworkState,
        output: bool,
    ) -> Tensor | None:
        x, time = torch.cat([x, given.condition], 1), self.times[step]
        if networks.graphs is not None:
            read = PassInput(x, time, given.place, given.windows)
            kept = (networks.context, networks.caches)
            return networks.graphs.forward(self.dit, read, *kept, output=output)
        where = (given.place, given.windows, networks.context, networks.caches)
        flow: Tensor | None = self.dit(x, time, *where, output=output)
        return flow

    def decode(self, latents: Tensor, networks: NetworkState, at_once: int = 1) -> Iterator[Tensor]:
        """The pictures of each latent frame, uint8 `[b, 1 or 4, H, W, 3]`, or of `at_once`."""
        graphs, decoder = networks.graphs, self.decoder
        frame = decoder.decode_frame if graphs is None else partial(graphs.frame, decoder)
        x = latents.to(self.decoder_dtype)
        return decoder.stream(x, networks.decoder, frame, at_once)

    @torch.inference_mode()
    def prefill(self, latents: Tensor, state: SessionState) -> None:
        """Take given latents `[1, c, f, h, w]` into the caches, block by block (an extension)."""
        frames = self.spec.frames_per_block
        with self.attention(), tag(tags.INITIAL_LATENTS):
            for block in torch.split(self.to_device(latents), frames, dim=2):
                self.remember(block, self.given(state, frames), state)
                state.start += frames
        state.prefilled = state.start

    def given(self, state: SessionState, frames: int) -> BlockConditioning:
        """The condition, the place and the actions of the block at `state.start`."""
        start, spec = state.start, self.spec
        if state.image.missing(start + frames, self.encoder):
            with tag(tags.CONDITION_ENCODE, block=state.block):
                state.image.encode(start + frames, self.encoder)
        condition = state.condition
        if condition is None:
            condition = self.to_device(state.image.condition(start, frames))
        state.condition = None
        return BlockConditioning(
            condition=condition,
            place=self.dit.stream_position(start, frames, spec.token_grid, state.shift),
            windows=state.actions.windows(start, frames, spec.dit.action.rows, condition),
        )

    def to_device(self, x: Tensor) -> Tensor:
        return to_device(x, self.device, self.dtype)
