"""Whole passes as CUDA graphs: captured once, then launched as one.

A block at full size launches thousands of kernels; a captured pass is a single launch, and the
host is free. What a pass reads and writes must stay where it was when it was captured: windows
and the decoder's memory are written in place anyway, and the rest is copied to one place first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from glassworld.errors import InputError
from glassworld.models.transformer.action import ActionWindows
from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.kv_cache import CacheSlots, KeyValues, LayerCache
from glassworld.models.transformer.layer import BlockPosition
from glassworld.models.transformer.rope import RotaryTable
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.models.vae.streaming import StreamingDecoder

SETTLED = 3
"""From which latent frame of a clip on decoding is captured: in the one before, for the first
time, all layers remembered something."""

Result = Tensor | None
Call = Callable[[], Result]


@dataclass(frozen=True)
class PassInput:
    """What changes from one pass over a block to the next."""

    x: Tensor
    timesteps: Tensor
    place: BlockPosition
    windows: ActionWindows

    def tensors(self) -> list[Tensor]:
        place, mouse = self.place, self.windows.mouse
        rotaries = [*place.rotary, *place.action_rotary]
        listed = [self.x, self.timesteps, *rotaries, self.windows.keyboard]
        return listed if mouse is None else [*listed, mouse]

    def copy(self) -> PassInput:
        """In storage of its own."""
        place, mouse = self.place, self.windows.mouse
        return PassInput(
            self.x.clone(),
            self.timesteps.clone(),
            replace(
                place,
                rotary=RotaryTable(*(each.clone() for each in place.rotary)),
                action_rotary=RotaryTable(*(each.clone() for each in place.action_rotary)),
            ),
            ActionWindows(self.windows.keyboard.clone(), None if mouse is None else mouse.clone()),
        )

    def take(self, other: PassInput) -> None:
        """Have the numbers of `other`, in this one's storage."""
        for own, new in zip(self.tensors(), other.tensors(), strict=True):
            own.copy_(new)


PassKey = tuple[CacheSlots | None, CacheSlots | None, bool]


class PassGraphs:
    """The captured passes over what the networks keep of one session, or of one batch.

    They hold for the storage they were captured with, and belong to the state that owns it. A
    pass is captured when it comes a second time, so that everything has been set up by then.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._seen: set[PassKey] = set()
        self._input: PassInput | None = None
        self._passes: dict[PassKey, Call] = {}
        self._decoded = 0
        self._latent: Tensor | None = None
        self._decode: Call | None = None

    def forward(
        self,
        dit: DiT,
        given: PassInput,
        context: list[KeyValues],
        caches: list[LayerCache],
        output: bool,
    ) -> Result:
        """`dit(...)`; what it returns is good until the next pass."""
        place = given.place.self_slots
        key = (place, given.place.action_slots, output)
        growing = place is None or place.filled < dit.spec.window
        if growing or key not in self._seen:
            self._seen.add(key)
            return _forward(dit, given, context, caches, output)
        if self._input is None:
            self._input = given.copy()
        self._input.take(given)
        if key not in self._passes:
            fixed = replace(
                self._input,
                place=replace(
                    self._input.place, self_slots=place, action_slots=given.place.action_slots
                ),
            )
            call = self._capture(lambda: _forward(dit, fixed, context, caches, output))
            self._passes[key] = call
        return self._passes[key]()

    def frame(self, decoder: StreamingDecoder, x: Tensor, memory: FeatureCache) -> Tensor:
        """`decoder.decode_frame(...)`; what it returns is good until the next latent frame."""
        self._decoded += not memory.first
        if self._decoded < SETTLED:
            return decoder.decode_frame(x, memory)
        if self._latent is None:
            self._latent = x.clone()
        fixed = self._latent
        fixed.copy_(x)
        if self._decode is None:
            self._decode = self._capture(lambda: decoder.decode_frame(fixed, memory))
        pixels = self._decode()
        assert pixels is not None
        return pixels

    def _capture(self, call: Call) -> Call:
        """`call` as one launch; where there are no graphs, the call itself."""
        if self._pool is None:
            return call
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads go on waiting for the frames before, which a global capture forbids.
            mode = "thread_local"
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(graph, pool=self._pool, capture_error_mode=mode),
            ):
                result = call()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"accelerate: capturing graphs failed here ({reason}); leave out 'graphs'"
            ) from error

        def replay() -> Result:
            graph.replay()
            return result

        return replay


def _forward(
    dit: DiT,
    given: PassInput,
    context: list[KeyValues],
    caches: list[LayerCache],
    output: bool,
) -> Result:
    where = (given.place, given.windows, context, caches)
    result: Result = dit(given.x, given.timesteps, *where, output=output)
    return result
