"""All that a session has and the world has not: explicit, copied and restored as one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from glassworld.engine.conditions import ActionHistory, ImageLatents
from glassworld.engine.noise import NoiseSource
from glassworld.models.kv_window import KeyValues, LayerCache
from glassworld.models.vae_convs import Memory


@dataclass
class SessionState:
    """One session between two blocks.

    `start` is the latent frame the next block begins at, `block` its number; `prefilled` of the
    latent frames were given (an extension) rather than made; `condition` is the first block's,
    prepared ahead, and None from then on.
    """

    caches: list[LayerCache]
    context: list[KeyValues]
    decoder: Memory
    image: ImageLatents
    actions: ActionHistory
    noise: NoiseSource
    condition: Tensor | None = None
    start: int = 0
    block: int = 0
    prefilled: int = 0

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
