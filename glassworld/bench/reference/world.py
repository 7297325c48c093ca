"""The baseline: a world computed the way the released code computes it, operator by operator.

The same weights and the same numbers, without anything this package does to be quick. What is
done once, before the first block, is ours: the encoder, the image tower, the context's keys.
The benchmark runs it beside ours in one process, and a test holds their numbers together.
"""

from __future__ import annotations

import copy
from typing import cast

from glassworld.bench.reference.decoder import EagerDecoder
from glassworld.bench.reference.transformer import EagerDiT
from glassworld.engine.world import Networks, World
from glassworld.models.transformer.dit import DiT
from glassworld.models.vae.decoder import VAEDecoder


def as_released(world: World) -> World:
    """The same world, computed as the released code does. Of one session at a time.

    Its weights are shared, its layers are not: what is done to the world's changes nothing here.
    """
    own = world.networks
    assert isinstance(own.decoder, VAEDecoder)
    layers = copy.deepcopy(own.dit, {id(weight): weight for weight in own.dit.parameters()})
    dit = cast(DiT, EagerDiT(layers))
    networks = Networks(dit, own.encoder, EagerDecoder(own.decoder), own.vision)
    return World(world.spec, networks, f"{world.name} (eager)")
