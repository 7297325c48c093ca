"""The interface of the streaming decoders, which decode one latent frame after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag

DecodeFrame = Callable[[Tensor, FeatureCache], Tensor]


class StreamingDecoder(nn.Module, ABC):
    """Latents to images, each latent frame's as soon as it is decoded."""

    compiled = False  # set once its parts are compiled

    def stream(
        self,
        latents: Tensor,
        cache: FeatureCache,
        decode: DecodeFrame | None = None,
        at_once: int = 1,
    ) -> Iterator[Tensor]:
        """Decode the next latents `[b, c, t, h, w]`, `at_once` latent frames at a time.

        Yields 8-bit images `[b, n, 8h, 8w, 3]`: n is 1 for the first latent frame of a clip and 4
        for every other one. `decode` replaces `self.decode_frame`.
        """
        for index, x in enumerate(self.preprocess(latents).split(at_once, 1)):
            with tag(tags.DECODE_FRAME, frame=index):
                pixels = (decode or self.decode_frame)(x, cache)
                cache.first = False
            with tag(tags.DECODE_POST):
                images = self.to_bytes(pixels)
            yield images

    @abstractmethod
    def preprocess(self, latents: Tensor) -> Tensor:
        """Do what is done for all latents at once; return `[b, t, h, w, c]`."""

    @abstractmethod
    def decode_frame(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """Return the pixels `[b, n, 8h, 8w, 3]` of the next latent frames `[b, t, h, w, c]`."""

    @abstractmethod
    def to_bytes(self, pixels: Tensor) -> Tensor:
        """Return pixels as uint8, 0..255."""
