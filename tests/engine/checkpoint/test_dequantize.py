"""Weights in 8 bits, with scales and without; weights that are not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from glassworld.engine.checkpoint.dequantize import SCALES, dequantized
from glassworld.errors import CheckpointError
from tests.support.laid_out import CLIP_FILE, DIT_FILE, lay_out, load

SOURCE = Path("weights.safetensors")
NAME = "model.blocks.0.ffn.0.weight"
FP8, INT8 = torch.float8_e4m3fn, torch.int8


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


def change(release: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Edit the tensors of the transformer's file."""
    tensors = load_file(release / DIT_FILE)
    edit(tensors)
    save_file(tensors, release / DIT_FILE)


@pytest.mark.parametrize("end", SCALES)
@pytest.mark.parametrize("kind", [FP8, torch.float8_e5m2, INT8])
def test_dequantized_multiplies_by_the_scale(end: str, kind: torch.dtype) -> None:
    stored = torch.tensor([[1.0, -2.0], [3.0, 4.0]]).to(kind)
    plain = dequantized({"a.weight": stored, f"a.{end}": torch.tensor(0.5)}, SOURCE)
    assert plain.keys() == {"a.weight"}
    assert plain["a.weight"].tolist() == [[0.5, -1.0], [1.5, 2.0]]


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_dequantized_takes_one_scale_in_any_shape(shape: tuple[int, ...]) -> None:
    tensors = {"a.weight": torch.ones(3, 2).to(FP8), "a.weight_scale": torch.full(shape, 2.0)}
    assert dequantized(tensors, SOURCE)["a.weight"].tolist() == [[2.0, 2.0]] * 3


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_dequantized_takes_a_scale_per_row(shape: tuple[int, ...]) -> None:
    scale = torch.tensor([1.0, 2.0, 3.0]).reshape(shape)
    tensors = {"a.weight": torch.ones(3, 2).to(FP8), "a.weight_scale": scale}
    assert dequantized(tensors, SOURCE)["a.weight"].tolist() == [[1, 1], [2, 2], [3, 3]]


def test_dequantized_takes_a_scale_per_block() -> None:
    scale = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    tensors = {"a.weight": torch.ones(200, 300).to(FP8), "a.weight_scale_inv": scale}
    weight = dequantized(tensors, SOURCE)["a.weight"]
    assert weight.shape == (200, 300)
    assert weight[[0, 127, 128, 199]][:, [0, 128, 299]].tolist() == [
        [1, 2, 3],
        [1, 2, 3],
        [4, 5, 6],
        [4, 5, 6],
    ]


def test_dequantized_drops_scales_of_activations() -> None:
    tensors = {
        "a.weight": torch.ones(2, 2).to(FP8),
        "a.scale_weight": torch.ones(()),
        "a.input_scale": torch.ones(()),
        "scaled_fp8": torch.ones(2).to(FP8),
    }
    assert dequantized(tensors, SOURCE).keys() == {"a.weight"}


FP8_ONES = torch.ones(2, 2).to(FP8)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a.weight": torch.ones(2, 2, dtype=INT8)}, "a.weight holds int8 numbers without a scale"),
        ({"a.bias": torch.ones(2, dtype=torch.int64)}, "a.bias holds int64 numbers without"),
        ({"a.bias": torch.ones(2, dtype=torch.bool)}, "a.bias holds bool"),
        (
            {"a.weight": torch.ones(2, 2, dtype=torch.uint8), "a.weight_scale": torch.ones(())},
            "a.weight is uint8 with the scale a.weight_scale, which cannot be undone",
        ),
        (
            {"a.weight": torch.ones(2, 2), "a.weight_scale": torch.ones(())},
            "a.weight is float32 with the scale a.weight_scale",
        ),
        (
            {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale": torch.ones(3)},
            r"a.weight_scale of shape \[3\] does not fit a.weight of shape \[4, 4\]",
        ),
        (
            {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale": torch.ones((), dtype=INT8)},
            "a.weight_scale holds torch.int8; scales must be floats",
        ),
        (
            {"a.weight": FP8_ONES, "a.weight_scale": torch.ones(()), "b.weight": FP8_ONES},
            "b.weight has no scale, although others have one",
        ),
        ({"a.weight": FP8_ONES, "a.weight_scale": torch.zeros(())}, "a.weight_scale is not above"),
        (
            {"a.weight": FP8_ONES, "a.weight_scale": torch.tensor([1.0, -1.0])},
            "a.weight_scale is not above 0",
        ),
        ({"a.weight_scale": torch.ones(())}, "a.weight_scale is a scale, but there is no a.weight"),
    ],
)
def test_dequantized_refuses_by_name(tensors: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"weights.safetensors: {message}"):
        dequantized(tensors, SOURCE)


def first_weight(release: Path) -> Tensor:
    return load(release).networks.dit.get_parameter("blocks.0.ffn.0.weight")


def test_load_world_multiplies_fp8_weights_out(release: Path) -> None:
    expected = first_weight(release)

    def quantize(tensors: dict[str, Tensor]) -> None:
        scale = tensors[NAME].abs().max() / 448
        tensors[NAME] = (tensors[NAME] / scale).to(FP8)
        tensors[f"{NAME}_scale"] = scale

    change(release, quantize)
    weight = first_weight(release)
    assert 0 < (weight - expected).abs().max() < expected.abs().max() / 14


def test_load_world_refuses_integer_weights(release: Path) -> None:
    change(release, lambda tensors: tensors.update({NAME: tensors[NAME].to(INT8)}))
    with pytest.raises(CheckpointError, match=r"blocks\.0\.ffn\.0\.weight holds int8 numbers"):
        load(release)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_load_world_names_the_first_tensor_that_is_not_finite(release: Path, bad: float) -> None:
    name = "model.blocks.1.self_attn.k.weight"
    change(release, lambda tensors: tensors[name][3].fill_(bad))
    with pytest.raises(CheckpointError, match=f"base_distill.safetensors: {name} holds .* finite"):
        load(release)


@pytest.mark.parametrize(
    ("file", "name"),
    [("Wan2.1_VAE.pth", "decoder.conv1.bias"), (CLIP_FILE, "visual.pre_norm.weight")],
)
def test_load_world_names_the_file_that_is_not_finite(release: Path, file: str, name: str) -> None:
    tensors = torch.load(release / file, weights_only=True)
    tensors[name][0] = float("nan")
    torch.save(tensors, release / file)
    with pytest.raises(CheckpointError, match=f"{file}: {name} holds numbers that are not finite"):
        load(release)
