"""The operators in the names of fused kernels."""

import pytest

from glassworld.trace.timeline.torch_compile.kernel_names import (
    CPP,
    KNOWN_OPERATORS,
    known_operators,
    parse_fused_name,
)


def operators_of(name, known=KNOWN_OPERATORS):
    parsed = parse_fused_name(name, known)
    assert parsed
    return parsed.operators


BACKWARD = "cpp_fused_native_layer_norm_native_layer_norm_backward_1"


@pytest.mark.parametrize(
    ("name", "kind", "operators"),
    [
        ("triton_poi_fused_add_mul_relu_3", "pointwise", "add mul relu"),
        ("triton_red_fused_native_layer_norm_2", "reduction", "native_layer_norm"),
        (
            "triton_per_fused__softmax__to_copy_add_0",
            "persistent reduction",
            "_softmax _to_copy add",
        ),
        ("triton_poi_fused_0", "pointwise", ""),
        ("model_triton_tem_fused_mm_relu_11", "template", "mm relu"),
        ("triton_xyz_fused_add_1", "xyz", "add"),
        ("graph_1_cpp_fused__softmax_add_1", CPP, "_softmax add"),
        (BACKWARD, CPP, "native_layer_norm native_layer_norm_backward"),
        (
            "triton_poi_fused_clamp_max_pool2d_with_indices_1",
            "pointwise",
            "clamp max_pool2d_with_indices",
        ),
        ("triton_poi_fused_copy__softmax_1", "pointwise", "copy_ softmax"),
        ("triton_poi_fused_add_copy__7", "pointwise", "add copy_"),
        ("triton_poi_fused_moe_forward_0", "pointwise", "moe forward"),
    ],
)
def test_parse_fused_name_finds_kind_and_operators(name, kind, operators):
    parsed = parse_fused_name(name)
    assert parsed
    assert parsed.kind == kind
    assert parsed.operators == tuple(operators.split())


@pytest.mark.parametrize(
    "name", ["triton_", "triton_poi_fused_add", "ampere_sgemm_32x32", "aten::add", "my_cpp_fused_0"]
)
def test_parse_fused_name_of_other_kernels_is_none(name):
    assert parse_fused_name(name) is None


def test_operators_that_a_trace_calls_are_known():
    known = known_operators(["vllm::moe_forward", "aten::copy_", "mm", "aten::add"])
    assert known - KNOWN_OPERATORS == {"moe_forward"}
    found = operators_of("triton_poi_fused_constant_pad_nd_moe_forward_0", known)
    assert found == ("constant_pad_nd", "moe_forward")


def test_names_joined_as_inductor_joins_them_are_split_again():
    """Every pair of known operators, sorted, comes back: no name hides in another two."""
    some = sorted(KNOWN_OPERATORS)[::5]
    wrong = []
    for i, first in enumerate(some):
        for second in some[i + 1 :: 3]:
            operators = sorted({first, second, "add", "view"})
            name = "triton_poi_fused_" + "_".join(operators) + "_12"
            if operators_of(name) != tuple(operators):
                wrong.append(name)
    assert not wrong


def test_known_operators_are_those_of_torch():
    import torch
    import torch._inductor.inductor_prims
    import torch._prims

    homes = [torch.ops.aten, torch.ops.prims, torch.ops._c10d_functional, torch.ops.higher_order]
    assert not [n for n in KNOWN_OPERATORS if not any(hasattr(home, n) for home in homes)]
    assert all("_" in name for name in KNOWN_OPERATORS)
