"""Read from a kernel's name which operators Inductor fused into it.

Inductor joins the distinct operators with underscores, sorted by name, between the kind of kernel
and a number: `triton_red_fused_add_native_layer_norm_2`, `cpp_fused__softmax_mul_0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

CPP = "C++"
_KINDS = {
    "poi": "pointwise",
    "red": "reduction",
    "per": "persistent reduction",
    "tem": "template",
    "for": "foreach",
    "spl": "split scan",
}
_TRITON = re.compile(r"(?:^|_)triton_([a-z]{3})_fused(?:_(.*))?_\d+$")
_CPP = re.compile(r"^(?:graph_\d+_)?cpp_fused(?:_(.*))?_\d+$")
_CALLED = re.compile(r"\w+::(\w*[a-z0-9]_[a-z0-9]\w*[a-z0-9]|_\w*[a-z0-9])$")
_WORD = re.compile(r"_?[^_]+")

_NAMES = """
_adaptive_avg_pool2d _adaptive_avg_pool2d_backward _adaptive_avg_pool3d _cdist_forward
_conj _convolution _cudnn_rnn _embedding_bag _euclidean_dist _fft_c2r
_fft_r2c _flash_attention_backward _flash_attention_forward _foreach_add _foreach_addcdiv
_foreach_addcmul _foreach_copy _foreach_div _foreach_lerp _foreach_mul _foreach_sqrt
_foreach_sub _fused_rms_norm _grouped_mm _int_mm _local_scalar_dense _log_softmax
_log_softmax_backward_data _low_memory_max_pool_offsets_to_indices
_low_memory_max_pool_with_offsets _native_batch_norm_legit
_native_batch_norm_legit_functional _native_batch_norm_legit_no_training _prelu_kernel
_reshape_alias _safe_softmax _scaled_dot_product_cudnn_attention
_scaled_dot_product_cudnn_attention_backward _scaled_dot_product_efficient_attention
_scaled_dot_product_efficient_attention_backward _scaled_dot_product_flash_attention
_scaled_dot_product_flash_attention_backward _scaled_dot_product_flash_attention_for_cpu
_scaled_dot_product_flash_attention_for_cpu_backward
_scaled_dot_product_fused_attention_overrideable
_scaled_dot_product_fused_attention_overrideable_backward _scaled_mm _softmax
_softmax_backward_data _to_copy _trilinear _unsafe_index _unsafe_index_put
_unsafe_masked_index _unsafe_masked_index_put_accumulate _unsafe_view
_upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d _weight_int8pack_mm _weight_norm
_weight_norm_interface adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator alias_copy all_gather_into_tensor
all_reduce all_to_all_single as_strided as_strided_scatter avg_pool1d avg_pool2d
avg_pool2d_backward avg_pool3d avg_pool3d_backward binary_cross_entropy
binary_cross_entropy_backward binary_cross_entropy_with_logits bitwise_and
bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor broadcast_in_dim
broadcast_tensors clamp_max clamp_min constant_pad_nd conv_transpose1d conv_transpose2d
conv_transpose3d convert_element_type convolution_backward copy_ cross_entropy_loss
cudnn_batch_norm cudnn_batch_norm_backward diag_embed diagonal_copy diagonal_scatter
elu_backward embedding_bag embedding_dense_backward empty_like empty_permuted empty_strided
expand_as expand_copy fake_quantize_per_channel_affine fake_quantize_per_tensor_affine
flex_attention flex_attention_backward float_power floor_divide full_like gelu_backward
glu_backward grid_sampler grid_sampler_2d grid_sampler_2d_backward grid_sampler_3d group_norm
hardsigmoid_backward hardswish_backward hardtanh_backward huber_loss huber_loss_backward
index_add index_copy index_fill index_put index_put_ index_reduce index_select
inductor_force_stride_order inductor_lookup_seed inductor_randint inductor_random
inductor_seed inductor_seeds instance_norm layer_norm leaky_relu leaky_relu_backward
lift_fresh lift_fresh_copy linalg_cross linalg_vector_norm log_sigmoid log_sigmoid_backward
log_sigmoid_forward log_softmax logical_and logical_not logical_or logical_xor logit_backward
masked_fill masked_scatter masked_select max_pool2d max_pool2d_with_indices
max_pool2d_with_indices_backward max_pool3d max_pool3d_with_indices
max_pool3d_with_indices_backward miopen_batch_norm mse_loss mse_loss_backward nan_to_num
narrow_copy native_batch_norm native_batch_norm_backward native_dropout
native_dropout_backward native_group_norm native_group_norm_backward native_layer_norm
native_layer_norm_backward new_empty new_empty_strided new_full new_ones new_zeros
nll_loss_backward nll_loss_forward nll_loss2d_backward nll_loss2d_forward one_hot ones_like
permute_copy pixel_shuffle pixel_unshuffle rand_like randint_like randn_like
reduce_scatter_tensor reflection_pad1d reflection_pad1d_backward reflection_pad2d
reflection_pad2d_backward reflection_pad3d reflection_pad3d_backward repeat_interleave
replication_pad1d replication_pad1d_backward replication_pad2d replication_pad2d_backward
replication_pad3d replication_pad3d_backward rms_norm scalar_tensor
scaled_dot_product_attention scatter_add scatter_reduce select_backward select_scatter
sigmoid_backward silu_backward slice_backward slice_scatter smooth_l1_loss
smooth_l1_loss_backward soft_margin_loss softplus_backward special_bessel_j0 special_i0
split_with_sizes split_with_sizes_copy squeeze_copy std_mean sym_size tanh_backward
threshold_backward transpose_copy tril_indices triu_indices true_divide unbind_copy
unfold_backward unsafe_split unsqueeze_copy upsample_bicubic2d upsample_bilinear2d
upsample_bilinear2d_backward upsample_linear1d upsample_nearest1d upsample_nearest2d
upsample_nearest2d_backward upsample_nearest3d upsample_trilinear3d var_mean view_as
view_as_complex view_as_real view_copy wait_tensor zeros_like
"""
KNOWN_OPERATORS = frozenset(_NAMES.split())
"""Operators whose names hold more than one word: those that Inductor lowers or splits up."""


@dataclass(frozen=True)
class FusedName:
    """What a kernel's name says: its kind, and the distinct operators, sorted by name."""

    kind: str
    operators: tuple[str, ...]


def known_operators(names: Iterable[str]) -> frozenset[str]:
    """Return `KNOWN_OPERATORS`, and the operators of several words among names such as `a::b_c`."""
    called = (_CALLED.match(name) for name in names)
    return KNOWN_OPERATORS | {match[1] for match in called if match}


def parse_fused_name(name: str, known: frozenset[str] = KNOWN_OPERATORS) -> FusedName | None:
    """Return what the name of a fused kernel says; None if Inductor gave it another name."""
    if triton := _TRITON.search(name):
        kind, operators = _KINDS.get(triton[1], triton[1]), triton[2]
    elif cpp := _CPP.match(name):
        kind, operators = CPP, cpp[1]
    else:
        return None
    return FusedName(kind, _split(operators or "", known))


def _split(text: str, known: frozenset[str]) -> tuple[str, ...]:
    """Split joined operators into the fewest names: known ones, and single words.

    So the longest known names win: the words of a known operator are one name. Of equally many,
    names in sorted order count, then those with the most known ones.
    """

    @cache
    def best(at: int, before: str) -> tuple[int, int, int, tuple[str, ...]]:
        """Return the names from `at` on, behind how many they are, unsorted, and unknown."""
        if at >= len(text):
            return (0, 0, 0, ())
        word = _WORD.match(text, at)
        pieces = {piece for piece in known if text.startswith(piece, at)}
        pieces.add(word[0] if word else text[at:])
        ways = []
        for piece in pieces:
            end = at + len(piece)
            if end == len(text) or (text[end] == "_" and end + 1 < len(text)):
                count, unsorted, unknown, rest = best(end + 1, piece)
                ways.append(
                    (
                        count + 1,
                        unsorted + (piece < before),
                        unknown + (piece not in known),
                        (piece, *rest),
                    )
                )
        return min(ways, default=(1, 0, 1, (text[at:],)))

    return best(0, "")[3]
