"""What the decoders have in common: they decode one latent frame after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag

DecodeFrame = Callable[[Tensor, FeatureCache], Tensor]


class StreamingDecoder(nn.Module, ABC):
    """Latents to pictures, as soon as each latent frame is decoded."""

    compiled = False  # set when its parts are

    def stream(
        self,
        latents: Tensor,
        memory: FeatureCache,
        decode: DecodeFrame | None = None,
        at_once: int = 1,
    ) -> Iterator[Tensor]:
        """Decode the next latents `[b, c, t, h, w]`, one latent frame after another.

        Yields 8-bit pictures `[b, n, 8h, 8w, 3]` of each latent frame: n is 1 for the first of a
        clip, then 4; or of `at_once` of them. `decode` takes the place of `self.decode_frame`.
        """
        for index, x in enumerate(self.preprocess(latents).split(at_once, 1)):
            with tag(tags.DECODE_FRAME, frame=index):
                pixels = (decode or self.decode_frame)(x, memory)
                memory.first = False
            with tag(tags.DECODE_POST):
                pictures = self.to_bytes(pixels)
            yield pictures

    @abstractmethod
    def preprocess(self, latents: Tensor) -> Tensor:
        """What is done for all of the latents at once: to `[b, t, h, w, c]`."""

    @abstractmethod
    def decode_frame(self, x: Tensor, memory: FeatureCache) -> Tensor:
        """The pixels `[b, n, 8h, 8w, 3]` of the next latent frames `[b, t, h, w, c]`."""

    @abstractmethod
    def to_bytes(self, pixels: Tensor) -> Tensor:
        """Pixels to 0..255."""
