"""Compiling the VAE decoder, and keeping what was compiled for the next start.

Each part of the decoder is compiled on its own, between the tags, so that every tag survives.
What the compiler makes is kept in a folder of the user's cache, one for each combination of
machine, versions and network; the folder is code, so one that others could write to is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glassworld.engine.runtime import cache_folder
from glassworld.errors import InputError
from glassworld.models.vae_convs import Memory
from glassworld.models.vae_decoder import VAEDecoder
from glassworld.profiling.metadata import machine, versions
from glassworld.specs import WorldSpec

COMPILE_MODES = ("auto", "force", "none")
COMPLETE = "complete.json"  # written when everything has been compiled
GRAPHS = 256  # layers share their code, and each counts as a version of it


def compile_decoder(decoder: VAEDecoder, spec: WorldSpec, mode: str) -> str:
    """Do as `mode` says; returns what a person should know about it ("" for nothing).

    "none" leaves the decoder as it is. "force" compiles now (minutes) and keeps the result.
    "auto" uses a kept result that fits this machine, these versions and this network, and else
    leaves the decoder as it is. Raises `InputError` for an unknown mode, a compiler that fails
    and a cache folder that others can write to.
    """
    if mode not in COMPILE_MODES:
        raise InputError(f"vae_compile_mode {mode!r}: must be one of {', '.join(COMPILE_MODES)}")
    if mode == "none":
        return ""
    facts = _facts(decoder, spec)
    folder = cache_folder() / "compiled" / _key(facts)
    if mode == "auto" and not (folder / COMPLETE).is_file():
        return (
            "vae_compile_mode auto: nothing compiled is stored for this world and machine, so "
            "the decoder runs as it is; --vae_compile_mode force compiles it once"
        )
    _make_private(folder)
    with _compiler_cache(folder):
        _compile_parts(decoder)
        _decode_twice(decoder, spec)
    (folder / COMPLETE).write_text(json.dumps(facts, indent=1))
    return ""


def _facts(decoder: VAEDecoder, spec: WorldSpec) -> dict[str, Any]:
    """All that what is compiled depends on."""
    weight = decoder.conv2.weight
    return {
        "vae": asdict(spec.vae),
        "latent_size": spec.latent_size,
        "dtype": str(weight.dtype),
        "device": weight.device.type,
        "machine": machine(),
        "versions": versions(),
    }


def _key(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _make_private(folder: Path) -> None:
    """Make the folder, readable by this user alone; refuse one that somebody else prepared."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(os, "getuid"):
        status = folder.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise InputError(f"{folder}: others can write to this folder of code; remove it")


@contextmanager
def _compiler_cache(folder: Path) -> Iterator[None]:
    """Have the compiler keep its results in `folder`."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"vae_compile_mode: compiling failed here ({reason}); use none") from None
    finally:
        if before is None:
            del os.environ["TORCHINDUCTOR_CACHE_DIR"]
        else:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


def _compile_parts(decoder: VAEDecoder) -> None:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = GRAPHS
    inner = decoder.decoder
    parts: list[nn.Module] = [inner.conv1, inner.middle, inner.head, *inner.stages]
    for part in parts:
        part.compile(dynamic=False)


@torch.inference_mode()
def _decode_twice(decoder: VAEDecoder, spec: WorldSpec) -> None:
    """Meet every shape that streaming has: the first latent frame, the second, and those after."""
    weight = decoder.conv2.weight
    rows, columns = spec.latent_size
    latents = weight.new_zeros(1, spec.vae.latent_channels, 1, rows, columns)
    memory = Memory()
    for _ in range(3):
        decoder.stream(latents, memory)
