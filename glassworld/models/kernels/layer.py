"""A layer of the transformer by kernels: one between two products, and one for short attentions."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.errors import InputError
from glassworld.models.action import ActionModule, ActionPass, ActionWindows
from glassworld.models.attention import attention, join_heads, split_heads
from glassworld.models.dense import Dense
from glassworld.models.dit import DiT
from glassworld.models.kernels.actions import LEAST, attend_own, attend_shared, place_actions
from glassworld.models.kernels.rows import (
    EIGHT_BITS,
    Affine,
    Modulated,
    Moments,
    add,
    add_and_norm,
    add_and_widen,
    gelu_to_eight_bits,
    rms_norm_in_place,
)
from glassworld.models.kernels.tokens import place_tokens
from glassworld.models.kv_window import KeyValues, LayerCache
from glassworld.models.layer import BlockPlace, Layer
from glassworld.models.quantised import QuantisedLinear, Scaled
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag

Product = Dense | QuantisedLinear
ATTEND, FEED = 0, 3  # where the moments of attention and feed-forward begin: shift, scale, gate
GATE = 2


def fuse_layers(dit: DiT) -> None:
    """Have the transformer's layers run by kernels, in place, with the same weights.

    Raises `InputError` where the heads of the action module do not suit them.
    """
    action = dit.spec.action
    width = action.keyboard_width // action.heads
    for count in (action.heads, width):
        if count & (count - 1):
            raise InputError(
                f"accelerate: kernels know heads and widths that are powers of two, not {count} as "
                "in this world's action module; leave out 'kernels'"
            )
    if width < LEAST:
        raise InputError(
            f"accelerate: kernels know heads of {LEAST} numbers or more, not of {width} as in this "
            "world's action module; leave out 'kernels'"
        )
    for index, layer in enumerate(dit.blocks):
        assert isinstance(layer, Layer)
        dit.blocks[index] = FusedLayer(layer)


class FusedLayer(Layer):
    """A `Layer` with the weights of a plain one. The residual stream is written in place."""

    def __init__(self, plain: Layer) -> None:
        nn.Module.__init__(self)
        self.eps = plain.eps
        self.self_attn, self.norm3 = plain.self_attn, plain.norm3
        self.cross_attn, self.action_model = plain.cross_attn, plain.action_model
        self.ffn, self.modulation = plain.ffn, plain.modulation

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        place: BlockPlace,
        windows: ActionWindows,
        context: KeyValues,
        cache: LayerCache | None,
    ) -> Tensor:
        """As the plain layer does; without a cache, in training, just so."""
        if cache is None or place.self_place is None:
            return super().forward(x, time, place, windows, context, cache)
        moments = self.moments(x, time)
        with tag(tags.SELF_ATTENTION):
            y = self.among_tokens(x, moments, place, cache)
            affine = Affine(self.norm3.weight, self.norm3.bias)
            eight_bits = in_eight_bits(self.cross_attn.q)
            h = add_and_norm(x, y, affine, self.eps, moments, ATTEND + GATE, eight_bits)
        with tag(tags.CROSS_ATTENTION):
            y = self.to_context(h, context)
        if self.action_model is not None:
            shared = ActionPass(windows, place.action_rotary, place.action_place, None)
            y = steer(self.action_model, x, y, shared, cache)
        with tag(tags.FEED_FORWARD):
            eight_bits = in_eight_bits(self.ffn[0])
            h = add_and_norm(x, y, Modulated(FEED), self.eps, moments, eight_bits=eight_bits)
            add(x, self.hidden(h), moments, FEED + GATE)
        return x

    def moments(self, x: Tensor, time: Tensor) -> Moments:
        frames, positions = x.shape[1:3]
        return Moments(self.modulation, time.contiguous(), frames * positions // time.shape[1])

    def among_tokens(
        self, x: Tensor, moments: Moments, place: BlockPlace, cache: LayerCache
    ) -> Tensor:
        attend, window = self.self_attn, cache.self_attention
        assert place.self_place is not None
        eight_bits = in_eight_bits(attend.qkv)
        h = add_and_norm(x, None, Modulated(ATTEND), self.eps, moments, eight_bits=eight_bits)
        norms = (attend.norm_q.weight, attend.norm_k.weight)
        qkv = multiply(attend.qkv, h).flatten(1, 2)
        q = place_tokens(qkv, norms, attend.norm_q.eps, place.rotary, window, place.self_place)
        seen = attention(q, *window.filled(place.self_place))
        return attend.o(join_heads(seen))

    def to_context(self, h: Tensor | Scaled, context: KeyValues) -> Tensor:
        cross = self.cross_attn
        q = multiply(cross.q, h).flatten(1, 2)
        q = split_heads(rms_norm_in_place(q, cross.norm_q.weight, cross.norm_q.eps), cross.heads)
        return cross.o(join_heads(attention(q, context.k, context.v)))

    def hidden(self, h: Tensor | Scaled) -> Tensor:
        first, _, last = cast("tuple[Product, nn.Module, Product]", tuple(self.ffn))
        if isinstance(h, Scaled):
            assert isinstance(last, QuantisedLinear)
            return last.multiply(gelu_to_eight_bits(multiply(first, h)))
        return last(first(h))

    def remember(self, x: Tensor, time: Tensor, place: BlockPlace, cache: LayerCache) -> None:
        attend, dim = self.self_attn, x.shape[-1]
        assert place.self_place is not None
        with tag(tags.SELF_ATTENTION):
            moments = self.moments(x, time)
            h = add_and_norm(x, None, Modulated(ATTEND), self.eps, moments)
            assert isinstance(h, Tensor)
            if isinstance(attend.qkv, QuantisedLinear):
                kv = attend.qkv(h, first=dim)
            else:
                kv = F.linear(h, attend.qkv.weight[dim:], attend.qkv.bias[dim:])
            norms = (attend.norm_q.weight, attend.norm_k.weight)
            where = (cache.self_attention, place.self_place)
            place_tokens(kv.flatten(1, 2), norms, attend.norm_q.eps, place.rotary, *where)


def steer(
    module: ActionModule, x: Tensor, y: Tensor, shared: ActionPass, cache: LayerCache
) -> Tensor:
    """Add `y` and what the mouse says to `x`; returns what the keyboard adds."""
    windows, rotary, place = shared.windows, shared.rotary, shared.place
    assert place is not None
    assert cache.keyboard is not None
    if windows.mouse is not None and module.has_mouse:
        assert cache.mouse is not None
        with tag(tags.MOUSE_ATTENTION):
            wide = add_and_widen(x, y, windows.mouse.flatten(2))
            first, _, last, norm = cast(
                "tuple[Dense, nn.Module, Dense, nn.LayerNorm]", tuple(module.mouse_mlp)
            )
            affine = Affine(norm.weight, norm.bias)
            qkv = module.t_qkv(add_and_norm(last(first(wide)), None, affine, norm.eps))
            width = qkv.shape[-1] // 3
            place_actions(qkv[..., width:], module.eps, rotary, cache.mouse, place)
            seen = attend_own(qkv[..., :width], module.eps, rotary, cache.mouse, place)
            y = module.proj_mouse(seen)
    with tag(tags.KEYBOARD_ATTENTION):
        add(x, y)
        kv = module.keyboard_attn_kv(module.keyboard_embed(windows.keyboard).flatten(2))
        place_actions(kv.unsqueeze(2), module.eps, rotary, cache.keyboard, place)
        q = module.mouse_attn_q(x)
        seen = attend_shared(q, module.eps, rotary, cache.keyboard, place)
        return module.proj_keyboard(seen)


def in_eight_bits(layer: nn.Module) -> bool:
    """Whether a kernel may hand this layer its input in 8 bits."""
    return isinstance(layer, QuantisedLinear) and layer.weight.dtype is EIGHT_BITS


def multiply(layer: Product, h: Tensor | Scaled) -> Tensor:
    if isinstance(h, Scaled):
        assert isinstance(layer, QuantisedLinear)
        return layer.multiply(h)
    return layer(h)
