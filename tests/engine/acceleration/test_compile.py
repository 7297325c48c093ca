"""Compiling the decoder: same frames, every tag still there, kept for the next time."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

import glassworld
from glassworld.engine.acceleration.compile import compile_decoder
from glassworld.engine.acceleration.parts import accelerate
from glassworld.errors import InputError
from tests.support import tiny
from tests.support.paths import A_FILE

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no C++ compiler, which compiling for a CPU needs"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "glassworld" / "compiled"


def test_compile_decoder_auto_without_a_stored_result_is_silent_and_changes_nothing(
    cache: Path,
) -> None:
    world = tiny.world()
    assert compile_decoder(tiny.vae_decoder(world), world.spec, "auto") == ""
    assert not world.networks.decoder.compiled
    assert not cache.exists()


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_force_stores_a_result_that_auto_uses_and_tags_survive(cache: Path, tmp_path: Path) -> None:
    expected = tiny.world().generate(tiny.picture(), 6)
    try:
        for mode in ("force", "auto"):
            world = tiny.world()
            assert compile_decoder(tiny.vae_decoder(world), world.spec, mode) == ""
            with glassworld.profile(tmp_path / "t.json", mode="tags"):
                rollout = world.generate(tiny.picture(), 6)
            difference = torch.from_numpy(rollout.frames).int() - torch.from_numpy(expected.frames)
            assert difference.abs().max() <= 1
            events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
            names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
            assert names.count("VAE_Dec_Upsample_Blocks") == 6
    finally:
        torch.compiler.reset()
    (folder,) = cache.iterdir()
    assert json.loads((folder / "complete.json").read_text())["device"] == "cpu"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions of this system are not POSIX")
def test_cache_folder_that_others_can_write_to_is_refused(cache: Path) -> None:
    world = tiny.world()
    from glassworld.engine.acceleration.compile import _decoder_facts, _folder

    folder = _folder(_decoder_facts(tiny.vae_decoder(world), world.spec))
    folder.mkdir(parents=True)
    (folder / "complete.json").write_text("{}")
    folder.chmod(0o777)
    with pytest.raises(InputError, match="others can write"):
        compile_decoder(tiny.vae_decoder(world), world.spec, "auto")


def test_unwritable_cache_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", f"{A_FILE}/cache")
    world = tiny.world()
    assert compile_decoder(tiny.vae_decoder(world), world.spec, "auto") == ""
    folder = re.escape(f"{A_FILE / 'cache' / 'glassworld' / 'compiled'}")
    said = f"^{folder}.* cannot be written to .* set XDG_CACHE_HOME"
    with pytest.raises(InputError, match=said):
        compile_decoder(tiny.vae_decoder(world), world.spec, "force")
    with pytest.raises(InputError, match=said):
        accelerate(world, ["layers"])
    assert not world.networks.dit.compiled
    assert world.start(tiny.picture()).step(world.space.press("w")).shape[0] == 9


def test_read_only_cache_is_left_alone(cache: Path) -> None:
    world = tiny.world()
    from glassworld.engine.acceleration.compile import _decoder_facts, _folder

    folder = _folder(_decoder_facts(tiny.vae_decoder(world), world.spec))
    folder.mkdir(parents=True, mode=0o700)
    (folder / "complete.json").write_text("{}")
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    note = compile_decoder(tiny.vae_decoder(world), world.spec, "auto")
    assert note.startswith(f"vae_compile_mode auto: {folder}")
    assert note.endswith("so the decoder runs as it is")
    assert not world.networks.decoder.compiled
    with pytest.raises(InputError, match="cannot be written to; set XDG_CACHE_HOME"):
        compile_decoder(tiny.vae_decoder(world), world.spec, "force")
