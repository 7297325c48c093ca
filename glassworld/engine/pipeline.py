"""The block loop: denoise, decode, update the caches.

Nothing here reads a value back from the device; the only copy to the host is of finished frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from glassworld.engine.cuda_graphs import PassGraphs, PassInput
from glassworld.engine.networks import Networks
from glassworld.engine.runtime.threads import ThreadChooser, chosen_by_user, using_free_cores
from glassworld.engine.runtime.transfer import HostCopy, to_device
from glassworld.engine.sampling import (
    DenoisingStep,
    FlowSchedule,
    add_noise,
    flow_to_x0,
    renew_noise,
)
from glassworld.engine.state import NetworkState, SessionState, recent_frames
from glassworld.models.transformer.action import ActionWindows
from glassworld.models.transformer.kv_cache import CacheSlots
from glassworld.models.transformer.layer import BlockPosition
from glassworld.profiling import registry as tags
from glassworld.profiling.capture import describe_block, start_at_block
from glassworld.profiling.tags import tag
from glassworld.specs import WorldSpec


@dataclass(frozen=True)
class ExecutionPlan:
    """How a world's passes run on its device; `accelerate` chooses."""

    attention_backends: tuple[SDPBackend, ...] = ()  # the preferred one first; (): torch decides
    cuda_graphs: bool = False

    def attention(self) -> AbstractContextManager[None]:
        """Return the context that attention runs in."""
        if not self.attention_backends:
            return nullcontext()
        return sdpa_kernel(list(self.attention_backends), set_priority=True)


PartCopies = list[list[HostCopy]]
"""The latent frames, uint8 `[sessions, n, H, W, 3]`, of each part of a batch."""


class BlockOutput(NamedTuple):
    """A block of `b` sessions, whose frames may still be on their way to the host."""

    latents: Tensor  # [b, c, f, h, w], on the device
    copies: PartCopies | Future[PartCopies]

    def decoded(self) -> PartCopies:
        """Wait until the block is decoded and return its frames, perhaps on their way."""
        return self.copies.result() if isinstance(self.copies, Future) else self.copies

    def frames(self) -> list[Tensor]:
        """Wait for the block's frames and return each session's: uint8 `[n, H, W, 3]`."""
        parts = self.decoded()
        return [frames for copies in parts for frames in cat([copy.wait() for copy in copies], 1)]


OnFrames = Callable[[HostCopy, range], None]
"""Called with each latent frame's pixels once they are decoded, on a GPU once that is queued.

The pixels are `[sessions, 1 or 4, H, W, 3]`, the range says which sessions of the batch they are
of: a session's first latent frame is decoded apart from later ones of others.
"""


@dataclass(frozen=True)
class BlockConditioning:
    """The inputs of every pass over one block beside the latents and the time."""

    condition: Tensor
    place: BlockPosition
    windows: ActionWindows

    @staticmethod
    def cat(sessions: Sequence[BlockConditioning]) -> BlockConditioning:
        """Concatenate the inputs of several sessions along the batch axis."""
        windows = [session.windows for session in sessions]
        mouse = [window.mouse for window in windows if window.mouse is not None]
        return BlockConditioning(
            cat([session.condition for session in sessions]),
            BlockPosition.cat([session.place for session in sessions]),
            ActionWindows(
                cat([window.keyboard for window in windows]), cat(mouse) if mouse else None
            ),
        )


def cat(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate tensors; a single one is returned as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


@dataclass(frozen=True, eq=False, repr=False)
class Pipeline:
    """A world's networks, run over the state of its sessions."""

    spec: WorldSpec
    networks: Networks
    plan: ExecutionPlan
    steps: tuple[DenoisingStep, ...] = field(init=False)
    clean: DenoisingStep = field(init=False)  # of the pass that fills the caches
    times: dict[DenoisingStep, Tensor] = field(init=False)
    choosers: dict[tuple[int, int], ThreadChooser] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Put the timesteps on the device once."""
        schedule = FlowSchedule(self.spec.timestep_shift)
        steps = schedule.steps(self.spec.denoising_steps, self.spec.warp_steps)
        clean = schedule.step(self.spec.context_noise)
        times = {
            step: torch.full((1, 1), step.timestep, device=self.networks.device)
            for step in (*steps, clean)
        }
        for name, value in (("steps", steps), ("clean", clean), ("times", times)):
            object.__setattr__(self, name, value)

    @torch.inference_mode()
    def generate_block(
        self,
        states: Sequence[SessionState],
        network_state: NetworkState | None = None,
        on_frames: OnFrames | None = None,
        at_once: int = 1,
        executor: Executor | None = None,
    ) -> BlockOutput:
        """Generate the next block of every session in `states`, which hold its actions already.

        `network_state` holds the caches of all sessions in their order (see `SessionBatch`); by
        default those of the only session.
        `at_once`: latent frames to decode in one call, each followed by `on_frames`. With
        `executor` decoding runs there, beside the update of the caches and later blocks.
        """
        network_state = states[0] if network_state is None else network_state
        block = states[0].block
        if executor is None:  # which decodes one block after another
            for state in states:
                state.settle()
        if self.plan.cuda_graphs and network_state.graphs is None:
            network_state.graphs = PassGraphs(self.networks.device)
        start_at_block(block)  # before its tag opens
        threads = nullcontext() if executor else self._threads(len(states), at_once)
        with threads, self.plan.attention(), tag(tags.BLOCK, block=block):
            config = {**states[0].config, "threads": torch.get_num_threads()}
            describe_block(config, self.networks.device)
            conditioning = BlockConditioning.cat([self.conditioning(state) for state in states])
            latents = self._denoise(states, network_state, conditioning)
            with tag(tags.VAE_DECODE, block=block):  # first: nobody waits for the update
                decode = partial(self._decode, latents, network_state, at_once, on_frames)
                if executor is None:
                    copies: PartCopies | Future[PartCopies] = decode()
                else:
                    copies = states[0].decoding = executor.submit(decode)
            with tag(tags.UPDATE_CACHE, block=block):
                self._update_cache(latents, network_state, conditioning)
        for row, state in enumerate(states):
            state.remember(latents[row : row + 1], recent_frames(self.spec))
            state.start += self.spec.frames_per_block
            state.block += 1
        return BlockOutput(latents, copies)

    def _threads(self, sessions: int, at_once: int) -> AbstractContextManager[object]:
        """Return the context that chooses the number of threads for a block, and times it.

        Blocks of other numbers of sessions, or decoded otherwise, take other times. Code that is
        compiled would be compiled again for each number of threads.
        """
        if self.networks.device.type != "cpu" or self.networks.compiled or chosen_by_user():
            return nullcontext()
        kind = sessions, at_once
        if kind not in self.choosers:
            self.choosers[kind] = ThreadChooser(torch.get_num_threads())
        return self.choosers[kind].block()

    def _denoise(
        self,
        states: Sequence[SessionState],
        network_state: NetworkState,
        conditioning: BlockConditioning,
    ) -> Tensor:
        """Turn noise into the block's clean latents, step by step."""
        frames, last = self.spec.frames_per_block, len(self.steps) - 1
        drawn = [state.noise.block_noise(state.generated, frames) for state in states]
        x = self._to_device(cat(drawn))
        for index, step in enumerate(self.steps):
            numbers = {"block": states[0].block, "step": index, "timestep": int(step.timestep)}
            with tag(tags.DENOISING_STEP, **numbers):
                forward = tags.GENERATOR_FORWARD if index < last else tags.GENERATOR_FORWARD_FINAL
                with tag(forward):
                    x0 = self._predict_x0(x, step, network_state, conditioning)
                if index < last:
                    with tag(tags.ADD_NOISE):
                        drawn = [state.noise.step_noise(frames) for state in states]
                        fresh = self._to_device(cat(drawn))
                        noise = renew_noise(x, x0, step, fresh, self.spec.eta)
                        x = add_noise(x0, noise, self.steps[index + 1])
        return x0

    def _predict_x0(
        self,
        x: Tensor,
        step: DenoisingStep,
        network_state: NetworkState,
        conditioning: BlockConditioning,
    ) -> Tensor:
        """Return the clean latents that the network sees in `x`."""
        with tag(tags.DIFFUSION_FORWARD):
            flow = self.forward(x, step, network_state, conditioning, output=True)
        with tag(tags.FLOW_TO_X0):
            assert flow is not None
            return flow_to_x0(x, flow, step)

    @torch.inference_mode()
    def _decode(
        self,
        latents: Tensor,
        network_state: NetworkState,
        at_once: int,
        on_frames: OnFrames | None,
    ) -> PartCopies:
        """Decode the block, `at_once` latent frames in a call, and copy the pixels to the host."""
        graphs, decoder = network_state.graphs, self.networks.decoder
        frame = decoder.decode_frame if graphs is None else partial(graphs.frame, decoder)
        x = latents.to(self.networks.decoder_dtype)
        parts = network_state.decoder_parts
        streams = [decoder.stream(x[part.rows], part.memory, frame, at_once) for part in parts]
        copies: PartCopies = [[] for _ in parts]
        for _ in range(0, x.shape[2], at_once):
            for part, stream, own in zip(parts, streams, copies, strict=True):
                own.append(HostCopy(next(stream)))
                if on_frames is not None:
                    on_frames(own[-1], part.sessions)
        return copies

    def _update_cache(
        self, latents: Tensor, network_state: NetworkState, conditioning: BlockConditioning
    ) -> None:
        """Leave the keys and values of clean latents in the caches."""
        with tag(tags.DIFFUSION_FORWARD):
            self.forward(latents, self.clean, network_state, conditioning, output=False)

    def forward(
        self,
        x: Tensor,
        step: DenoisingStep,
        network_state: NetworkState,
        conditioning: BlockConditioning,
        output: bool,
    ) -> Tensor | None:
        """Run the transformer over a block and return the flow, or None without `output`."""
        x, time = torch.cat([x, conditioning.condition], 1), self.times[step]
        context, caches = network_state.context, network_state.caches
        place, windows = conditioning.place, conditioning.windows
        if network_state.graphs is not None:
            inputs = PassInput(x, time, place, windows)
            dit = self.networks.dit
            return network_state.graphs.forward(dit, inputs, context, caches, output=output)
        flow: Tensor | None = self.networks.dit(
            x, time, place, windows, context, caches, output=output
        )
        return flow

    @torch.inference_mode()
    def prefill(self, latents: Tensor, state: SessionState) -> None:
        """Take given latents `[1, c, f, h, w]` into the caches, block by block (an extension)."""
        frames, device = self.spec.frames_per_block, self.networks.device
        with using_free_cores(device), self.plan.attention(), tag(tags.INITIAL_LATENTS):
            for block in torch.split(self._to_device(latents), frames, dim=2):
                self._update_cache(block, state, self.conditioning(state))
                state.remember(block, recent_frames(self.spec))
                state.start += frames
        state.prefilled = state.start

    @torch.inference_mode()
    def rebuild(self, latents: Tensor, state: SessionState) -> None:
        """Rebuild empty caches from the latents `[1, c, f, h, w]` that end at `state.start`.

        As if the session had begun with them, but at their positions. If it did, the caches are the
        same; if not, they lack the influence of earlier frames. Needs a world without sinks.
        """
        end, frames, window = state.start, self.spec.frames_per_block, self.spec.dit.window
        first = end - latents.shape[2]
        with using_free_cores(self.networks.device), self.plan.attention():
            latents = self._to_device(latents)
            for index, block in enumerate(torch.split(latents, frames, dim=2)):
                state.start = first + index * frames
                slots = CacheSlots.for_block(index * frames, frames, window)
                conditioning = self.conditioning(state)
                place = replace(conditioning.place, self_slots=slots, action_slots=slots)
                self._update_cache(block, state, replace(conditioning, place=place))
            decoded = latents[:, :, max(0, state.prefilled - first) :]
            if decoded.shape[2]:
                decoded = decoded.to(self.networks.decoder_dtype)
                for _ in self.networks.decoder.stream(decoded, state.decoder):
                    pass  # its memory is all that counts
        state.caches = [cache.roll(first % window, 0) for cache in state.caches]
        state.start, state.recent = end, latents

    def conditioning(self, state: SessionState) -> BlockConditioning:
        """Return the image condition, the position and the actions of a session's next block."""
        start, frames, spec = state.start, self.spec.frames_per_block, self.spec
        encoder = self.networks.encoder
        if state.image.missing(start + frames, encoder):
            with tag(tags.CONDITION_ENCODE, block=state.block):
                state.image.encode(start + frames, encoder)
        condition = state.condition
        if condition is None:
            condition = self._to_device(state.image.condition(start, frames))
        state.condition = None
        return BlockConditioning(
            condition=condition,
            place=self.networks.dit.stream_position(start, frames, spec.token_grid, state.shift),
            windows=state.actions.windows(start, frames, spec.dit.action.rows, condition),
        )

    def _to_device(self, x: Tensor) -> Tensor:
        return to_device(x, self.networks.device, self.networks.dtype)
