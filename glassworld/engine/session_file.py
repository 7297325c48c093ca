"""A session as a file: exact, so that it goes on with the same bits.

The file is a safetensors file: the state's tensors, and a header of JSON values under
`session` in its metadata. Reading one runs no code. A file holds no weights. It names its world by
a fingerprint of the world's spec and of some of its weights, and is refused by any other world.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glassworld.engine.conditioning import ActionHistory, ImageLatents
from glassworld.engine.run_config import describe
from glassworld.engine.sampling import NoiseSource
from glassworld.engine.state import SessionState
from glassworld.errors import InputError
from glassworld.files import replacing, writable_file
from glassworld.models.transformer.kv_cache import KeyValues
from glassworld.models.vae.causal_conv import FeatureCache

if TYPE_CHECKING:
    from glassworld.engine.world import World

FORMAT_VERSION = 1
METADATA_KEY = "session"

Tensors = dict[str, Tensor]


class SessionHeader(msgspec.Struct, forbid_unknown_fields=True):
    """What a session file says beside its tensors.

    `seed` and `num_latent_frames` are those the session was started with; the counters are those of
    `SessionState`. `digest` is that of the tensors.
    """

    version: int
    world: str  # its name, for messages
    fingerprint: str
    dtype: str
    seed: int
    num_latent_frames: int | None
    start: int
    block: int
    prefilled: int
    shift: int
    first_action: int
    decoder_first: bool
    encoder_first: bool
    digest: str


def fingerprint(world: World) -> str:
    """Return a hash of a world's spec and of weights that training changes: 16 hex digits."""
    digest = hashlib.sha256(json.dumps(asdict(world.spec), sort_keys=True, default=str).encode())
    dit, vision = world.networks.dit, world.networks.vision
    for weight in (dit.patch_embedding.weight, dit.head.modulation, vision.pre_norm.weight):
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def save_session(path: Path, world: World, state: SessionState) -> None:
    """Write a session's state to `path`, whole or not at all.

    Raises `InputError` if the file cannot be written.
    """
    writable_file(path)
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in _tensors(state)}
    header = SessionHeader(
        version=FORMAT_VERSION,
        world=world.name,
        fingerprint=fingerprint(world),
        dtype=str(world.dtype),
        seed=state.config["seed"],
        num_latent_frames=state.config["num_latent_frames"],
        start=state.start,
        block=state.block,
        prefilled=state.prefilled,
        shift=state.shift,
        first_action=state.actions.first,
        decoder_first=state.decoder.first,
        encoder_first=state.image.memory.first,
        digest=_digest(tensors),
    )
    with replacing(path) as partial:
        save_file(tensors, partial, {METADATA_KEY: msgspec.json.encode(header).decode()})


@torch.inference_mode()
def load_session(path: Path, world: World) -> SessionState:
    """Read a session's state for `world`, which it must have been saved from.

    Raises `InputError` for a file that is missing or damaged, of another world, of another type of
    numbers, or of a newer version.
    """
    header, tensors = _read(path)
    _check_world(path, header, world)
    if _digest(tensors) != header.digest:
        raise InputError(f"{path}: damaged: its contents have changed since it was saved")
    reader = _Reader(path, world, tensors)
    dit, spec = world.networks.dit, world.spec
    caches = dit.empty_caches(1, spec.tokens_per_frame)
    for name, empty in _cache_tensors(caches):
        empty.copy_(reader.take(name, tuple(empty.shape)))
    noise = NoiseSource(header.seed, (spec.vae.latent_channels, *spec.latent_size), None)
    noise.generator.set_state(reader.take("noise.generator"))
    noise.run = reader.take_optional("noise.run")
    mouse = reader.take_optional("actions.mouse")
    state = SessionState(
        caches=caches,
        context=[
            KeyValues(reader.on_device(f"context.{i}.k"), reader.on_device(f"context.{i}.v"))
            for i in range(spec.dit.num_layers)
        ],
        decoder=reader.features("decoder", header.decoder_first),
        image=ImageLatents(
            reader.on_device("image.pixels"),
            reader.features("encoder", header.encoder_first),
            reader.optional_on_device("image.latents"),
        ),
        actions=ActionHistory(
            reader.take("actions.keyboard").numpy(),
            None if mouse is None else mouse.numpy(),
            header.first_action,
        ),
        noise=noise,
        config=describe(world, header.seed, header.num_latent_frames),
        condition=reader.optional_on_device("condition"),
        start=header.start,
        block=header.block,
        prefilled=header.prefilled,
        shift=header.shift,
    )
    reader.check_all_taken()
    return state


def _tensors(state: SessionState) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and tensors of a state."""
    yield from _cache_tensors(state.caches)
    for index, pair in enumerate(state.context):
        yield f"context.{index}.k", pair.k
        yield f"context.{index}.v", pair.v
    for part, memory in (("decoder", state.decoder), ("encoder", state.image.memory)):
        for name, frames in memory.frames.items():
            yield f"{part}.{name}", frames
    yield "actions.keyboard", torch.from_numpy(state.actions.keyboard.copy())
    yield "noise.generator", state.noise.generator.get_state()
    yield "image.pixels", state.image.pixels
    optional = {
        "image.latents": state.image.latents,
        "noise.run": state.noise.run,
        "condition": state.condition,
    }
    yield from ((name, tensor) for name, tensor in optional.items() if tensor is not None)
    if state.actions.mouse is not None:
        yield "actions.mouse", torch.from_numpy(state.actions.mouse.copy())


def _cache_tensors(caches: list[Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and tensors of the ring caches of all layers."""
    for index, layer in enumerate(caches):
        for kind in ("self_attention", "mouse", "keyboard"):
            ring = getattr(layer, kind)
            if ring is not None:
                yield f"cache.{index}.{kind}.k", ring.k
                yield f"cache.{index}.{kind}.v", ring.v


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _Read(NamedTuple):
    header: SessionHeader
    tensors: Tensors


def _read(path: Path) -> _Read:
    """Read a session file; raise `InputError` unless it is one of a known version."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a session that was saved")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            if text is None:
                raise InputError(f"{path}: not a saved session")
            version = msgspec.json.decode(text).get("version")
            if version != FORMAT_VERSION:
                raise InputError(
                    f"{path}: of version {version}; this glassworld reads {FORMAT_VERSION}"
                )
            header = msgspec.json.decode(text, type=SessionHeader)
            return _Read(header, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, msgspec.DecodeError, AttributeError) as error:
        raise InputError(f"{path}: not a readable session ({error})") from None


def _check_world(path: Path, header: SessionHeader, world: World) -> None:
    """Raise `InputError` unless the session was saved from this world, in this type."""
    if header.fingerprint != fingerprint(world):
        raise InputError(
            f"{path}: saved from another world, {header.world!r} ({header.fingerprint}); load that "
            f"one: this is {world.name!r} ({fingerprint(world)})"
        )
    if header.dtype != str(world.dtype):
        dtype = header.dtype.removeprefix("torch.")
        raise InputError(f"{path}: saved in {dtype}; load the world with dtype {dtype}")


class _Reader:
    """Takes each tensor of a file once."""

    def __init__(self, path: Path, world: World, tensors: Tensors) -> None:
        self._path, self._world, self._tensors = path, world, dict(tensors)

    def take(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        tensor = self.take_optional(name)
        if tensor is None or (shape is not None and tuple(tensor.shape) != shape):
            raise InputError(f"{self._path}: damaged: {name} is missing or of another shape")
        return tensor

    def take_optional(self, name: str) -> Tensor | None:
        return self._tensors.pop(name, None)

    def on_device(self, name: str) -> Tensor:
        return self.take(name).to(self._world.device)

    def optional_on_device(self, name: str) -> Tensor | None:
        tensor = self.take_optional(name)
        return None if tensor is None else tensor.to(self._world.device)

    def features(self, part: str, first: bool) -> FeatureCache:
        """Return the memory of the encoder or the decoder, whose layers must have its names."""
        network = getattr(self._world.networks, part)
        layers = {getattr(module, "name", "") for module in network.modules()}
        names = [name for name in self._tensors if name.startswith(f"{part}.")]
        frames = {name.removeprefix(f"{part}."): self.on_device(name) for name in names}
        if unknown := sorted(frames.keys() - layers):
            raise InputError(
                f"{self._path}: saved with another {part}, which has a layer {unknown[0]!r}; load "
                "the world as it was, with or without the tiny decoder"
            )
        return FeatureCache(first, frames)

    def check_all_taken(self) -> None:
        if self._tensors:
            raise InputError(f"{self._path}: damaged: unknown tensor {min(self._tensors)!r}")
