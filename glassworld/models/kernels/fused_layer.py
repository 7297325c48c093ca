"""A layer of the transformer by kernels: one between two products, and one for short attentions."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.errors import InputError
from glassworld.models.kernels.action_attention import (
    LEAST,
    attend_own,
    attend_shared,
    place_actions,
)
from glassworld.models.kernels.norm_residual import (
    EIGHT_BITS,
    Affine,
    Moments,
    Pending,
    add_and_norm,
    add_and_widen,
    finished,
    gelu_to_eight_bits,
    pending,
    rms_norm_in_place,
)
from glassworld.models.kernels.qkv_rope import place_tokens
from glassworld.models.ops.linear import PackedLinear
from glassworld.models.ops.quantized import QuantizedLinear, QuantizedTensor
from glassworld.models.transformer.action import ActionModule, ActionPass, ActionWindows
from glassworld.models.transformer.attention import attention, join_heads, split_heads
from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.kv_cache import KeyValues, LayerCache
from glassworld.models.transformer.layer import BlockPosition, Layer
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag

Product = PackedLinear | QuantizedLinear


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
        dit.blocks[index] = FusedLayer(layer, last=index == len(dit.blocks) - 1)


class FusedLayer(Layer):
    """A `Layer` with the weights of a plain one. The residual stream is written in place.

    Its last sum is left to the next layer, which reads and writes the same rows; the last layer
    has none.
    """

    def __init__(self, plain: Layer, last: bool) -> None:
        nn.Module.__init__(self)
        self.eps, self.last = plain.eps, last
        self.self_attn, self.norm3 = plain.self_attn, plain.norm3
        self.cross_attn, self.action_model = plain.cross_attn, plain.action_model
        self.ffn, self.modulation = plain.ffn, plain.modulation

    def forward(  # type: ignore[override]
        self,
        x: Tensor | Pending,
        time: Tensor,
        place: BlockPosition,
        windows: ActionWindows,
        context: KeyValues,
        cache: LayerCache | None,
    ) -> Tensor | Pending:
        """As the plain layer does; without a cache, in training, just so."""
        if cache is None or place.self_slots is None:
            return super().forward(finished(x), time, place, windows, context, cache)
        given = pending(x)
        with torch.cuda.device_of(given.x):
            return self.fused(given, time, place, windows, context, cache)

    def fused(
        self,
        given: Pending,
        time: Tensor,
        place: BlockPosition,
        windows: ActionWindows,
        context: KeyValues,
        cache: LayerCache,
    ) -> Tensor | Pending:
        x = given.x
        attend, _, attend_gate, feed, _, feed_gate = self.moments(x, time)
        with tag(tags.SELF_ATTENTION):
            y = self.among_tokens(given, attend, place, cache)
            affine = Affine(self.norm3.weight, self.norm3.bias)
            eight_bits = in_eight_bits(self.cross_attn.q)
            h = add_and_norm(Pending(x, y, attend_gate), affine, self.eps, eight_bits)
        with tag(tags.CROSS_ATTENTION):
            y = self.to_context(h, context)
        if self.action_model is not None:
            shared = ActionPass(windows, place.action_rotary, place.action_slots, None)
            y = steer(self.action_model, x, y, shared, cache)
        with tag(tags.FEED_FORWARD):
            h = add_and_norm(Pending(x, y), feed, self.eps, in_eight_bits(self.ffn[0]))
            left = Pending(x, self.hidden(h), feed_gate)
            return finished(left) if self.last else left

    def moments(self, x: Tensor, time: Tensor) -> list[Moments]:
        """For attention, then for the feed-forward: shift, scale, gate."""
        batch, frames, positions = x.shape[:3]
        times = time.expand(batch, -1, -1, -1).contiguous()  # of all sessions there may be one
        shared = (self.modulation, times, frames * positions // time.shape[1])
        return [Moments(*shared, part) for part in range(time.shape[2])]

    def among_tokens(
        self, x: Pending, moments: Moments, place: BlockPosition, cache: LayerCache
    ) -> Tensor:
        attend, window = self.self_attn, cache.self_attention
        assert place.self_slots is not None
        h = add_and_norm(x, moments, self.eps, in_eight_bits(attend.qkv))
        norms = (attend.norm_q.weight, attend.norm_k.weight)
        qkv = apply_linear(attend.qkv, h).flatten(1, 2)
        q = place_tokens(qkv, norms, attend.norm_q.eps, place.rotary, window, place.self_slots)
        seen = attention(q, *window.filled(place.self_slots))
        return attend.o(join_heads(seen))

    def to_context(self, h: Tensor | QuantizedTensor, context: KeyValues) -> Tensor:
        cross = self.cross_attn
        q = apply_linear(cross.q, h).flatten(1, 2)
        q = split_heads(rms_norm_in_place(q, cross.norm_q.weight, cross.norm_q.eps), cross.heads)
        return cross.o(join_heads(attention(q, context.k, context.v)))

    def hidden(self, h: Tensor | QuantizedTensor) -> Tensor:
        first, _, last = cast("tuple[Product, nn.Module, Product]", tuple(self.ffn))
        if isinstance(h, QuantizedTensor):
            assert isinstance(last, QuantizedLinear)
            return last.matmul(gelu_to_eight_bits(apply_linear(first, h)))
        return last(activated(first, h))

    def update_cache(
        self, x: Tensor | Pending, time: Tensor, place: BlockPosition, cache: LayerCache
    ) -> None:
        given = pending(x)
        attend, dim = self.self_attn, given.x.shape[-1]
        assert place.self_slots is not None
        with tag(tags.SELF_ATTENTION), torch.cuda.device_of(given.x):
            h = add_and_norm(given, self.moments(given.x, time)[0], self.eps)
            assert isinstance(h, Tensor)
            if isinstance(attend.qkv, QuantizedLinear):
                kv = attend.qkv(h, first=dim)
            else:
                kv = F.linear(h, attend.qkv.weight[dim:], attend.qkv.bias[dim:])
            norms = (attend.norm_q.weight, attend.norm_k.weight)
            where = (cache.self_attention, place.self_slots)
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
                "tuple[PackedLinear, nn.Module, PackedLinear, nn.LayerNorm]",
                tuple(module.mouse_mlp),
            )
            affine = Affine(norm.weight, norm.bias)
            qkv = module.t_qkv(
                add_and_norm(Pending(last(activated(first, wide))), affine, norm.eps)
            )
            width = qkv.shape[-1] // 3
            place_actions(qkv[..., width:], module.eps, rotary, cache.mouse, place)
            seen = attend_own(qkv[..., :width], module.eps, rotary, cache.mouse, place)
            y = module.proj_mouse(seen)
    with tag(tags.KEYBOARD_ATTENTION):
        q = module.mouse_attn_q(finished(Pending(x, y)))
        kv = module.keyboard_attn_kv(module.keyboard_embed(windows.keyboard).flatten(2))
        place_actions(kv.unsqueeze(2), module.eps, rotary, cache.keyboard, place)
        seen = attend_shared(q, module.eps, rotary, cache.keyboard, place)
        return module.proj_keyboard(seen)


def in_eight_bits(layer: nn.Module) -> bool:
    """Whether a kernel may hand this layer its input in 8 bits."""
    return isinstance(layer, QuantizedLinear) and layer.weight.dtype is EIGHT_BITS


def activated(layer: Product, x: Tensor) -> Tensor:
    """The product of a layer with GELU after it, on a GPU in one kernel of cuBLAS."""
    if isinstance(layer, QuantizedLinear) or x.device.type != "cuda":
        return layer(x)
    y = torch._addmm_activation(layer.bias, x.flatten(0, -2), layer.weight.T, use_gelu=True)
    return y.unflatten(0, x.shape[:-1])


def apply_linear(layer: Product, h: Tensor | QuantizedTensor) -> Tensor:
    if isinstance(h, QuantizedTensor):
        assert isinstance(layer, QuantizedLinear)
        return layer.matmul(h)
    return layer(h)
