"""Blocks whose actions are known beforehand, so that nobody waits for single frames.

In small worlds, on processors, that saves time twice. A block is decoded in one call: large
operators cost less than many small ones. And it is decoded while the next block is generated:
matmuls too small to gain from a second core leave half of the threads to the decoder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice

import torch

from glassworld.engine.pipeline import BlockOutput, Pipeline
from glassworld.engine.runtime.threads import ThreadChooser, chosen_by_user, using_threads
from glassworld.engine.state import SessionState
from glassworld.profiling.tags import is_active
from glassworld.specs import WorldSpec

SMALL_BLOCK = 2**18
"""Numbers in a block's tokens, up to which the transformer gains little from a second core."""

MIN_SHARE = 0.2
"""Of the decoder's work that the transformer must have, or half of the cores would wait for it."""


def stream_blocks(
    pipeline: Pipeline, state: SessionState, turns: Iterable[object], ahead: bool = True
) -> Generator[BlockOutput]:
    """Generate the session's next blocks, one for each of `turns`, read as each block begins.

    With `ahead` the state may be a block ahead of what was yielded, and numbers may be rounded
    otherwise than in live play. While tags are recorded or listened to, one thing is done after
    another, so that each tag says what its part takes.
    """
    if not ahead or is_active() or not is_small(pipeline):
        return _in_turn(pipeline, state, turns, 1)
    if overlaps(pipeline):
        return _overlapped(pipeline, state, turns)
    return _in_turn(pipeline, state, turns, pipeline.spec.frames_per_block)


def is_small(pipeline: Pipeline) -> bool:
    """Return whether fewer, larger operators pay: on a processor, uncompiled, in small worlds."""
    spec, networks = pipeline.spec, pipeline.networks
    small = spec.frames_per_block * spec.tokens_per_frame * spec.dit.dim <= SMALL_BLOCK
    return small and networks.device.type == "cpu" and not networks.compiled


def overlaps(pipeline: Pipeline) -> bool:
    """Return whether decoding beside the transformer pays: on two cores, if both work enough."""
    transformer, decoder = count_multiplications(pipeline.spec)
    enough = transformer > MIN_SHARE * decoder
    return is_small(pipeline) and enough and torch.get_num_threads() > 1


def count_multiplications(spec: WorldSpec) -> tuple[int, int]:
    """Count the multiplications of a block in the transformer and in the decoder.

    Of the transformer only the large matmuls count, of the decoder only the residual blocks: all
    that matters for a comparison.
    """
    dit, vae = spec.dit, spec.vae
    passes = len(spec.denoising_steps) + 1
    layers = dit.num_layers * (8 * dit.dim**2 + 2 * dit.dim * dit.ffn_dim)
    transformer = passes * spec.frames_per_block * spec.tokens_per_frame * layers
    rows, columns = spec.latent_size
    pixels, decoder = spec.frames_per_block * rows * columns, 0
    for index, width in enumerate(vae.stage_widths[::-1]):
        decoder += 2 * (vae.residual_blocks + 1) * 27 * width**2 * pixels
        if index < len(vae.temporal):
            pixels *= 8 if vae.temporal[::-1][index] else 4
    return transformer, decoder


def _in_turn(
    pipeline: Pipeline, state: SessionState, turns: Iterable[object], at_once: int
) -> Generator[BlockOutput]:
    for _ in turns:
        yield pipeline.generate_block([state], at_once=at_once)


def _overlapped(
    pipeline: Pipeline, state: SessionState, turns: Iterable[object]
) -> Generator[BlockOutput]:
    """Generate the first block alone, because somebody waits for it, the others on two lanes."""
    turns, frames = iter(turns), pipeline.spec.frames_per_block
    yield from _in_turn(pipeline, state, islice(turns, 1), frames)
    most = torch.get_num_threads()
    chooser = None if chosen_by_user() else ThreadChooser(most, fewest=2)
    with ThreadPoolExecutor(1) as decoding:
        waiting: deque[BlockOutput] = deque()
        for _ in turns:
            # Only here: the caller computes with its own number of threads.
            with chooser.block() if chooser else nullcontext(most) as threads:
                decoding.submit(torch.set_num_threads, threads - threads // 2)
                with using_threads(threads // 2):
                    block = pipeline.generate_block([state], at_once=frames, executor=decoding)
                waiting.append(block)
                if len(waiting) > 1:
                    waiting[0].decoded()
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting
