"""All that a session has and the world has not: explicit, copied and restored as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from glassworld.engine.acceleration.cuda_graphs import PassGraphs
from glassworld.engine.conditioning import ActionHistory, ImageLatents
from glassworld.engine.sampling import NoiseSource
from glassworld.models.transformer.kv_cache import KeyValues, LayerCache
from glassworld.models.vae.causal_conv import FeatureCache


@dataclass
class NetworkState:
    """What the networks read and write: of one session, or of several along the batch's axis."""

    caches: list[LayerCache]
    context: list[KeyValues]
    decoder: FeatureCache
    graphs: PassGraphs | None = field(default=None, kw_only=True)  # captured over these tensors

    @staticmethod
    def cat(states: Sequence[NetworkState]) -> NetworkState:
        """Of several sessions, in storage of its own."""
        return NetworkState(
            [LayerCache.cat(same) for same in zip(*(s.caches for s in states), strict=True)],
            [KeyValues.cat(same) for same in zip(*(s.context for s in states), strict=True)],
            FeatureCache.cat([state.decoder for state in states]),
        )

    def rows(self, count: int) -> list[NetworkState]:
        """Of each of `count` sessions, in the same storage."""
        caches = zip(*(cache.split(count) for cache in self.caches), strict=True)
        context = zip(*(keys.split(count) for keys in self.context), strict=True)
        decoders = self.decoder.split(count)
        return [
            NetworkState(list(layers), list(keys), decoder)
            for layers, keys, decoder in zip(caches, context, decoders, strict=True)
        ]


@dataclass
class SessionState(NetworkState):
    """One session between two blocks.

    `start` is the latent frame the next block begins at, `block` its number; `prefilled` of the
    latent frames were given (an extension) rather than made; `condition` is the first block's,
    prepared ahead, and None from then on; `shift` is by how many slots the windows are turned.
    """

    image: ImageLatents
    actions: ActionHistory
    noise: NoiseSource
    condition: Tensor | None = None
    start: int = 0
    block: int = 0
    prefilled: int = 0
    shift: int = 0

    def copy(self) -> SessionState:
        """A state that shares nothing which a block writes."""
        return SessionState(
            caches=[cache.copy() for cache in self.caches],
            context=self.context,
            decoder=self.decoder.copy(),
            image=self.image.copy(),
            actions=self.actions.copy(),
            noise=self.noise.copy(),
            condition=self.condition,
            start=self.start,
            block=self.block,
            prefilled=self.prefilled,
            shift=self.shift,
        )

    def tensors_bytes(self) -> int:
        """Bytes held by the caches, the context and the decoder's memory."""
        windows = [
            window
            for cache in self.caches
            for window in (cache.self_attention, cache.mouse, cache.keyboard)
            if window is not None
        ]
        held = [tensor for window in windows for tensor in (window.k, window.v)]
        held += [tensor for pair in self.context for tensor in pair]
        held += [*self.decoder.frames.values(), *self.image.memory.frames.values()]
        return sum(tensor.nbytes for tensor in held)
