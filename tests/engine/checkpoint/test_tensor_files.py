"""Files of tensors: shards and their index, headers without their tensors, other formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.tensor_files import read_shapes, read_tensors
from glassworld.errors import CheckpointError
from tests.support.laid_out import DIT_FILE, lay_out, load

STEM = DIT_FILE.removesuffix(".safetensors")


def split(file: Path, count: int = 3) -> Path:
    """Replace a safetensors file by shards and their index; return the index."""
    tensors, stem = load_file(file), str(file).removesuffix(".safetensors")
    weight_map: dict[str, str] = {}
    for number in range(count):
        shard = Path(f"{stem}-{number + 1:05}-of-{count:05}.safetensors")
        part = {name: tensors[name] for name in sorted(tensors)[number::count]}
        save_file(part, shard)
        weight_map |= dict.fromkeys(part, shard.name)
    index = Path(f"{stem}.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    file.unlink()
    return index


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


def test_read_tensors_of_an_index_is_all_of_its_shards(tmp_path: Path) -> None:
    tensors = {f"t{number}": torch.arange(number + 1.0) for number in range(7)}
    save_file(tensors, tmp_path / "a.safetensors")
    index = split(tmp_path / "a.safetensors")
    read = read_tensors(index)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert read_shapes(index) == {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def test_load_world_finds_shards_where_the_file_would_be(release: Path) -> None:
    frames = load(release).spec
    index = split(release / DIT_FILE)
    assert load(release).spec == frames
    assert load(release, checkpoint_path=index).spec == frames


def test_one_shard_alone_is_named_as_one_of_all(release: Path) -> None:
    split(release / DIT_FILE)
    shard = release / f"{STEM}-00002-of-00003.safetensors"
    with pytest.raises(CheckpointError, match=r"one of 3 shards.*base_distill.safetensors"):
        load(release, checkpoint_path=shard)


def test_a_missing_shard_is_named(release: Path) -> None:
    index = split(release / DIT_FILE)
    (release / f"{STEM}-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"1 of its 3 shards are missing: .*00002-of-00003"):
        load(release, checkpoint_path=index)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not an index of shards"),
        ("[]", "not an index of shards"),
        ("{}", "not an index of shards"),
        ('{"weight_map": {"a": "../a.safetensors"}}', "not beside it"),
        ('{"weight_map": {"a": 3}}', "not an index of shards"),
        ('{"weight_map": {"b": "a.safetensors"}}', "its index says that b is in it"),
    ],
)
def test_an_index_that_is_none_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    index = tmp_path / "b.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_tensors(index)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError):
        read_shapes(index)


def test_read_shapes_needs_the_header_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(300, 2), "b": torch.ones(1)}, file)
    file.write_bytes(file.read_bytes()[:-600])
    assert read_shapes(file) == {"a": (300, 2), "b": (1,)}
    with pytest.raises(CheckpointError, match="truncated"):
        read_tensors(file)


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 80, b"\x02" + bytes(7) + b"[]"])
def test_read_shapes_of_no_safetensors_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated or not safetensors"):
        read_shapes(file)


def test_load_world_reads_a_transformer_of_pth(release: Path) -> None:
    torch.save(load_file(release / DIT_FILE), release / f"{STEM}.pth")
    spec = load(release, checkpoint_path=release / f"{STEM}.pth").spec
    (release / DIT_FILE).unlink()
    assert load(release).spec == spec
    assert load_world(release, device="cpu").spec == spec


TENSORS = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(3)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS},
        {"model": TENSORS, "step": 3, "optimizer": OPTIMIZER, "ema": {}},
        {"ema": TENSORS, "args": {"lr": 1e-4}},
        {"generator": {"state_dict": TENSORS}, "epoch": torch.tensor(3)},
    ],
)
def test_read_tensors_finds_the_one_dictionary_of_tensors(
    tmp_path: Path, content: dict[str, object]
) -> None:
    torch.save(content, tmp_path / "a.pth")
    read = read_tensors(tmp_path / "a.pth")
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)
    assert read_shapes(tmp_path / "a.pth") == {"a.weight": (2, 3), "a.bias": (3,)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"model": TENSORS, "ema": TENSORS}, r"holds 2 .*\(ema, model\)"),
        ({"nets": {"a": TENSORS, "b": TENSORS}}, r"holds 2 .*\(nets.a, nets.b\)"),
        ({"model": {}, "step": 3}, "not a plain dictionary"),
        ({"optimizer": OPTIMIZER}, "not a plain dictionary"),
        ({"a": {"b": {"c": {"d": TENSORS}}}}, "not a plain dictionary"),
        ([TENSORS], "not a plain dictionary"),
    ],
)
def test_read_tensors_names_the_choices_or_that_there_are_none(
    tmp_path: Path, content: object, reason: str
) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=reason):
        read_tensors(tmp_path / "a.pth")
