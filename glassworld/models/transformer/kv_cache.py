"""Keys and values of the latent frames that attention still sees: a ring written in place.

Keys are stored after rotation and attention does not care about their order, so latent frame f
simply lives in slot `f mod window` and overwrites the frame that leaves; frames that are never
forgotten (sinks) are pinned in front. Where to write is decided by integers on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """Where the frames of one block go in a ring, and how many slots are filled afterwards."""

    spans: tuple[Span, ...]
    filled: int

    @staticmethod
    def for_block(
        start: int, frames: int, window: int, sink: int = 0, shift: int = 0
    ) -> CacheSlots:
        """For the block of latent frames `start` .. `start + frames - 1`.

        In a window turned by `shift` slots, which only full ones are.
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


@dataclass
class RingKVCache:
    """`k`, `v`: `[b, heads, slots * per_frame, d]`; `per_frame` keys stand for a latent frame."""

    k: Tensor
    v: Tensor
    per_frame: int

    @staticmethod
    def empty(
        batch: int, heads: int, slots: int, per_frame: int, like: Tensor, head_dim: int
    ) -> RingKVCache:
        """A ring of zeros on the device and of the type of `like`."""
        shape = (batch, heads, slots * per_frame, head_dim)
        return RingKVCache(like.new_zeros(shape), like.new_zeros(shape), per_frame)

    def update(self, k: Tensor, v: Tensor, place: CacheSlots) -> tuple[Tensor, Tensor]:
        """Write a block's keys and values `[b, heads, frames * per_frame, d]`.

        Returns the keys and values of every filled slot.
        """
        step = self.per_frame
        for source, slot, length in place.spans:
            block = slice(source * step, (source + length) * step)
            slots = slice(slot * step, (slot + length) * step)
            self.k[:, :, slots] = k[:, :, block]
            self.v[:, :, slots] = v[:, :, block]
        return self.filled(place)

    def filled(self, place: CacheSlots) -> tuple[Tensor, Tensor]:
        """The keys and values of every filled slot."""
        end = place.filled * self.per_frame
        return self.k[:, :, :end], self.v[:, :, :end]

    @staticmethod
    def cat(windows: Sequence[RingKVCache]) -> RingKVCache:
        """Of several sessions, along the batch's axis."""
        k, v = (torch.cat(parts) for parts in zip(*((w.k, w.v) for w in windows), strict=True))
        return RingKVCache(k, v, windows[0].per_frame)

    def split(self, count: int) -> list[RingKVCache]:
        """Of each of `count` sessions, in the same storage."""
        pairs = zip(self.k.chunk(count), self.v.chunk(count), strict=True)
        return [RingKVCache(k, v, self.per_frame) for k, v in pairs]

    def roll(self, slots: int, sink: int = 0) -> RingKVCache:
        """A copy in which what was in slot s is in slot s + `slots`, around behind the sinks."""
        ahead = sink * self.per_frame

        def turned(x: Tensor) -> Tensor:
            ring = x[:, :, ahead:].roll(slots * self.per_frame, 2)
            return torch.cat([x[:, :, :ahead], ring], 2)

        return RingKVCache(turned(self.k), turned(self.v), self.per_frame)

    def copy(self) -> RingKVCache:
        return RingKVCache(self.k.clone(), self.v.clone(), self.per_frame)


class KeyValues(NamedTuple):
    """Keys and values that never change in a session: the visual context's, `[b, heads, n, d]`."""

    k: Tensor
    v: Tensor

    @staticmethod
    def cat(sessions: Sequence[KeyValues]) -> KeyValues:
        """Of several sessions, along the batch's axis."""
        return KeyValues(*(torch.cat(parts) for parts in zip(*sessions, strict=True)))

    def split(self, count: int) -> list[KeyValues]:
        """Of each of `count` sessions, in the same storage."""
        return [KeyValues(*pair) for pair in zip(*(x.chunk(count) for x in self), strict=True)]


@dataclass
class LayerCache:
    """What one transformer layer keeps of the past; without an action module, attention only."""

    self_attention: RingKVCache
    mouse: RingKVCache | None = None
    keyboard: RingKVCache | None = None

    @staticmethod
    def cat(sessions: Sequence[LayerCache]) -> LayerCache:
        """Of several sessions, along the batch's axis."""
        mouse = [cache.mouse for cache in sessions if cache.mouse is not None]
        keyboard = [cache.keyboard for cache in sessions if cache.keyboard is not None]
        return LayerCache(
            RingKVCache.cat([cache.self_attention for cache in sessions]),
            RingKVCache.cat(mouse) if mouse else None,
            RingKVCache.cat(keyboard) if keyboard else None,
        )

    def split(self, count: int) -> list[LayerCache]:
        """Of each of `count` sessions, in the same storage."""
        none: list[RingKVCache | None] = [None] * count
        parts = (
            self.self_attention.split(count),
            none if self.mouse is None else self.mouse.split(count),
            none if self.keyboard is None else self.keyboard.split(count),
        )
        return [LayerCache(*row) for row in zip(*parts, strict=True)]

    def roll(self, slots: int, sink: int) -> LayerCache:
        """A copy with all windows turned; only self-attention has sinks."""
        return LayerCache(
            self.self_attention.roll(slots, sink),
            None if self.mouse is None else self.mouse.roll(slots),
            None if self.keyboard is None else self.keyboard.roll(slots),
        )

    def copy(self) -> LayerCache:
        return LayerCache(
            self.self_attention.copy(),
            None if self.mouse is None else self.mouse.copy(),
            None if self.keyboard is None else self.keyboard.copy(),
        )
