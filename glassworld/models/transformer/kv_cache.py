"""Ring KV cache: keys and values of the latent frames that attention still sees.

Keys are stored after rotation and attention does not depend on their order, so latent frame f
lives in slot `f mod window` and overwrites the frame that leaves the window. Attention sinks, the
frames that are never evicted, are pinned in front. The slots to write are integers on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """`length` frames of a block, from its frame `source` on, that go to the slots from `slot`."""

    source: int
    slot: int
    length: int


@dataclass(frozen=True)
class CacheSlots:
    """The slots of a ring that one block is written to, and how many are filled afterwards."""

    spans: tuple[Span, ...]
    filled: int

    @staticmethod
    def for_block(
        start: int, frames: int, window: int, sink: int = 0, shift: int = 0
    ) -> CacheSlots:
        """Return the slots of latent frames `start` .. `start + frames - 1`.

        `shift`: by how many slots the ring was rolled, which only happens to full ones. Raises
        `ValueError` for a block that does not fit.
        """
        ring = window - sink
        if frames > ring:
            raise ValueError(f"a block of {frames} frames does not fit a ring of {ring}")
        spans: list[Span] = []
        for index in range(frames):
            frame = start + index
            slot = frame if frame < sink else sink + (frame + shift - sink) % ring
            last = spans[-1] if spans else None
            if last is not None and slot == last.slot + last.length:
                spans[-1] = last._replace(length=last.length + 1)
            else:
                spans.append(Span(index, slot, 1))
        return CacheSlots(tuple(spans), min(start + frames, window))


@dataclass(frozen=True)
class BatchSlots:
    """The slots of sessions that stand at different points of their windows.

    `groups`: how many neighbors in the batch share the same slots, and those slots.
    """

    groups: tuple[tuple[int, CacheSlots], ...]

    @staticmethod
    def join(sessions: Sequence[CacheSlots | BatchSlots | None]) -> CacheSlots | BatchSlots:
        """Join the slots of several sessions: those of one if all are the same."""
        groups = [
            (len(list(same)), slots)
            for slots, same in groupby(sessions)
            if isinstance(slots, CacheSlots)
        ]
        return groups[0][1] if len(groups) == 1 else BatchSlots(tuple(groups))

    def parts(self, rows: int) -> Iterator[tuple[slice, CacheSlots]]:
        """Yield each group's rows of a batch axis of `rows`, a multiple of the sessions."""
        per_session = rows // sum(count for count, _ in self.groups)
        first = 0
        for count, slots in self.groups:
            end = first + count * per_session
            yield slice(first, end), slots
            first = end


@dataclass
class RingKVCache:
    """Rings `k` and `v`, `[b, heads, slots * per_frame, d]`, written in place.

    A slot holds one latent frame, which has `per_frame` keys.
    """

    k: Tensor
    v: Tensor
    per_frame: int

    @staticmethod
    def empty(
        batch: int, heads: int, slots: int, per_frame: int, like: Tensor, head_dim: int
    ) -> RingKVCache:
        """Return rings of zeros with the device and dtype of `like`."""
        shape = (batch, heads, slots * per_frame, head_dim)
        return RingKVCache(like.new_zeros(shape), like.new_zeros(shape), per_frame)

    def update(self, k: Tensor, v: Tensor, slots: CacheSlots) -> tuple[Tensor, Tensor]:
        """Write a block's keys and values `[b, heads, frames * per_frame, d]`.

        Returns the keys and values of every filled slot.
        """
        step = self.per_frame
        for source, slot, length in slots.spans:
            block = slice(source * step, (source + length) * step)
            ring = slice(slot * step, (slot + length) * step)
            self.k[:, :, ring] = k[:, :, block]
            self.v[:, :, ring] = v[:, :, block]
        return self.filled(slots)

    def write(self, k: Tensor, v: Tensor, slots: CacheSlots | BatchSlots) -> None:
        """Write a block's keys and values, those of each session to its own slots."""
        if isinstance(slots, CacheSlots):
            self.update(k, v, slots)
            return
        for rows, same in slots.parts(len(k)):
            self.rows(rows).update(k[rows], v[rows], same)

    def filled(self, slots: CacheSlots) -> tuple[Tensor, Tensor]:
        """Return the keys and values of every filled slot."""
        end = slots.filled * self.per_frame
        return self.k[:, :, :end], self.v[:, :, :end]

    def rows(self, rows: slice) -> RingKVCache:
        """Return the rings of some rows of the batch axis, in the same storage."""
        return RingKVCache(self.k[rows], self.v[rows], self.per_frame)

    @staticmethod
    def cat(caches: Sequence[RingKVCache]) -> RingKVCache:
        """Concatenate the caches of several sessions along the batch axis."""
        k, v = (torch.cat(parts) for parts in zip(*((c.k, c.v) for c in caches), strict=True))
        return RingKVCache(k, v, caches[0].per_frame)

    def split(self, count: int) -> list[RingKVCache]:
        """Return the cache of each of `count` sessions, in the same storage."""
        pairs = zip(self.k.chunk(count), self.v.chunk(count), strict=True)
        return [RingKVCache(k, v, self.per_frame) for k, v in pairs]

    def roll(self, slots: int, sink: int = 0) -> RingKVCache:
        """Return a copy with slot s moved to slot s + `slots`, around behind the sinks."""
        pinned = sink * self.per_frame

        def rolled(x: Tensor) -> Tensor:
            ring = x[:, :, pinned:].roll(slots * self.per_frame, 2)
            return torch.cat([x[:, :, :pinned], ring], 2)

        return RingKVCache(rolled(self.k), rolled(self.v), self.per_frame)

    def copy(self) -> RingKVCache:
        """Return a copy in storage of its own."""
        return RingKVCache(self.k.clone(), self.v.clone(), self.per_frame)


class KeyValues(NamedTuple):
    """Keys and values of the visual context, `[b, heads, n, d]`, constant in a session."""

    k: Tensor
    v: Tensor

    @staticmethod
    def cat(sessions: Sequence[KeyValues]) -> KeyValues:
        """Concatenate those of several sessions along the batch axis."""
        return KeyValues(*(torch.cat(parts) for parts in zip(*sessions, strict=True)))

    def split(self, count: int) -> list[KeyValues]:
        """Return those of each of `count` sessions, in the same storage."""
        return [KeyValues(*pair) for pair in zip(*(x.chunk(count) for x in self), strict=True)]


@dataclass
class LayerCache:
    """The ring caches of one transformer layer; without an action module, self-attention only."""

    self_attention: RingKVCache
    mouse: RingKVCache | None = None
    keyboard: RingKVCache | None = None

    @staticmethod
    def cat(sessions: Sequence[LayerCache]) -> LayerCache:
        """Concatenate the caches of several sessions along the batch axis."""
        mouse = [cache.mouse for cache in sessions if cache.mouse is not None]
        keyboard = [cache.keyboard for cache in sessions if cache.keyboard is not None]
        return LayerCache(
            RingKVCache.cat([cache.self_attention for cache in sessions]),
            RingKVCache.cat(mouse) if mouse else None,
            RingKVCache.cat(keyboard) if keyboard else None,
        )

    def split(self, count: int) -> list[LayerCache]:
        """Return the caches of each of `count` sessions, in the same storage."""
        none: list[RingKVCache | None] = [None] * count
        parts = (
            self.self_attention.split(count),
            none if self.mouse is None else self.mouse.split(count),
            none if self.keyboard is None else self.keyboard.split(count),
        )
        return [LayerCache(*session) for session in zip(*parts, strict=True)]

    def roll(self, slots: int, sink: int) -> LayerCache:
        """Return a copy with all rings rolled; only self-attention has sinks."""
        return LayerCache(
            self.self_attention.roll(slots, sink),
            None if self.mouse is None else self.mouse.roll(slots),
            None if self.keyboard is None else self.keyboard.roll(slots),
        )

    def copy(self) -> LayerCache:
        """Return a copy in storage of its own."""
        return LayerCache(
            self.self_attention.copy(),
            None if self.mouse is None else self.mouse.copy(),
            None if self.keyboard is None else self.keyboard.copy(),
        )
