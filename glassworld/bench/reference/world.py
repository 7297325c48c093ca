"""Eager baseline: a world computed as the released code computes it, operator by operator.

It has the same weights and results, and none of this package's optimizations. The parts that run
once, before the first block, are shared: the encoder, the image tower and the keys of the context.
The benchmark runs it beside ours in one process, and a test compares their results.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

from glassworld.bench.reference.decoder import EagerDecoder
from glassworld.bench.reference.transformer import EagerDiT
from glassworld.engine.world import World
from glassworld.models.transformer.dit import DiT
from glassworld.models.vae.decoder import VAEDecoder


def eager_world(world: World) -> World:
    """Return the same world, computed as the released code computes it, for one session at a time.

    The weights are shared. The layers are copies, which accelerating `world` does not change.
    """
    networks = world.networks
    assert isinstance(networks.decoder, VAEDecoder)
    shared = {id(weight): weight for weight in networks.dit.parameters()}
    dit = cast(DiT, EagerDiT(copy.deepcopy(networks.dit, shared)))
    decoder = EagerDecoder(networks.decoder)
    networks = replace(networks, dit=dit, decoder=decoder)
    return World(world.spec, networks, f"{world.name} (eager)")
