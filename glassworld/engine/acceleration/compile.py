"""Compile the networks, and store the result for the next start.

Every part is compiled on its own, between the tags, so that every tag survives: the decoder's
stages, and the methods of a transformer layer between its tags and its cache writes. The
compiler's output is stored in a folder of the user's cache, one for each combination of machine,
versions and network; the folder holds code, so one that others could write to is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glassworld.errors import InputError
from glassworld.files import compiled_folder
from glassworld.models.ops.attention import pointwise_attention
from glassworld.models.transformer.action import ActionModule
from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.layer import Layer
from glassworld.models.vae.causal_conv import CausalConv, FeatureCache
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.profiling.metadata import machine, versions
from glassworld.specs import WorldSpec

COMPILE_MODES = ("auto", "force", "none")
COMPLETE = "complete.json"  # written when everything has been compiled
RECOMPILE_LIMIT = 256  # stages share their code, and each counts as a version of it
PIECES: dict[type[nn.Module], tuple[str, ...]] = {
    Layer: ("qkv", "attention_out", "cross_attention", "mlp"),
    ActionModule: ("mouse_qkv", "mouse_out", "keyboard_qkv", "keyboard_out"),
}
"""The methods of a transformer layer that are compiled."""


def compile_decoder(decoder: VAEDecoder, spec: WorldSpec, mode: str) -> str:
    """Compile the decoder as `mode` asks; return a note for the user, or "".

    "none" leaves the decoder as it is. "force" compiles now (minutes) and stores the result.
    "auto" uses a stored result that fits this machine, these versions and this network; without
    one it leaves the decoder as it is. A decoder that runs by kernels stays so. Raises
    `InputError` for an unknown mode, a compiler that fails, and a cache folder that others can
    write to or that is not writable.
    """
    if mode not in COMPILE_MODES:
        raise InputError(f"vae_compile_mode {mode!r}: must be one of {', '.join(COMPILE_MODES)}")
    if mode == "none":
        return ""
    if decoder.fused:
        note = "vae_compile_mode force: the decoder runs by kernels, so it is not compiled"
        return note if mode == "force" else ""
    facts = _decoder_facts(decoder, spec)
    folder = _folder(facts)
    if mode == "auto" and not os.path.isfile(folder / COMPLETE):  # nor one that is not ours to read
        return ""
    if mode == "auto" and not os.access(folder, os.W_OK):
        return f"vae_compile_mode auto: {_unwritable(folder)}, so the decoder runs as it is"
    with compiler_cache(folder, "vae_compile_mode: compiling failed here ({}); use none"):
        _compile_parts(decoder)
        _decode_until_settled(decoder, spec)
    (folder / COMPLETE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return ""


def compile_layers(dit: DiT, spec: WorldSpec, warm_up: Callable[[], None]) -> None:
    """Compile the transformer's layers; `warm_up` generates a block, which compiles them.

    All layers share the compiled code. Raises `InputError` as `compile_decoder` does.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    facts = _facts(dit.head.head.weight, {"dit": asdict(spec.dit), "grid": spec.token_grid})
    failed = "accelerate: compiling layers failed here ({}); leave out 'layers'"
    with compiler_cache(_folder(facts), failed):
        for layer in dit.modules():
            for piece in PIECES.get(type(layer), ()):
                setattr(layer, piece, torch.compile(getattr(layer, piece), dynamic=False))
            if isinstance(layer, ActionModule) and layer.mouse_attention is pointwise_attention:
                layer.mouse_attention = torch.compile(pointwise_attention, dynamic=False)
        dit.compiled = True
        warm_up()


def _decoder_facts(decoder: VAEDecoder, spec: WorldSpec) -> dict[str, Any]:
    layers = [layer for layer in decoder.modules() if isinstance(layer, CausalConv)]
    direct = [layer.name for layer in layers if layer.uses_conv3d]
    own = {"vae": asdict(spec.vae), "latent_size": spec.latent_size, "direct": direct}
    return _facts(decoder.conv2.weight, own)


def _facts(weight: Tensor, own: dict[str, Any]) -> dict[str, Any]:
    """Return everything that compiled code depends on."""
    return {
        **own,
        "dtype": str(weight.dtype),
        "device": weight.device.type,
        "machine": machine(),
        "versions": versions(),
    }


def _folder(facts: dict[str, Any]) -> Path:
    return compiled_folder() / _key(facts)


def _key(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _make_private(folder: Path) -> None:
    """Create the folder, readable by this user alone; refuse one that somebody else prepared."""
    advice = "set XDG_CACHE_HOME to a writable folder, or leave compiling out"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError as error:
        raise InputError(f"{_unwritable(folder)} ({error.strerror}); {advice}") from None
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        raise InputError(f"{folder}: others can write to this folder of code; remove it")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{_unwritable(folder)}; {advice}")


def _unwritable(folder: Path) -> str:
    return f"{folder}: this cache of compiled code cannot be written to"


@contextmanager
def compiler_cache(folder: Path, failed: str) -> Iterator[None]:
    """Let the compiler store its results in `folder`; `failed` is the message if it fails."""
    _make_private(folder)
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(failed.format(reason)) from None
    finally:
        if before is None:
            del os.environ["TORCHINDUCTOR_CACHE_DIR"]
        else:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


def _compile_parts(decoder: VAEDecoder) -> None:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    inner = decoder.decoder
    parts: list[nn.Module] = [inner.conv1, inner.middle, inner.head, *inner.stages]
    for part in parts:
        part.compile(dynamic=False)
    decoder.compiled = True


@torch.inference_mode()
def _decode_until_settled(decoder: VAEDecoder, spec: WorldSpec) -> None:
    """Decode three latent frames: two are not compiled (see `VAEDecoder`), later ones are."""
    weight = decoder.conv2.weight
    rows, columns = spec.latent_size
    latents = weight.new_zeros(1, spec.vae.latent_channels, 3, rows, columns)
    for _ in decoder.stream(latents, FeatureCache()):
        pass
