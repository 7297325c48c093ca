"""The state of a session: explicit, copied and restored as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from glassworld.engine.conditioning import ActionHistory, ImageLatents
from glassworld.engine.cuda_graphs import PassGraphs
from glassworld.engine.sampling import NoiseSource
from glassworld.errors import InputError
from glassworld.models.transformer.kv_cache import KeyValues, LayerCache
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.specs import TIME_FACTOR, WorldSpec

RECENT_WINDOWS = 2
"""Windows of latents that a session keeps, to rebuild its caches from."""


def recent_frames(spec: WorldSpec) -> int:
    """Return how many latent frames a session keeps: `RECENT_WINDOWS` windows, in whole blocks."""
    return -(-RECENT_WINDOWS * spec.dit.window // spec.frames_per_block) * spec.frames_per_block


def recent_rows(spec: WorldSpec) -> int:
    """Return how many rows of actions the kept latent frames and the next block see."""
    return spec.dit.action.rows + TIME_FACTOR * recent_frames(spec)


class DecoderPart(NamedTuple):
    """Neighbors in a batch whose next latent frames are decoded in one call."""

    sessions: range  # their indices
    memory: FeatureCache

    @property
    def rows(self) -> slice:
        """Their rows of the batch axis."""
        return slice(self.sessions.start, self.sessions.stop)


@dataclass(repr=False)
class NetworkState(ABC):
    """Caches and memories of one session, or of several along the batch axis."""

    caches: list[LayerCache]
    context: list[KeyValues]
    graphs: PassGraphs | None = field(default=None, kw_only=True)  # captured over these tensors

    @property
    @abstractmethod
    def decoder_parts(self) -> list[DecoderPart]:
        """The decoder's memories, one for each call."""


@dataclass(repr=False)
class BatchState(NetworkState):
    """The caches and memories of several sessions, in storage of their own."""

    decoders: list[DecoderPart]

    @property
    def decoder_parts(self) -> list[DecoderPart]:
        """The decoder's memories, one for each call."""
        return self.decoders

    @staticmethod
    def cat(states: Sequence[SessionState]) -> BatchState:
        """Concatenate the states of several sessions along the batch axis."""
        decoders: list[DecoderPart] = []
        for _, same in groupby((state.decoder for state in states), FeatureCache.stage):
            memories = list(same)
            first = decoders[-1].sessions.stop if decoders else 0
            sessions = range(first, first + len(memories))
            decoders.append(DecoderPart(sessions, FeatureCache.cat(memories)))
        return BatchState(
            [LayerCache.cat(same) for same in zip(*(s.caches for s in states), strict=True)],
            [KeyValues.cat(same) for same in zip(*(s.context for s in states), strict=True)],
            decoders,
        )

    def split_caches(self, count: int) -> list[list[LayerCache]]:
        """Return the caches of each of `count` sessions, in the same storage."""
        layers = (cache.split(count) for cache in self.caches)
        return [list(session) for session in zip(*layers, strict=True)]

    def split_decoders(self) -> list[FeatureCache]:
        """Return the decoder's memory of each session, in the same storage."""
        return [
            memory
            for sessions, memories in self.decoders
            for memory in memories.split(len(sessions))
        ]


@dataclass(repr=False)
class SessionState(NetworkState):
    """One session between two blocks.

    `start` is the latent frame at which the next block begins, `block` its number; `prefilled` of
    the latent frames were given (an extension) rather than generated; `condition` is the first
    block's, prepared ahead, and None from then on; `shift` is by how many slots the rings are
    rolled; `config` describes the run in traces; `recent` holds the latents of the last
    `recent_frames`, `[1, c, f, h, w]`, from which a light file rebuilds the caches; `decoding` is
    the last block's, where it runs in another thread and writes the decoder's memory.
    """

    decoder: FeatureCache
    image: ImageLatents
    actions: ActionHistory
    noise: NoiseSource
    config: dict[str, Any]
    condition: Tensor | None = None
    start: int = 0
    block: int = 0
    prefilled: int = 0
    shift: int = 0
    recent: Tensor | None = None
    decoding: Future[Any] | None = None

    def __repr__(self) -> str:
        return f"SessionState({self.progress}, {self.nbytes / 1e6:.1f} MB)"

    def __reduce__(self) -> NoReturn:
        raise InputError("SessionState: cannot be pickled; copy it by copy()")

    @property
    def decoder_parts(self) -> list[DecoderPart]:
        """The decoder's memory, of one call."""
        return [DecoderPart(range(1), self.decoder)]

    @property
    def progress(self) -> str:
        """How far the session is, for people."""
        return f"{self.block} blocks, {self.generated} latent frames"

    @property
    def generated(self) -> int:
        """Latent frames generated so far, without those that were given."""
        return self.start - self.prefilled

    def settle(self) -> None:
        """Wait until the last block is decoded: nothing else writes this state from then on."""
        if self.decoding is not None:
            wait([self.decoding])
            self.decoding = None

    def remember(self, latents: Tensor, keep: int) -> None:
        """Keep the latents `[1, c, f, h, w]` of a block, and of the last `keep` frames in all."""
        parts = [latents] if self.recent is None else [self.recent, latents]
        self.recent = torch.cat(parts, 2)[:, :, -keep:].clone()

    def copy(self) -> SessionState:
        """Return a state that shares no tensor which a block writes."""
        self.settle()
        return SessionState(
            caches=[cache.copy() for cache in self.caches],
            context=self.context,
            decoder=self.decoder.copy(),
            image=self.image.copy(),
            actions=self.actions.copy(),
            noise=self.noise.copy(),
            config=self.config,
            condition=self.condition,
            start=self.start,
            block=self.block,
            prefilled=self.prefilled,
            shift=self.shift,
            recent=self.recent,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the caches, the context and the memories of the VAE."""
        windows = [
            window
            for cache in self.caches
            for window in (cache.self_attention, cache.mouse, cache.keyboard)
            if window is not None
        ]
        tensors = [tensor for window in windows for tensor in (window.k, window.v)]
        tensors += [tensor for pair in self.context for tensor in pair]
        tensors += [*self.decoder.frames.values(), *self.image.memory.frames.values()]
        return sum(tensor.nbytes for tensor in tensors)
