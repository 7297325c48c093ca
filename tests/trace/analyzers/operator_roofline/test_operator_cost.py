"""The formulas of operators, against torch's own counts and loops over every multiply-add."""

import itertools
import json

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from glassworld.trace.analyzers.operator_roofline.operator_cost import FORMULAS, operator_cost
from glassworld.trace.reading.categories import COUNTED_OPERATORS
from tests.support.recorded_shapes import recorded_calls
from tests.support.traces import JSON_VALUES

BF16 = "c10::BFloat16"


def recorded(shapes, types, values=None, strides=None):
    return json.dumps([shapes, types, strides, values]).encode()


def cost_of(operator, inputs):
    cost = operator_cost(operator, inputs)
    assert cost
    return cost


def test_inputs_are_kept_of_exactly_the_operators_with_a_formula():
    assert FORMULAS.keys() == COUNTED_OPERATORS


@pytest.mark.parametrize("operator", FORMULAS)
def test_arguments_stand_where_torch_has_them(operator):
    overloads = getattr(torch.ops.aten, operator.partition("::")[2])
    schemas = [
        [argument.name.rstrip("_") for argument in getattr(overloads, name)._schema.arguments]
        for name in overloads.overloads()
    ]
    for place, argument in enumerate(FORMULAS[operator][0].split()):
        assert argument in {names[place] for names in schemas if len(names) > place}


def ran(work):
    """Return the counted calls of a function: operator, cost; and torch's FLOPs by operator."""
    calls, flops = recorded_calls(work)
    costs = [(name, cost_of(name, inputs)) for name, inputs in calls]
    return costs, flops


def test_flops_of_matmuls_and_convolutions_are_those_that_torch_counts():
    def work():
        a, b, bias = torch.ones(8, 16), torch.ones(16, 4), torch.ones(4)
        torch.mm(a, b)
        torch.mm(a, b, out=torch.empty(8, 4))
        torch.addmm(bias, a, b)
        torch.bmm(torch.ones(3, 8, 16), torch.ones(3, 16, 4))
        torch.baddbmm(torch.ones(3, 8, 4), torch.ones(3, 8, 16), torch.ones(3, 16, 4))
        F.linear(torch.ones(2, 8, 16), torch.ones(4, 16), bias)
        image = torch.ones(2, 4, 10, 12)
        F.conv2d(image, torch.ones(6, 4, 3, 3), torch.ones(6), stride=2, padding=1)
        F.conv2d(image, torch.ones(4, 1, 3, 3), groups=4, dilation=2)
        F.conv2d(image, torch.ones(8, 2, 1, 3), groups=2, stride=(1, 3))

    costs, flops = ran(work)
    matmuls = ("mm", "addmm", "bmm", "baddbmm")
    for name in matmuls:
        own = sum(cost.flops for operator, cost in costs if operator == f"aten::{name}")
        assert own == flops[f"aten::{name}"] > 0
    assert flops["aten::conv2d"] > 0
    leaves = [cost for operator, cost in costs if operator == "aten::mkldnn_convolution"]
    for whole in ("aten::convolution", "aten::_convolution"):
        own = [cost for operator, cost in costs if operator == whole]
        assert sum(cost.flops for cost in own) == flops["aten::conv2d"]
        assert own == leaves or not leaves
    (linear,) = (cost for operator, cost in costs if operator == "aten::linear")
    assert linear.flops == 2 * 2 * 8 * 16 * 4


def multiply_adds(x, weight, stride, padding, dilation, groups, transposed):
    """Count the products of one convolution, and its outputs, one by one."""
    count, outputs, spatial = 0, set(), range(len(x) - 2)
    _, _, *taps = weight
    if transposed:  # each input is spread over the taps
        out_channels = weight[1] * groups
        for _ in itertools.product(range(x[0]), range(x[1]), *map(range, x[2:])):
            for _ in itertools.product(range(weight[1]), *map(range, taps)):
                count += 1
        sizes = [
            (x[2 + d] - 1) * stride - 2 * padding + dilation * (taps[d] - 1) + 1 for d in spatial
        ]
        return count, x[0] * out_channels * torch.Size(sizes).numel()
    places = []
    for d in spatial:
        last = x[2 + d] + padding - dilation * (taps[d] - 1) - 1
        places.append(range(-padding, last + 1, stride))
    for n, channel, *place in itertools.product(range(x[0]), range(weight[0]), *places):
        outputs.add((n, channel, *place))
        for _ in itertools.product(range(weight[1]), *map(range, taps)):
            count += 1
    return count, len(outputs)


CONVOLUTIONS = [
    ([2, 4, 9], [6, 4, 3], 2, 1, 1, 1, False),
    ([1, 4, 7, 5], [4, 2, 3, 2], 1, 0, 2, 2, False),
    ([1, 2, 3, 5, 4], [3, 2, 2, 3, 1], 2, 1, 1, 1, False),
    ([2, 4, 5, 3], [4, 3, 3, 3], 2, 1, 1, 2, True),
    ([1, 3, 4], [3, 2, 3], 3, 0, 2, 1, True),
]


@pytest.mark.parametrize("sizes", CONVOLUTIONS)
def test_work_of_a_convolution_is_a_loop_over_its_products(sizes):
    x, weight, stride, padding, dilation, groups, transposed = sizes
    convolve = getattr(F, f"conv{'_transpose' * transposed}{len(x) - 2}d")
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    result = []
    calls, _ = recorded_calls(
        lambda: result.append(convolve(torch.ones(x), torch.ones(weight), **options))
    )
    products, outputs = multiply_adds(*sizes)
    assert outputs == result[0].numel()
    inputs = [inputs for name, inputs in calls if name == "aten::_convolution"]
    cost = cost_of("aten::_convolution", inputs[0])
    moved = torch.Size(x).numel() + torch.Size(weight).numel() + outputs
    assert (cost.flops, cost.bytes) == (2 * products, 4 * moved)
    assert cost.shapes == (tuple(x), tuple(weight))
    assert cost.is_convolution


@pytest.mark.parametrize("wanted", [(True, True), (False, True), (True, False)])
def test_backward_pass_of_a_convolution_counts_the_gradients_asked_for(wanted):
    image, weight = torch.ones(2, 3, 10, 12), torch.ones(6, 3, 3, 3)
    image.requires_grad_(wanted[0])
    weight.requires_grad_(wanted[1])
    result = F.conv2d(image, weight, stride=2, padding=1)
    gradient = torch.ones_like(result)
    calls, _ = recorded_calls(lambda: result.backward(gradient, retain_graph=True))
    (inputs,) = (inputs for name, inputs in calls if name == "aten::convolution_backward")
    cost = cost_of("aten::convolution_backward", inputs)
    with FlopCounterMode(display=False) as counter:
        result.backward(gradient)
    assert cost.flops == counter.get_total_flops() > 0
    of_input, of_weight = image.numel(), weight.numel()
    moved = (
        gradient.numel() + wanted[0] * (of_input + of_weight) + wanted[1] * (of_input + of_weight)
    )
    assert cost.bytes == 4 * moved


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (3, 7), (7, 3)])
def test_attention_counts_the_pairs_that_the_mask_of_is_causal_leaves(causal, queries, keys):
    query, key = torch.ones(2, 4, queries, 8), torch.ones(2, 4, keys, 8)
    calls, _ = recorded_calls(
        lambda: F.scaled_dot_product_attention(query, key, key, is_causal=causal)
    )
    costs = [cost_of(name, inputs) for name, inputs in calls if "attention" in name]
    assert len(costs) >= 1
    pairs = sum(k <= q or not causal for q in range(queries) for k in range(keys))
    for cost in costs:
        assert cost.flops == 2 * 4 * pairs * 2 * (8 + 8)
        assert cost.bytes == 4 * 8 * 8 * (2 * queries + 2 * keys)
        assert (cost.dtype, cost.is_convolution) == ("float32", False)


def test_attention_backward_is_five_matmuls():
    q = torch.ones(1, 2, 6, 8, requires_grad=True)
    result = F.scaled_dot_product_attention(q, q, q)
    calls, _ = recorded_calls(lambda: result.backward(torch.ones_like(result)))
    (cost,) = (cost_of(n, i) for n, i in calls if n.endswith("_backward"))
    assert cost.flops == 5 * (2 * 2 * 6 * 6 * 8)
    assert cost.bytes == 4 * (5 + 3) * q.numel()


VALUES = ["", "", "", "0", "1"]
CASES = [
    # operator, shapes, types, values, strides, FLOPs, bytes
    ("mm", [[8, 16], [16, 4]], [BF16] * 2, None, None, 1024, 2 * (128 + 64 + 32)),
    # expanded rows are one row in memory; a slice has holes that are not read
    ("mm", [[8, 16], [16, 4]], [BF16] * 2, None, [[0, 1], [8, 1]], 1024, 2 * (16 + 64 + 32)),
    (
        "mm",
        [[8, 16], [16, 4], []],
        [BF16, BF16, "Scalar"],
        ["", "", "6"],
        None,
        1024,
        2 * 192 + 128,
    ),
    (
        "addmm",
        [[4], [8, 16], [16, 4], [], []],
        ["float"] * 3 + ["Scalar"] * 2,
        VALUES,
        None,
        1024,
        896,
    ),
    ("linear", [[2, 8, 16], [4, 16], []], ["float", "float", ""], None, None, 2048, 4 * 384),
    (
        "_scaled_mm",
        [[32, 64], [64, 16], [], [], [16], [], [], []],
        [*["c10::Float8_e4m3fn"] * 2, "float", "float", BF16, "", "Scalar", "Scalar"],
        [*[""] * 6, "15", "False"],
        None,
        2 * 32 * 64 * 16,
        32 * 64 + 64 * 16 + 4 + 4 + 32 + 2 * 32 * 16,
    ),
    (
        "_scaled_dot_product_flash_attention",
        [[1, 8, 6, 4], [1, 2, 6, 4], [1, 2, 6, 4], [], []],
        [BF16] * 3 + ["Scalar"] * 2,
        ["", "", "", "0.", "False"],
        None,
        8 * 36 * 16,
        2 * (8 * 24 * 2 + 2 * 24 * 2),
    ),
]


@pytest.mark.parametrize("case", CASES)
def test_cost_by_hand(case):
    operator, shapes, types, values, strides, flops, moved = case
    cost = cost_of(f"aten::{operator}", recorded(shapes, types, values, strides))
    assert (cost.flops, cost.bytes) == (flops, moved)


def test_numbers_of_types_are_those_that_torch_records():
    for dtype in (torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.float8_e4m3fn):
        calls, _ = recorded_calls(lambda dtype=dtype: torch.empty(2, dtype=dtype), every=True)
        (inputs,) = (inputs for name, inputs in calls if name == "aten::empty")
        code = json.loads(inputs)[3][1]
        text = recorded([[2, 2], [2, 2], []], [BF16, BF16, "Scalar"], ["", "", code])
        assert cost_of("aten::mm", text).bytes == 16 + 4 * dtype.itemsize


MM = ([[8, 16], [16, 4]], ["float", "float"], ["", ""])


@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        ("aten::add", recorded(*MM)),
        ("aten::mm", b"[null,null,null,null]"),
        ("aten::mm", b"[[[8"),
        ("aten::mm", recorded([[8, 16], [15, 4]], *MM[1:])),
        ("aten::mm", recorded([[8, 16]], *MM[1:])),
        ("aten::mm", recorded([[8, 0], [0, 4]], *MM[1:])),
        ("aten::mm", recorded(MM[0], ["int", "int"])),
        ("aten::mm", recorded(MM[0], ["c10::complex<float>"] * 2)),
        ("aten::mm", recorded(MM[0], ["float", ""])),
        # whether beta is 0 is not known
        ("aten::addmm", recorded([[4], [8, 16], [16, 4]], ["float"] * 3)),
        # a transposed convolution or not?
        ("aten::convolution", recorded([[1, 3, 8], [5, 3, 3]], ["float"] * 2)),
    ],
)
def test_call_has_no_cost_where_its_inputs_do_not_say_enough(operator, inputs):
    assert operator_cost(operator, inputs) is None


def test_any_json_in_place_of_inputs_is_no_error():
    odd = [*JSON_VALUES, [[8, 16], [16, 4]], [[2**70] * 9] * 2]
    types = ["float", "float", "Scalar", "Scalar", "Scalar", "Scalar"]
    for operator in FORMULAS:
        for shapes, values in itertools.product(odd, odd):
            operator_cost(operator, recorded(shapes, types, values, values))
            operator_cost(operator, recorded([shapes] * 11, values, [values] * 11, shapes))
