"""Files of tensors: shards and their index, headers without their tensors, other formats."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
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
        ('{"weight_map": {}}', "names no tensors"),
        ("<html>", "is a web page"),
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
    size = file.stat().st_size
    with pytest.raises(CheckpointError, match=f"truncated: {size:,} of its {size + 600:,} bytes"):
        read_tensors(file)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="truncated within its header"):
        read_shapes(file)


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 80, b"\x02" + bytes(7) + b"[]"])
def test_read_shapes_of_no_safetensors_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a checkpoint|truncated"):
        read_shapes(file)


def test_load_world_reads_a_transformer_of_pth(release: Path) -> None:
    torch.save(load_file(release / DIT_FILE), release / f"{STEM}.pth")
    spec = load(release, checkpoint_path=release / f"{STEM}.pth").spec
    (release / DIT_FILE).unlink()
    assert load(release).spec == spec
    assert load_world(release, device="cpu").spec == spec


def test_shards_that_differ_in_a_tensor_of_both_are_an_error(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2), "b": torch.zeros(2)}, tmp_path / "x.safetensors")
    index = split(tmp_path / "x.safetensors", 2)
    second = tmp_path / "x-00002-of-00002.safetensors"
    save_file({"a": torch.ones(2), "b": torch.zeros(2)}, second)
    assert read_tensors(index).keys() == {"a", "b"}
    save_file({"a": torch.ones(2) + 1, "b": torch.zeros(2), "c": torch.ones(1)}, second)
    with pytest.raises(CheckpointError, match=r"00002.*: a is in another shard too, and differs"):
        read_tensors(index)
    save_file({"b": torch.zeros(2), "c": torch.ones(1)}, second)
    assert read_tensors(index).keys() == {"a", "b", "c"}  # whoever loads them refuses c


def test_shards_of_pickles_are_read_by_their_index(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "x-00001-of-00002.bin")
    torch.save({"b": torch.zeros(3)}, tmp_path / "x-00002-of-00002.bin")
    names = {"a": "x-00001-of-00002.bin", "b": "x-00002-of-00002.bin"}
    index = tmp_path / "x.bin.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert read_shapes(index) == {"a": (2,), "b": (3,)}
    with pytest.raises(CheckpointError, match=r"one of 2 shards.*name the index x\.bin\.index"):
        read_tensors(tmp_path / "x-00001-of-00002.bin")


def test_why_a_checkpoint_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"

    def reason() -> str:
        with pytest.raises(CheckpointError) as caught:
            read_tensors(file)
        return str(caught.value).removeprefix(f"{file}: ")

    assert reason() == "no such checkpoint file"
    save_file({"a": torch.ones(1)}, tmp_path / "x-00001-of-00002.safetensors")
    assert "shards of it are there" in reason()
    (tmp_path / "x.safetensors.incomplete").touch()
    assert "x.safetensors.incomplete is unfinished" in reason()
    file.symlink_to("blobs/nothing")
    assert reason() == "links to blobs/nothing, which is missing; download it again"
    file.unlink()
    save_file({"a": torch.ones(1)}, file)
    assert read_tensors(file).keys() == {"a"}
    (tmp_path / "x.safetensors.aria2").touch()  # beside a file of its full size, half of it zeros
    assert "is not downloaded yet" in reason()
    file.unlink()
    file.mkdir()
    assert reason() == "is a folder; name the checkpoint file in it"


def test_format_is_that_of_the_content(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.pth")
    torch.save(TENSORS, tmp_path / "a.safetensors")
    torch.save(TENSORS, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for name in ("a.pth", "a.safetensors", "old.bin"):
        read = read_tensors(tmp_path / name)
        assert all(torch.equal(read[key], TENSORS[key]) for key in TENSORS)
        assert read_shapes(tmp_path / name) == {"a.weight": (2, 3), "a.bias": (3,)}


def test_truncated_zip_is_named_as_such(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="truncated: the list at its end is missing"):
        read_tensors(tmp_path / "a.pth")


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
        {"model": TENSORS, "rng_state": {"cpu": torch.ones(3, dtype=torch.uint8)}},
        {"model": TENSORS, "args": Namespace(lr=1e-4, out=Path("runs")), "step": np.int64(3)},
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
        ({"a": torch.ones(2, device="meta")}, "a was saved from the meta device"),
        ({"a": torch.nn.Linear(2, 2)}, r"holds torch\.nn\.modules\.linear\.Linear, refused"),
    ],
)
def test_read_tensors_names_the_choices_or_that_there_are_none(
    tmp_path: Path, content: object, reason: str
) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=reason):
        read_tensors(tmp_path / "a.pth")
