"""A transformer layer by kernels: one between two matmuls, and one for each short attention."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from glassworld.errors import InputError
from glassworld.models.kernels.action_attention import (
    MIN_DOT,
    action_kv_rope,
    shared_kv_attention,
    temporal_attention,
)
from glassworld.models.kernels.deferred_sum import materialize
from glassworld.models.kernels.norm_residual import (
    FLOAT8,
    LayerNormWeights,
    ResidualSum,
    RowModulation,
    gelu_float8,
    residual_concat,
    residual_norm,
    rms_norm_in_place,
)
from glassworld.models.kernels.qkv_rope import qkv_rope
from glassworld.models.ops.attention import attention, join_heads, split_heads
from glassworld.models.ops.linear import PackedLinear
from glassworld.models.ops.quantized import QuantizedLinear, QuantizedTensor
from glassworld.models.transformer.action import ActionInputs, ActionModule, ActionWindows
from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.kv_cache import CacheSlots, KeyValues, LayerCache
from glassworld.models.transformer.layer import BlockPosition, Layer
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import tag

AnyLinear = PackedLinear | QuantizedLinear


def fuse_layers(dit: DiT) -> None:
    """Replace the transformer's layers by fused ones with the same weights, in place.

    Raises `InputError` where the heads of the action module do not suit the kernels.
    """
    action = dit.spec.action
    width = action.keyboard_width // action.heads
    for count in (action.heads, width):
        if count & (count - 1):
            raise InputError(
                "accelerate: kernels need a number of heads and a head width that are powers of "
                f"two, not {count} as in this world's action module; leave out 'kernels'"
            )
    if width < MIN_DOT:
        raise InputError(
            f"accelerate: kernels need heads of {MIN_DOT} numbers or more, not of {width} as in "
            "this world's action module; leave out 'kernels'"
        )
    for index, layer in enumerate(dit.blocks):
        assert isinstance(layer, Layer)
        dit.blocks[index] = FusedLayer(layer, last=index == len(dit.blocks) - 1)


class FusedLayer(Layer):
    """A `Layer` with the weights of a plain one, which writes the residual stream in place.

    It leaves its last residual sum to the next layer, whose first kernel reads and writes the same
    rows; the last layer leaves none.
    """

    takes_batch_slots = False  # a kernel writes the keys of all sessions to the same slots

    def __init__(self, plain: Layer, last: bool) -> None:
        nn.Module.__init__(self)
        self.eps, self.last = plain.eps, last
        self.self_attn, self.norm3 = plain.self_attn, plain.norm3
        self.cross_attn, self.action_model = plain.cross_attn, plain.action_model
        self.ffn, self.modulation = plain.ffn, plain.modulation

    def forward(  # type: ignore[override]
        self,
        x: Tensor | ResidualSum,
        time: Tensor,
        position: BlockPosition,
        windows: ActionWindows,
        context: KeyValues,
        cache: LayerCache | None,
    ) -> Tensor | ResidualSum:
        """Apply the layer as the plain one does; without a cache, in training, by its code."""
        if cache is None or position.self_slots is None:
            return super().forward(materialize(x), time, position, windows, context, cache)
        stream = ResidualSum.of(x)
        with torch.cuda.device_of(stream.x):
            return self.fused_forward(stream, time, position, windows, context, cache)

    def fused_forward(
        self,
        stream: ResidualSum,
        time: Tensor,
        position: BlockPosition,
        windows: ActionWindows,
        context: KeyValues,
        cache: LayerCache,
    ) -> Tensor | ResidualSum:
        """Apply the layer by kernels; `stream.x` is `[b, f, positions, dim]`."""
        x = stream.x
        attention_shift, _, attention_gate, mlp_shift, _, mlp_gate = self.row_modulations(x, time)
        with tag(tags.SELF_ATTENTION):
            y = self.fused_self_attention(stream, attention_shift, position, cache)
            norm = LayerNormWeights(self.norm3.weight, self.norm3.bias)
            float8 = takes_float8(self.cross_attn.q)
            h = residual_norm(ResidualSum(x, y, attention_gate), norm, self.eps, float8)
        with tag(tags.CROSS_ATTENTION):
            y = self.fused_cross_attention(h, context)
        if self.action_model is not None:
            inputs = ActionInputs(windows, position.action_rotary, position.action_slots, None)
            y = fused_action_module(self.action_model, x, y, inputs, cache)
        with tag(tags.FEED_FORWARD):
            h = residual_norm(ResidualSum(x, y), mlp_shift, self.eps, takes_float8(self.ffn[0]))
            total = ResidualSum(x, self.fused_mlp(h), mlp_gate)
            return materialize(total) if self.last else total

    def row_modulations(self, x: Tensor, time: Tensor) -> list[RowModulation]:
        """Return shift, scale and gate, for attention and then for the feed-forward."""
        batch, frames, positions = x.shape[:3]
        times = time.expand(batch, -1, -1, -1).contiguous()  # all sessions may share one
        shared = (self.modulation, times, frames * positions // time.shape[1])
        return [RowModulation(*shared, part) for part in range(time.shape[2])]

    def fused_self_attention(
        self, x: ResidualSum, shift: RowModulation, position: BlockPosition, cache: LayerCache
    ) -> Tensor:
        """Return self-attention's output, before its gate; adds up `x` in place."""
        attend, ring, slots = self.self_attn, cache.self_attention, position.self_slots
        assert isinstance(slots, CacheSlots)
        h = residual_norm(x, shift, self.eps, takes_float8(attend.qkv))
        norms = (attend.norm_q.weight, attend.norm_k.weight)
        qkv = apply_linear(attend.qkv, h).flatten(1, 2)
        q = qkv_rope(qkv, norms, attend.norm_q.eps, position.rotary, ring, slots)
        return attend.o(join_heads(attention(q, *ring.filled(slots))))

    def fused_cross_attention(self, h: Tensor | QuantizedTensor, context: KeyValues) -> Tensor:
        """Return the attention from normed tokens to the visual context."""
        cross = self.cross_attn
        q = apply_linear(cross.q, h).flatten(1, 2)
        q = split_heads(rms_norm_in_place(q, cross.norm_q.weight, cross.norm_q.eps), cross.heads)
        return cross.o(join_heads(attention(q, context.k, context.v)))

    def fused_mlp(self, h: Tensor | QuantizedTensor) -> Tensor:
        """Return the feed-forward of normed tokens, before its gate."""
        first, _, last = cast("tuple[AnyLinear, nn.Module, AnyLinear]", tuple(self.ffn))
        if isinstance(h, QuantizedTensor):
            assert isinstance(last, QuantizedLinear)
            return last.matmul(gelu_float8(apply_linear(first, h)))
        return last(linear_gelu(first, h))

    def update_cache(
        self, x: Tensor | ResidualSum, time: Tensor, position: BlockPosition, cache: LayerCache
    ) -> None:
        """Write the keys and values of `x` to the cache, for a layer whose output is not needed."""
        stream, attend, slots = ResidualSum.of(x), self.self_attn, position.self_slots
        assert isinstance(slots, CacheSlots)
        with tag(tags.SELF_ATTENTION), torch.cuda.device_of(stream.x):
            h = residual_norm(stream, self.row_modulations(stream.x, time)[0], self.eps)
            assert isinstance(h, Tensor)
            kv = attend.kv(h).flatten(1, 2)
            norms = (attend.norm_q.weight, attend.norm_k.weight)
            qkv_rope(kv, norms, attend.norm_q.eps, position.rotary, cache.self_attention, slots)


def fused_action_module(
    module: ActionModule, x: Tensor, y: Tensor, inputs: ActionInputs, cache: LayerCache
) -> Tensor:
    """Add `y` and the mouse attention to `x` in place; return the keyboard attention's output."""
    windows, rotary, slots, _ = inputs
    assert isinstance(slots, CacheSlots)
    assert cache.keyboard is not None
    if windows.mouse is not None and module.has_mouse:
        assert cache.mouse is not None
        with tag(tags.MOUSE_ATTENTION):
            tokens = residual_concat(x, y, windows.mouse.flatten(2))
            first, _, last, norm = cast(
                "tuple[PackedLinear, nn.Module, PackedLinear, nn.LayerNorm]",
                tuple(module.mouse_mlp),
            )
            weights = LayerNormWeights(norm.weight, norm.bias)
            hidden = ResidualSum(last(linear_gelu(first, tokens)))
            qkv = module.t_qkv(residual_norm(hidden, weights, norm.eps))
            width = qkv.shape[-1] // 3
            action_kv_rope(qkv[..., width:], module.eps, rotary, cache.mouse, slots)
            mixed = temporal_attention(qkv[..., :width], module.eps, rotary, cache.mouse, slots)
            y = module.proj_mouse(mixed)
    with tag(tags.KEYBOARD_ATTENTION):
        q = module.mouse_attn_q(materialize(ResidualSum(x, y)))
        kv = module.keyboard_attn_kv(module.keyboard_embed(windows.keyboard).flatten(2))
        action_kv_rope(kv.unsqueeze(2), module.eps, rotary, cache.keyboard, slots)
        mixed = shared_kv_attention(q, module.eps, rotary, cache.keyboard, slots)
        return module.proj_keyboard(mixed)


def takes_float8(layer: nn.Module) -> bool:
    """Return whether a kernel may hand this layer its input in float8."""
    return isinstance(layer, QuantizedLinear) and layer.weight.dtype is FLOAT8


def linear_gelu(layer: AnyLinear, x: Tensor) -> Tensor:
    """Apply a layer that GELU follows: on a GPU in one kernel of cuBLAS."""
    if isinstance(layer, QuantizedLinear) or x.device.type != "cuda":
        return layer(x)
    y = torch._addmm_activation(layer.bias, x.flatten(0, -2), layer.weight.T, use_gelu=True)
    return y.unflatten(0, x.shape[:-1])


def apply_linear(layer: AnyLinear, h: Tensor | QuantizedTensor) -> Tensor:
    """Apply a layer to an input that may be quantized already."""
    if isinstance(h, QuantizedTensor):
        assert isinstance(layer, QuantizedLinear)
        return layer.matmul(h)
    return layer(h)
