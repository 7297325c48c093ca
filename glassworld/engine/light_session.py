"""Rebuild a session from a light file: its caches are the results of passes over recent latents.

The passes are those that fill the caches after each block. The keys of a layer depend on earlier
frames than those of the window, so a session that is older than its file's latents goes on close
to the saved one, not with the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from glassworld.engine.run_config import describe
from glassworld.engine.runtime.threads import using_free_cores
from glassworld.engine.session import Session, open_session, prepare_inputs
from glassworld.engine.session_file import SessionReader
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag

if TYPE_CHECKING:
    from glassworld.engine.world import World


@torch.inference_mode()
def rebuild_session(world: World, file: SessionReader) -> Session:
    """Return the session in a light file; raise `InputError` if it is damaged."""
    header, spec = file.header, world.spec
    image = file.take("image.rgb", (spec.height, spec.width, 3)).numpy()
    run_frames = header.num_latent_frames if header.run_noise else None
    with tag(tags.DATA_PREPARATION), using_free_cores(world.device):
        inputs = prepare_inputs(world, image, header.seed, run_frames, lambda: None)
    session = open_session(world, inputs, describe(world, header.seed, header.num_latent_frames))
    state = session.state
    state.noise.generator.set_state(file.take("noise.generator"))
    state.actions = file.actions()
    state.start, state.block, state.prefilled = header.start, header.block, header.prefilled
    latents = file.take_optional("recent.latents")
    file.check_all_taken()
    if latents is not None:
        state.condition = None  # it was the first block's
        world.pipeline.rebuild(latents, state)
    return session
