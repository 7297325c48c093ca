"""Saved worlds: whole, of the same weights, and the same frames when they are loaded again."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import glassworld
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.save import save_world
from glassworld.engine.world import World
from glassworld.errors import CheckpointError, InputError
from glassworld.files import DiskFullError
from glassworld.models.ops.quantized import quantize_layers
from glassworld.models.vae.tiny_decoder import TinyDecoder
from tests.support import tiny
from tests.support.disk import small_disk
from tests.support.paths import ROOT, UNWRITABLE

FILES = [
    "config/config.json",
    "inference.yaml",
    "transformer.safetensors",
    "vae.safetensors",
    "vision.safetensors",
]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_same_frames(world: World, again: World) -> None:
    first, second = (each.generate(tiny.picture(), 6, seed=3) for each in (world, again))
    assert torch.equal(first.latents, second.latents)
    np.testing.assert_array_equal(first.frames, second.frames)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed"])
def test_save_then_load_gives_the_same_frames_and_types(tmp_path: Path, dtype: str) -> None:
    tiny.world().save(tmp_path / "first")
    world = load_world(tmp_path / "first", dtype=dtype, device="cpu")
    world.save(tmp_path / "new" / "second")
    again = load_world(tmp_path / "new" / "second", dtype=dtype, device="cpu")
    assert files(tmp_path / "new" / "second") == FILES
    assert again.spec == world.spec == tiny.SPEC
    stored = load_file(tmp_path / "new" / "second" / "transformer.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {world.dtype}
    assert_same_frames(world, again)


def test_save_keeps_every_setting(tmp_path: Path) -> None:
    changes = {"seed": 9, "frame_rate": 10, "context_noise": 20.0, "warp_steps": False}
    world = tiny.world(denoising_steps=(1000, 500), dit={"sink": 1}, **changes)
    world.save(tmp_path / "first")
    first = load_world(tmp_path / "first", device="cpu")
    assert first.spec == world.spec
    first.save(tmp_path / "second")
    assert_same_frames(first, load_world(tmp_path / "second", device="cpu"))


@pytest.mark.slow
def test_save_of_the_embedded_world_keeps_its_notice_and_frames(tmp_path: Path) -> None:
    world = glassworld.load_world(device="cpu")
    world.save(tmp_path / "maze")
    again = glassworld.load_world(tmp_path / "maze", device="cpu")
    assert (again.name, again.note, again.spec) == ("maze", world.note, world.spec)
    assert_same_frames(world, again)


def test_save_keeps_what_the_folder_says_and_nothing_of_how_it_was_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.world().save(tmp_path / "first")
    said = {"notice": "small and brief", "source": "maze"}
    with (tmp_path / "first" / "inference.yaml").open("a") as file:
        yaml.safe_dump(said, file)
    monkeypatch.setattr(
        "glassworld.engine.checkpoint.load.compile_decoder", lambda *_: "it runs as it is"
    )
    world = load_world(tmp_path / "first", device="cpu")
    assert world.note == "small and brief\nit runs as it is"
    world.save(tmp_path / "second")
    settings = yaml.safe_load((tmp_path / "second" / "inference.yaml").read_text())
    assert said.items() <= settings.items()


def test_save_over_a_saved_world_replaces_it_and_keeps_its_images(tmp_path: Path) -> None:
    folder = tmp_path / "world"
    tiny.world().save(folder)
    (folder / "pictures").mkdir()
    tiny.picture().save(folder / "pictures" / "a.png")
    world = tiny.world(seed=9)
    world.save(folder)
    assert load_world(folder, device="cpu").spec.seed == 9
    assert files(folder) == sorted([*FILES, "pictures/a.png"])


def test_save_over_the_folder_that_the_world_was_loaded_from(tmp_path: Path) -> None:
    tiny.world().save(tmp_path)
    world = load_world(tmp_path, device="cpu")
    world.save(tmp_path)
    assert_same_frames(world, load_world(tmp_path, device="cpu"))


INTERRUPTED_SAVES = """
import itertools, os, signal, sys
from pathlib import Path
import torch
from tests.support import tiny

def save_until(step, folder):
    steps = itertools.count()
    def end(event, arguments):
        if event in ("os.rename", "os.remove") and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(end)
    new.save(folder)
    os._exit(0)

new = tiny.world(seed=9, dit={"sink": 1})
for network in (new.networks.dit, new.networks.encoder, new.networks.decoder, new.networks.vision):
    for weight in network.parameters():
        weight.add_(1)
new.save("new")
for step in itertools.count():
    folder = Path(f"killed-{step}")
    tiny.world().save(folder)
    child = os.fork() or save_until(step, folder)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def kind_of_world(folder: Path, kinds: dict[str, Path]) -> str:
    """Return which of several saved worlds a folder holds whole, or "refused"."""
    try:
        load_world(folder, device="cpu")
    except CheckpointError as error:
        return "refused" if "holds files of two worlds" in str(error) else str(error)
    contents = {
        kind: [(path / file).read_bytes() for file in FILES] for kind, path in kinds.items()
    }
    own = [(folder / file).read_bytes() for file in FILES]
    return next((kind for kind, content in contents.items() if content == own), "a mixture")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_a_killed_save_leaves_one_world_or_says_that_there_are_two(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, "-c", INTERRUPTED_SAVES]
    subprocess.run(script, cwd=tmp_path, env=environment, check=True, timeout=300)
    tiny.world().save(tmp_path / "old")
    kinds = {name: tmp_path / name for name in ("old", "new")}
    folders = [tmp_path / f"killed-{step}" for step in range(len(list(tmp_path.glob("killed-*"))))]
    found = [kind_of_world(folder, kinds) for folder in folders]
    assert [kind for kind, _ in groupby(found)] == ["old", "refused", "new"], found
    again = folders[found.index("refused")]
    tiny.world().save(again)
    assert kind_of_world(again, kinds) == "old"
    assert files(again) == FILES


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **more: object) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(yaml, "safe_dump", fail)
    with pytest.raises(OSError, match="No space"):
        tiny.world().save(tmp_path / "world")
    assert list(tmp_path.iterdir()) == []


def test_save_on_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    world = load_world("maze", device="cpu")
    with small_disk(tmp_path / "disk", 500) as disk:
        with pytest.raises(DiskFullError, match=f"^{disk / 'world'}: cannot be written: the disk"):
            world.save(disk / "world")
        assert not list(disk.iterdir())


def test_save_writes_another_type_where_it_is_asked_for(tmp_path: Path) -> None:
    world = tiny.world()
    save_world(tmp_path / "half", world.spec, world.networks, dtype=torch.float16)
    for file in ("transformer", "vae", "vision"):
        tensors = load_file(tmp_path / "half" / f"{file}.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert "notice" not in yaml.safe_load((tmp_path / "half" / "inference.yaml").read_text())


def test_save_into_a_folder_of_other_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds other files and no saved world"):
        tiny.world().save(tmp_path)
    with pytest.raises(InputError, match=r"thesis\.tex: is a file; name a folder"):
        tiny.world().save(tmp_path / "thesis.tex")
    with pytest.raises(InputError, match="cannot be written to"):
        tiny.world().save(UNWRITABLE / "world")


def test_save_of_quantized_weights_is_an_error(tmp_path: Path) -> None:
    world = tiny.world()
    quantize_layers(world.networks.dit.blocks, torch.int8)
    with pytest.raises(InputError, match=r"weights are not the world's own, .*int8"):
        world.save(tmp_path / "world")
    assert not (tmp_path / "world").exists()


def test_save_with_a_tiny_decoder_is_an_error(tmp_path: Path) -> None:
    world = tiny.world()
    networks = replace(world.networks, decoder=TinyDecoder())
    with pytest.raises(InputError, match="decodes by a tiny decoder"):
        save_world(tmp_path / "world", world.spec, networks)


def test_save_of_what_the_layout_cannot_hold_is_an_error(tmp_path: Path) -> None:
    world = tiny.world()
    vae = replace(world.spec.vae, mean=(0.0,) * 16)
    with pytest.raises(InputError, match="cannot hold this world's vae"):
        save_world(tmp_path / "world", replace(world.spec, vae=vae), world.networks)
