"""Whole passes as CUDA graphs: captured once, then launched as one.

A block at full size launches thousands of kernels; a captured pass is a single launch, and the
host is free. What a pass reads and writes must keep its addresses: caches and the decoder's memory
are written in place anyway, and all other inputs are copied into fixed tensors first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from glassworld.errors import InputError
from glassworld.models.transformer.action import ActionWindows
from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.kv_cache import BatchSlots, CacheSlots, KeyValues, LayerCache
from glassworld.models.transformer.layer import BlockPosition
from glassworld.models.transformer.rope import RotaryTable
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.models.vae.streaming import StreamingDecoder
from glassworld.profiling.tags import recording_number

FIRST_CAPTURED = 3
"""Decoding is captured from this latent frame of a clip on: in the frame before, all layers
remembered something for the first time."""

Result = Tensor | None
Call = Callable[[], Result]


@dataclass(frozen=True)
class PassInput:
    """The inputs that change from one pass over a block to the next."""

    x: Tensor
    timesteps: Tensor
    place: BlockPosition
    windows: ActionWindows

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in a fixed order."""
        place, mouse = self.place, self.windows.mouse
        rotaries = [*place.rotary, *place.action_rotary]
        tensors = [self.x, self.timesteps, *rotaries, self.windows.keyboard]
        return tensors if mouse is None else [*tensors, mouse]

    def copy(self) -> PassInput:
        """Return a copy in storage of its own."""
        place, mouse = self.place, self.windows.mouse
        return PassInput(
            self.x.clone(),
            self.timesteps.clone(),
            replace(
                place,
                rotary=RotaryTable(*(table.clone() for table in place.rotary)),
                action_rotary=RotaryTable(*(table.clone() for table in place.action_rotary)),
            ),
            ActionWindows(self.windows.keyboard.clone(), None if mouse is None else mouse.clone()),
        )

    def take(self, other: PassInput) -> None:
        """Copy the numbers of `other` into this one's storage."""
        for own, new in zip(self.tensors(), other.tensors(), strict=True):
            own.copy_(new)


PassKey = tuple[CacheSlots | None, CacheSlots | None, bool]


@cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream that passes of a device are captured on.

    Torch's own is of the device that was captured first: a graph of another one would be empty.
    All share one, because cuBLAS keeps a workspace for each stream.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class PassGraphs:
    """The captured passes over the caches of one session, or of one batch.

    They are valid for the storage they were captured with, and belong to the state that owns it.
    A pass is captured the second time it runs, so that everything has been set up by then. In a
    recorded run, the first of each kind runs without its graph.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._seen: set[PassKey] = set()
        self._input: PassInput | None = None
        self._passes: dict[PassKey, Call] = {}
        self._recording = 0
        self._recorded: set[PassKey | str] = set()
        self._decoded = 0
        self._latent: Tensor | None = None
        self._decode: Call | None = None

    def forward(
        self,
        dit: DiT,
        inputs: PassInput,
        context: list[KeyValues],
        caches: list[LayerCache],
        output: bool,
    ) -> Result:
        """Run `dit(...)`; its result is valid until the next pass."""
        place, action_place = inputs.place.self_slots, inputs.place.action_slots
        # A batch of sessions at different points of their windows is refused before.
        assert not isinstance(place, BatchSlots)
        assert not isinstance(action_place, BatchSlots)
        key = (place, action_place, output)
        growing = place is None or place.filled < dit.spec.window
        unrecorded = self._unrecorded(key)
        if growing or key not in self._seen or unrecorded:
            self._seen.add(key)
            return _forward(dit, inputs, context, caches, output)
        if self._input is None:
            self._input = inputs.copy()
        self._input.take(inputs)
        if key not in self._passes:
            fixed = replace(
                self._input,
                place=replace(self._input.place, self_slots=place, action_slots=action_place),
            )
            call = self._capture(lambda: _forward(dit, fixed, context, caches, output))
            self._passes[key] = call
        return self._passes[key]()

    def frame(self, decoder: StreamingDecoder, x: Tensor, memory: FeatureCache) -> Tensor:
        """Run `decoder.decode_frame(...)`; its result is valid until the next latent frame."""
        self._decoded += not memory.first
        captured = self._decoded >= FIRST_CAPTURED
        if not captured or self._unrecorded("decode"):
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

    def _unrecorded(self, key: PassKey | str) -> bool:
        """Return whether a trace is recorded that has not seen this pass yet; now it has.

        A trace cannot look into a graph. One pass without it shows the order of its kernels and
        the tags around each, and the analyzer names the kernels of all replays after it.
        """
        now = recording_number()
        if now != self._recording:
            self._recording, self._recorded = now, set()
        if not now or key in self._recorded:
            return False
        self._recorded.add(key)
        return True

    def _capture(self, call: Call) -> Call:
        """Return `call` as one launch; without a GPU, the call itself."""
        if self._pool is None:
            return call
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads go on waiting for the frames before, which a global capture forbids.
            mode = "thread_local"
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(
                    graph,
                    pool=self._pool,
                    stream=capture_stream(self._device),
                    capture_error_mode=mode,
                ),
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
    inputs: PassInput,
    context: list[KeyValues],
    caches: list[LayerCache],
    output: bool,
) -> Result:
    where = (inputs.place, inputs.windows, context, caches)
    result: Result = dit(inputs.x, inputs.timesteps, *where, output=output)
    return result
