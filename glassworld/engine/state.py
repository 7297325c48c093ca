"""The state of a session: explicit, copied and restored as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from torch import Tensor

from glassworld.engine.conditioning import ActionHistory, ImageLatents
from glassworld.engine.cuda_graphs import PassGraphs
from glassworld.engine.sampling import NoiseSource
from glassworld.errors import InputError
from glassworld.models.transformer.kv_cache import KeyValues, LayerCache
from glassworld.models.vae.causal_conv import FeatureCache


@dataclass(repr=False)
class NetworkState:
    """Caches and memories of one session, or of several along the batch axis."""

    caches: list[LayerCache]
    context: list[KeyValues]
    decoder: FeatureCache
    graphs: PassGraphs | None = field(default=None, kw_only=True)  # captured over these tensors

    @staticmethod
    def cat(states: Sequence[NetworkState]) -> NetworkState:
        """Concatenate the states of several sessions, in storage of its own."""
        return NetworkState(
            [LayerCache.cat(same) for same in zip(*(s.caches for s in states), strict=True)],
            [KeyValues.cat(same) for same in zip(*(s.context for s in states), strict=True)],
            FeatureCache.cat([state.decoder for state in states]),
        )

    def rows(self, count: int) -> list[NetworkState]:
        """Return the state of each of `count` sessions, in the same storage."""
        caches = zip(*(cache.split(count) for cache in self.caches), strict=True)
        context = zip(*(keys.split(count) for keys in self.context), strict=True)
        decoders = self.decoder.split(count)
        return [
            NetworkState(list(layers), list(keys), decoder)
            for layers, keys, decoder in zip(caches, context, decoders, strict=True)
        ]


@dataclass(repr=False)
class SessionState(NetworkState):
    """One session between two blocks.

    `start` is the latent frame at which the next block begins, `block` its number; `prefilled` of
    the latent frames were given (an extension) rather than generated; `condition` is the first
    block's, prepared ahead, and None from then on; `shift` is by how many slots the rings are
    rolled; `config` describes the run in traces.
    """

    image: ImageLatents
    actions: ActionHistory
    noise: NoiseSource
    config: dict[str, Any]
    condition: Tensor | None = None
    start: int = 0
    block: int = 0
    prefilled: int = 0
    shift: int = 0

    def __repr__(self) -> str:
        return f"SessionState({self.progress}, {self.nbytes / 1e6:.1f} MB)"

    def __reduce__(self) -> NoReturn:
        raise InputError("SessionState: cannot be pickled; copy it by copy()")

    @property
    def progress(self) -> str:
        """How far the session is, for people."""
        return f"{self.block} blocks, {self.generated} latent frames"

    @property
    def generated(self) -> int:
        """Latent frames generated so far, without those that were given."""
        return self.start - self.prefilled

    def copy(self) -> SessionState:
        """Return a state that shares no tensor which a block writes."""
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
