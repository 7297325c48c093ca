"""The public surface, frozen: a change here is a change for everybody who embeds glassworld."""

from __future__ import annotations

import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest

import glassworld

SURFACE = [
    "Action",
    "ActionTrack",
    "InputError",
    "Rollout",
    "Session",
    "SessionBatch",
    "World",
    "__version__",
    "load_world",
    "profile",
    "tag",
]


def test_the_surface_is_what_it_was() -> None:
    assert sorted(glassworld.__all__) == SURFACE
    assert set(SURFACE) <= set(dir(glassworld))
    for name in SURFACE:
        assert getattr(glassworld, name) is getattr(glassworld, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'laod_world'"):
        glassworld.laod_world  # noqa: B018


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (
            "load_world",
            "world variant config_path checkpoint_path pretrained_model_path random_weights "
            "device dtype vae_compile_mode accelerate tiny_decoder",
        ),
        (
            "World.generate",
            "self image num_latent_frames seed actions initial_latents on_block noise",
        ),
        ("World.stream", "self image num_latent_frames seed actions initial_latents noise stop"),
        ("World.start", "self image seed num_latent_frames"),
        ("World.resume", "self path"),
        ("Session.step", "self action on_frames"),
        ("Session.stream", "self num_latent_frames actions stop"),
        ("Session.save", "self path light"),
        ("SessionBatch", "sessions"),
        ("SessionBatch.step", "self actions on_frames"),
        ("Action", "keyboard mouse"),
        ("ActionTrack", "keyboard mouse"),
        ("profile", "path mode blocks"),
    ],
)
def test_signatures_are_what_they_were(function: str, parameters: str) -> None:
    home, _, method = function.partition(".")
    found = getattr(glassworld, home)
    found = getattr(found, method) if method else found
    assert " ".join(signature(found).parameters) == parameters


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, glassworld; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "glassworld" in result.stdout.split()
    assert not {"torch", "numpy", "PIL", "av", "rich", "typer"} & set(result.stdout.split())


@pytest.mark.slow
def test_starting_and_profiling_load_no_compiler(tmp_path: Path) -> None:
    code = (
        "import sys, glassworld\n"
        "from PIL import Image\n"
        "world = glassworld.load_world()\n"
        "session = world.start(Image.new('RGB', (96, 64)))\n"
        f"with glassworld.profile({str(tmp_path / 'trace.json')!r}):\n"
        "    session.step(world.space.press(()))\n"
        "print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert (tmp_path / "trace.json").stat().st_size > 100_000
    assert not {"torch._dynamo", "torch._inductor", "sympy"} & set(result.stdout.split())
