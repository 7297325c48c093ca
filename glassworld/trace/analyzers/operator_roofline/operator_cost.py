"""Count the FLOPs and the least memory traffic of one call of an operator from its inputs.

A multiply-add is two FLOPs; adding a bias, scaling and softmax do not count. Every input is read
once and every result written once, at the recorded types. Nothing is assumed: a call whose inputs
do not say what its formula needs has no cost.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import msgspec

_FLOATS = {
    "double": ("float64", 8),
    "float": ("float32", 4),
    "c10::Half": ("float16", 2),
    "c10::BFloat16": ("bfloat16", 2),
    "c10::Float8_e5m2": ("float8_e5m2", 1),
    "c10::Float8_e4m3fn": ("float8_e4m3fn", 1),
    "c10::Float8_e5m2fnuz": ("float8_e5m2fnuz", 1),
    "c10::Float8_e4m3fnuz": ("float8_e4m3fnuz", 1),
    "c10::Float8_e8m0fnu": ("float8_e8m0fnu", 1),
}
"""Torch's name and bytes of each type, by its name in C++, as the profiler writes it."""

_MASK = "bool"
_MOST_DIMENSIONS, _LONGEST = 8, 2**40  # what is more is no shape of a tensor
_BYTES_OF_CODE = {5: 2, 6: 4, 7: 8, 15: 2, 23: 1, 24: 1, 25: 1, 26: 1}
"""Bytes of the types by their number in torch (`c10::ScalarType`), which `out_dtype` is."""


@dataclass(frozen=True)
class OperatorCost:
    """The work of one call: FLOPs, bytes read and written, and what tells calls apart.

    `shapes` are those of the tensors read, `dtype` is the first one's. `is_convolution` tells
    which peak rate applies.
    """

    flops: int
    bytes: int
    dtype: str
    shapes: tuple[tuple[int, ...], ...]
    is_convolution: bool


class _NotRecordedError(Exception):
    """The inputs do not say what a formula needs."""


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    dtype: str
    itemsize: int
    elements: int
    """How many distinct elements there are in memory: fewer where a tensor is expanded."""

    @property
    def bytes(self) -> int:
        return self.elements * self.itemsize


class _Inputs:
    """The recorded inputs of a call, by the names of the operator's arguments."""

    def __init__(self, arguments: str, recorded: bytes) -> None:
        self._names = arguments.split()
        try:
            parts = msgspec.json.decode(recorded)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _NotRecordedError from error
        self._shapes, self._types, self._strides, self._values = parts
        self.read: list[_Tensor] = []

    def _item(self, part: Any, name: str) -> Any:
        at = self._names.index(name)
        return part[at] if isinstance(part, list) and at < len(part) else None

    def has(self, name: str) -> bool:
        """Return whether the operator has an argument of this name."""
        return name in self._names

    def tensor(self, name: str, is_read: bool = True) -> _Tensor:
        """Return an input that must be a tensor of floats, and note that it is read."""
        tensor = self.optional_tensor(name, is_read)
        if tensor is None or tensor.dtype == _MASK:
            raise _NotRecordedError
        return tensor

    def optional_tensor(self, name: str, is_read: bool = True) -> _Tensor | None:
        """Return an input that may be left out, or be a mask."""
        if not self.has(name):
            return None
        kind, shape = self._item(self._types, name), self._item(self._shapes, name)
        if kind == "":
            return None
        dtype, itemsize = (_MASK, 1) if kind == _MASK else _FLOATS.get(str(kind), ("", 0))
        _check(bool(dtype) and _are_integers(shape) and len(shape) <= _MOST_DIMENSIONS)
        _check(all(0 < size < _LONGEST for size in shape))
        strides = self._item(self._strides, name)
        elements = prod(shape)
        if _are_integers(strides) and len(strides) == len(shape):
            steps = [(size, step) for size, step in zip(shape, strides, strict=True) if step]
            span = 1 + sum((size - 1) * step for size, step in steps)
            elements = min(prod(size for size, _ in steps), span)
        tensor = _Tensor(tuple(shape), dtype, itemsize, max(1, elements))
        if is_read:
            self.read.append(tensor)
        return tensor

    def value(self, name: str) -> Any:
        """Return an input that is a number, a list of numbers or a truth value."""
        text = self._item(self._values, name)
        if not isinstance(text, str) or not text:
            raise _NotRecordedError
        try:
            return json.loads(text.lower().rstrip("."))
        except (ValueError, RecursionError) as error:
            raise _NotRecordedError from error

    def numbers(self, name: str, count: int) -> list[int]:
        """Return an input of `count` integers; of one, if it is the same for all dimensions."""
        numbers = self.value(name)
        _check(_are_integers(numbers) and len(numbers) in (1, count))
        _check(all(0 <= number < _LONGEST for number in numbers))
        return list(numbers) * (count // len(numbers))

    def flag(self, name: str) -> bool:
        """Return an input that is true or false."""
        flag = self.value(name)
        _check(isinstance(flag, bool))
        return bool(flag)

    def is_scalar(self, name: str) -> bool:
        """Return whether an input is a number."""
        return bool(self._item(self._types, name) == "Scalar")

    def result_bytes(self, name: str, usual: _Tensor) -> int:
        """Return the bytes of an element of the result: of the input `name`, else the usual."""
        if not self.is_scalar(name):
            return usual.itemsize
        code = self.value(name)
        _check(type(code) is int and code in _BYTES_OF_CODE)
        return _BYTES_OF_CODE[code]


def _check(condition: bool) -> None:
    if not condition:
        raise _NotRecordedError


def _are_integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


_Formula = Callable[[_Inputs], tuple[int, int]]
"""Returns the FLOPs and the bytes written, and notes in the inputs which of them are read."""


def operator_cost(operator: str, recorded: bytes) -> OperatorCost | None:
    """Return the work of a call with these inputs (see `Trace.inputs`); None if it is not known."""
    if operator not in FORMULAS:
        return None
    arguments, formula = FORMULAS[operator]
    try:
        inputs = _Inputs(arguments, recorded)
        flops, written = formula(inputs)
        _check(flops > 0)
    except _NotRecordedError:
        return None
    read = sum(tensor.bytes for tensor in inputs.read)
    shapes = tuple(tensor.shape for tensor in inputs.read)
    dtype = next(tensor.dtype for tensor in inputs.read if len(tensor.shape) > 1)
    return OperatorCost(flops, read + written, dtype, shapes, "convolution" in operator)


def _product(inputs: _Inputs, left: str, right: str, rank: int) -> tuple[int, int, _Tensor]:
    """Return the FLOPs and the elements of a matmul, or of a batch of them: 2 M N K each."""
    a, b = inputs.tensor(left), inputs.tensor(right)
    _check(len(a.shape) == len(b.shape) == rank)
    _check(a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2])
    elements = prod(a.shape[:-1]) * b.shape[-1]
    return 2 * elements * a.shape[-1], elements, a


def _matmul(rank: int) -> _Formula:
    def formula(inputs: _Inputs) -> tuple[int, int]:
        flops, elements, a = _product(inputs, "self", "mat2", rank)
        return flops, elements * inputs.result_bytes("out_dtype", a)

    return formula


def _added_matmul(left: str, right: str, rank: int) -> _Formula:
    """Return the formula of beta * self + alpha * a @ b, which reads no `self` if beta is 0."""

    def formula(inputs: _Inputs) -> tuple[int, int]:
        _check(inputs.is_scalar("beta") and not inputs.is_scalar("out"))
        inputs.tensor("self", is_read=bool(inputs.value("beta")))
        flops, elements, a = _product(inputs, left, right, rank)
        return flops, elements * a.itemsize

    return formula


def _scaled_matmul(inputs: _Inputs) -> tuple[int, int]:
    """Return the work of a matmul of 8-bit floats; each has a scale, which is read too."""
    flops, elements, a = _product(inputs, "self", "mat2", 2)
    for scale in ("scale_a", "scale_b"):
        inputs.tensor(scale)
    inputs.optional_tensor("bias")
    return flops, elements * inputs.result_bytes("out_dtype", a)


def _linear(inputs: _Inputs) -> tuple[int, int]:
    x, weight = inputs.tensor("input"), inputs.tensor("weight")
    inputs.optional_tensor("bias")
    _check(len(weight.shape) == 2 and len(x.shape) > 0 and x.shape[-1] == weight.shape[1])
    elements = prod(x.shape[:-1]) * weight.shape[0]
    return 2 * elements * x.shape[-1], elements * x.itemsize


@dataclass(frozen=True)
class _Convolution:
    """Sizes of a convolution; `weight` is (out, in / groups, taps), transposed (in, out / groups).

    A dimension has (size + 2 padding - dilation (taps - 1) - 1) // stride + 1 outputs, transposed
    (size - 1) stride - 2 padding + dilation (taps - 1) + output padding + 1: V. Dumoulin, F. Visin,
    "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
    """

    x: _Tensor
    weight: _Tensor
    outputs: tuple[int, ...]
    channels: int
    is_transposed: bool

    @property
    def flops(self) -> int:
        """Every tap of every filter meets each output, transposed each input; padding too."""
        positions = self.x.shape[2:] if self.is_transposed else self.outputs
        return 2 * self.x.shape[0] * prod(positions) * prod(self.weight.shape)

    @property
    def elements(self) -> int:
        """Elements of the result."""
        return self.x.shape[0] * self.channels * prod(self.outputs)


def _convolution_sizes(inputs: _Inputs, x: _Tensor, w: _Tensor, transposed: bool) -> _Convolution:
    _check(len(x.shape) == len(w.shape) > 2)
    count = len(w.shape) - 2
    stride, padding, dilation = (
        inputs.numbers(name, count) for name in ("stride", "padding", "dilation")
    )
    groups = inputs.value("groups")
    _check(type(groups) is int and 0 < groups < _LONGEST)
    added = inputs.numbers("output_padding", count) if transposed else [0] * count
    _check(x.shape[1] == (w.shape[0] if transposed else w.shape[1] * groups))
    outputs = []
    for i, (size, taps) in enumerate(zip(x.shape[2:], w.shape[2:], strict=True)):
        reach = dilation[i] * (taps - 1) + 1
        if transposed:
            outputs.append((size - 1) * stride[i] - 2 * padding[i] + reach + added[i])
        else:
            _check(stride[i] > 0)
            outputs.append((size + 2 * padding[i] - reach) // stride[i] + 1)
    _check(min(outputs) > 0)
    channels = w.shape[1] * groups if transposed else w.shape[0]
    return _Convolution(x, w, tuple(outputs), channels, transposed)


def _convolution(x: str, transposed: bool | None = None) -> _Formula:
    """Return the formula of a convolution of the input `x`; None: an input says if transposed."""

    def formula(inputs: _Inputs) -> tuple[int, int]:
        is_transposed = inputs.flag("transposed") if transposed is None else transposed
        tensor, weight = inputs.tensor(x), inputs.tensor("weight")
        inputs.optional_tensor("bias")
        sizes = _convolution_sizes(inputs, tensor, weight, is_transposed)
        return sizes.flops, sizes.elements * tensor.itemsize

    return formula


def _convolution_backward(inputs: _Inputs) -> tuple[int, int]:
    """Return the work of the gradients asked for: of the input and the weight, each a forward."""
    mask = inputs.value("output_mask")
    _check(isinstance(mask, list) and len(mask) == 3)
    of_input, of_weight, of_bias = map(bool, mask)
    inputs.tensor("grad_output")
    x, weight = (
        inputs.tensor(name, is_read)
        for name, is_read in (("input", of_weight), ("weight", of_input))
    )
    sizes = _convolution_sizes(inputs, x, weight, inputs.flag("transposed"))
    written = of_input * prod(x.shape) + of_weight * prod(weight.shape) + of_bias * sizes.channels
    return (of_input + of_weight) * sizes.flops, written * x.itemsize


def _attended(inputs: _Inputs) -> tuple[_Tensor, _Tensor, _Tensor, int]:
    """Return query, key and value, and the pairs of a query and a key over all heads.

    With `is_causal` the query i sees the keys up to i, as `scaled_dot_product_attention` of torch
    defines it; FlashAttention-2 counts likewise (T. Dao, arXiv:2307.08691, section 4.1: half).
    A mask hides no work, because kernels multiply all that it hides.
    """
    query, key, value = (inputs.tensor(name) for name in ("query", "key", "value"))
    _check(len(query.shape) == len(key.shape) == len(value.shape) == 4)
    batch, heads, queries, width = query.shape
    keys = key.shape[2]
    _check(key.shape[:3] == value.shape[:3] and key.shape[0] == batch and key.shape[3] == width)
    _check(heads % key.shape[1] == 0)
    pairs = queries * keys
    if inputs.flag("is_causal"):
        seen = min(queries, keys)
        pairs = seen * (seen + 1) // 2 + (queries - seen) * keys
    return query, key, value, batch * heads * pairs


def _read_mask(inputs: _Inputs) -> None:
    for mask in ("attn_bias", "attn_mask"):
        inputs.optional_tensor(mask)


def _attention(inputs: _Inputs) -> tuple[int, int]:
    """Return the work of the scores and of the weighted sum of values, two matmuls."""
    query, _, value, pairs = _attended(inputs)
    _read_mask(inputs)
    result = prod(query.shape[:3]) * value.shape[3] * query.itemsize
    return 2 * pairs * (query.shape[3] + value.shape[3]), result


def _attention_backward(inputs: _Inputs) -> tuple[int, int]:
    """Return the work of five matmuls: the scores again, and four for the gradients.

    Of them, those of the scores, of dQ and of dK are as wide as the keys, those of dP and dV as
    the values: 2.5 times the forward pass (T. Dao, arXiv:2307.08691, section 4.1).
    """
    inputs.tensor("grad_out")
    query, key, value, pairs = _attended(inputs)
    inputs.tensor("out")
    _read_mask(inputs)
    if inputs.has("grad_input_mask"):  # a gradient of the bias would be more to write
        _check(inputs.value("grad_input_mask") == [True, True, True, False])
    written = sum(prod(tensor.shape) for tensor in (query, key, value)) * query.itemsize
    return 2 * pairs * (3 * query.shape[3] + 2 * value.shape[3]), written


_CONVOLUTION = "input weight bias stride padding dilation transposed output_padding groups"
_QKV = "query key value"
_BIASED = f"{_QKV} attn_bias compute_log_sumexp dropout_p is_causal"

FORMULAS: dict[str, tuple[str, _Formula]] = {
    f"aten::{name}": formula
    for name, formula in {
        "mm": ("self mat2 out_dtype", _matmul(2)),
        "bmm": ("self mat2 out_dtype", _matmul(3)),
        "addmm": ("self mat1 mat2 beta alpha out", _added_matmul("mat1", "mat2", 2)),
        "baddbmm": ("self batch1 batch2 beta alpha out", _added_matmul("batch1", "batch2", 3)),
        "linear": ("input weight bias", _linear),
        "_scaled_mm": (
            "self mat2 scale_a scale_b bias scale_result out_dtype",
            _scaled_matmul,
        ),
        "convolution": (_CONVOLUTION, _convolution("input")),
        "_convolution": (_CONVOLUTION, _convolution("input")),
        "convolution_backward": (
            "grad_output input weight bias_sizes stride padding dilation transposed output_padding "
            "groups output_mask",
            _convolution_backward,
        ),
        "mkldnn_convolution": (
            "self weight bias padding stride dilation groups",
            _convolution("self", False),
        ),
        "cudnn_convolution": (
            "self weight padding stride dilation groups",
            _convolution("self", False),
        ),
        "cudnn_convolution_transpose": (
            "self weight padding output_padding stride dilation groups",
            _convolution("self", True),
        ),
        "miopen_convolution": (
            "self weight bias padding stride dilation groups",
            _convolution("self", False),
        ),
        "miopen_convolution_transpose": (
            "self weight bias padding output_padding stride dilation groups",
            _convolution("self", True),
        ),
        "scaled_dot_product_attention": (
            f"{_QKV} attn_mask dropout_p is_causal",
            _attention,
        ),
        "_scaled_dot_product_flash_attention": (f"{_QKV} dropout_p is_causal", _attention),
        "_scaled_dot_product_flash_attention_for_cpu": (
            f"{_QKV} dropout_p is_causal attn_mask",
            _attention,
        ),
        "_scaled_dot_product_efficient_attention": (_BIASED, _attention),
        "_scaled_dot_product_cudnn_attention": (_BIASED, _attention),
        "_scaled_dot_product_fused_attention_overrideable": (
            f"{_QKV} attn_bias dropout_p is_causal",
            _attention,
        ),
        "_scaled_dot_product_flash_attention_backward": (
            f"grad_out {_QKV} out logsumexp cum_seq_q cum_seq_k max_q max_k dropout_p is_causal",
            _attention_backward,
        ),
        "_scaled_dot_product_flash_attention_for_cpu_backward": (
            f"grad_out {_QKV} out logsumexp dropout_p is_causal attn_mask",
            _attention_backward,
        ),
        "_scaled_dot_product_efficient_attention_backward": (
            f"grad_out {_QKV} attn_bias out logsumexp philox_seed philox_offset dropout_p "
            "grad_input_mask is_causal",
            _attention_backward,
        ),
        "_scaled_dot_product_cudnn_attention_backward": (
            f"grad_out {_QKV} out logsumexp philox_seed philox_offset attn_bias cum_seq_q "
            "cum_seq_k max_q max_k dropout_p is_causal",
            _attention_backward,
        ),
    }.items()
}
"""The arguments of each operator, in the order of torch's schema, and its formula.

An argument that an overload or a version lacks is not recorded.
"""
