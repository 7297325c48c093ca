"""The tiny world under the short names that tests use: `tiny.world()`, `tiny.picture()`."""

from __future__ import annotations

from glassworld.bench.tiny_world import TINY_DIT as DIT
from glassworld.bench.tiny_world import TINY_SPEC as SPEC
from glassworld.bench.tiny_world import fill_weights as fill
from glassworld.bench.tiny_world import tiny_start_image as picture
from glassworld.bench.tiny_world import tiny_world as world
from glassworld.engine.world import World
from glassworld.models.transformer.dit import DiT
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.specs import DiTSpec

__all__ = ["DIT", "SPEC", "dit", "fill", "picture", "vae_decoder", "world"]


def vae_decoder(of: World) -> VAEDecoder:
    decoder = of.networks.decoder
    assert isinstance(decoder, VAEDecoder)
    return decoder


def dit(spec: DiTSpec = DIT, seed: int = 1) -> DiT:
    network = DiT(spec)
    fill(network, seed)
    return network
