"""A session as a file: exact, so that it goes on with the same bits, or light.

The file is a safetensors file: the state's tensors, and a header of JSON values under
`session` in its metadata. Reading one runs no code. A file holds no weights. It names its world by
a fingerprint of the world's spec and of some of its weights, and is refused by any other world.

A light file holds no caches: only the start image, the latents and the actions of the last blocks
and the state of the noise. `light_session` rebuilds the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glassworld.engine.conditioning import ActionHistory, ImageLatents
from glassworld.engine.media.images import as_bytes
from glassworld.engine.run_config import describe
from glassworld.engine.sampling import NoiseSource
from glassworld.engine.state import SessionState, recent_frames, recent_rows
from glassworld.errors import InputError
from glassworld.files import replacing, writable_file
from glassworld.models.transformer.kv_cache import KeyValues
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.specs import WorldSpec

if TYPE_CHECKING:
    from glassworld.engine.world import World

FORMAT_VERSION = 2
READABLE = (1, 2)
"""Files of version 1 hold no recent latents."""

METADATA_KEY = "session"

Tensors = dict[str, Tensor]


class SessionHeader(msgspec.Struct, forbid_unknown_fields=True):
    """What a session file says beside its tensors.

    `seed` and `num_latent_frames` are those the session was started with; the counters are those of
    `SessionState`. `digest` is that of the tensors. `run_noise`: whether the noise of all frames
    was drawn first and is not used up (of a light file, which draws it again).
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
    light: bool = False
    run_noise: bool = False

    @property
    def frames_left(self) -> int:
        """Latent frames that are left of the session's run; 0 where it has no end."""
        return max(0, (self.num_latent_frames or 0) - (self.start - self.prefilled))


def fingerprint(world: World) -> str:
    """Return a hash of a world's spec and of weights that training changes: 16 hex digits."""
    digest = hashlib.sha256(json.dumps(asdict(world.spec), sort_keys=True, default=str).encode())
    dit, vision = world.networks.dit, world.networks.vision
    for weight in (dit.patch_embedding.weight, dit.head.modulation, vision.pre_norm.weight):
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def save_session(path: Path, world: World, state: SessionState, light: bool = False) -> None:
    """Write a session's state to `path`, whole or not at all.

    `light`: without the caches. Raises `InputError` if the file cannot be written, or not light.
    """
    writable_file(path)
    if light:
        check_light(world.spec)
        _check_recent(world, state)
    state.settle()
    named = _light_tensors(world, state) if light else _tensors(state)
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in named}
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
        shift=0 if light else state.shift,
        first_action=_recent_actions(world, state).first if light else state.actions.first,
        decoder_first=state.decoder.first,
        encoder_first=state.image.memory.first,
        digest=_digest(tensors),
        light=light,
        run_noise=state.noise.run is not None,
    )
    with replacing(path) as partial:
        save_file(tensors, partial, {METADATA_KEY: msgspec.json.encode(header).decode()})


def read_header(path: Path) -> SessionHeader:
    """Return the header of a session file; raise `InputError` unless it is one that can be read."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a session that was saved")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
        if text is None:
            raise InputError(f"{path}: not a saved session; name a file of Session.save")
        version = msgspec.json.decode(text).get("version")
        if version not in READABLE:
            raise InputError(
                f"{path}: of version {version}; this glassworld reads 1 to {FORMAT_VERSION}; "
                "install a newer one"
            )
        return msgspec.json.decode(text, type=SessionHeader)
    except (SafetensorError, msgspec.DecodeError, AttributeError) as error:
        raise InputError(f"{path}: not a readable session ({error}); use another copy") from None


@torch.inference_mode()
def exact_state(file: SessionReader) -> SessionState:
    """Return the state in an exact file; raise `InputError` if it is damaged."""
    header, world = file.header, file.world
    dit, spec = world.networks.dit, world.spec
    caches = dit.empty_caches(1, spec.tokens_per_frame)
    for name, empty in _cache_tensors(caches):
        empty.copy_(file.take(name, tuple(empty.shape)))
    noise = NoiseSource(header.seed, (spec.vae.latent_channels, *spec.latent_size), None)
    noise.generator.set_state(file.take("noise.generator"))
    noise.run = file.take_optional("noise.run")
    state = SessionState(
        caches=caches,
        context=[
            KeyValues(file.on_device(f"context.{i}.k"), file.on_device(f"context.{i}.v"))
            for i in range(spec.dit.num_layers)
        ],
        decoder=file.features("decoder", header.decoder_first),
        image=ImageLatents(
            file.on_device("image.pixels"),
            file.features("encoder", header.encoder_first),
            file.optional_on_device("image.latents"),
        ),
        actions=file.actions(),
        noise=noise,
        config=describe(world, header.seed, header.num_latent_frames),
        condition=file.optional_on_device("condition"),
        start=header.start,
        block=header.block,
        prefilled=header.prefilled,
        shift=header.shift,
        recent=file.optional_on_device("recent.latents"),
    )
    file.check_all_taken()
    return state


def check_light(spec: WorldSpec) -> None:
    """Raise `InputError` if the sessions of a world cannot be saved light."""
    if spec.dit.sink:
        raise InputError(
            "light: this world has attention sinks, frames that no window holds; "
            "save its sessions whole, without light"
        )


def _check_recent(world: World, state: SessionState) -> None:
    """Raise `InputError` if a session lacks recent latents to rebuild its caches from."""
    held = 0 if state.recent is None else state.recent.shape[2]
    needed = min(state.start, recent_frames(world.spec))
    if held < needed:
        raise InputError(
            f"light: the session was resumed from an older file and holds {held} of {needed} "
            "recent latents; save it whole, without light, or generate more blocks first"
        )


def _recent_actions(world: World, state: SessionState) -> ActionHistory:
    """Return the actions that the recent latents and the blocks to come see."""
    next_row = world.spec.pixel_frames(state.start)
    return state.actions.between(next_row - recent_rows(world.spec))


def _light_tensors(world: World, state: SessionState) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and tensors of a light file."""
    pixels = state.image.pixels[0, :, 0].float().cpu().numpy()
    yield "image.rgb", torch.from_numpy(as_bytes(pixels))
    if state.recent is not None:
        yield "recent.latents", state.recent
    yield from _action_tensors(_recent_actions(world, state))
    yield "noise.generator", state.noise.generator.get_state()


def _action_tensors(actions: ActionHistory) -> Iterator[tuple[str, Tensor]]:
    yield "actions.keyboard", torch.from_numpy(actions.keyboard.copy())
    if actions.mouse is not None:
        yield "actions.mouse", torch.from_numpy(actions.mouse.copy())


def _tensors(state: SessionState) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and tensors of a state."""
    yield from _cache_tensors(state.caches)
    for index, pair in enumerate(state.context):
        yield f"context.{index}.k", pair.k
        yield f"context.{index}.v", pair.v
    for part, memory in (("decoder", state.decoder), ("encoder", state.image.memory)):
        for name, frames in memory.frames.items():
            yield f"{part}.{name}", frames
    yield from _action_tensors(state.actions)
    yield "noise.generator", state.noise.generator.get_state()
    yield "image.pixels", state.image.pixels
    optional = {
        "image.latents": state.image.latents,
        "noise.run": state.noise.run,
        "condition": state.condition,
        "recent.latents": state.recent,
    }
    yield from ((name, tensor) for name, tensor in optional.items() if tensor is not None)


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


class SessionReader:
    """The contents of a session file for `world`, which it must have been saved from.

    Each tensor is taken once. Raises `InputError` for a file that is missing or damaged, of another
    world, of another type of numbers, or of a newer version.
    """

    def __init__(self, path: Path, world: World) -> None:
        self.header, self.world, self._path = read_header(path), world, path
        _check_world(path, self.header, world)
        with safe_open(path, framework="pt") as file:
            self._tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(self._tensors) != self.header.digest:
            raise InputError(
                f"{path}: damaged: its contents have changed since it was saved; use another copy"
            )

    def take(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """Return a tensor, of `shape` if that is given."""
        tensor = self.take_optional(name)
        if tensor is None or (shape is not None and tuple(tensor.shape) != shape):
            raise InputError(
                f"{self._path}: damaged: {name} is missing or of another shape; use another copy"
            )
        return tensor

    def take_optional(self, name: str) -> Tensor | None:
        """Return a tensor, or None where the file has none of the name."""
        return self._tensors.pop(name, None)

    def on_device(self, name: str) -> Tensor:
        """Return a tensor on the world's device."""
        return self.take(name).to(self.world.device)

    def optional_on_device(self, name: str) -> Tensor | None:
        """Return a tensor on the world's device, or None where the file has none of the name."""
        tensor = self.take_optional(name)
        return None if tensor is None else tensor.to(self.world.device)

    def actions(self) -> ActionHistory:
        """Return the actions."""
        mouse = self.take_optional("actions.mouse")
        return ActionHistory(
            self.take("actions.keyboard").numpy(),
            None if mouse is None else mouse.numpy(),
            self.header.first_action,
        )

    def features(self, part: str, first: bool) -> FeatureCache:
        """Return the memory of the encoder or the decoder, whose layers must have its names."""
        network = getattr(self.world.networks, part)
        layers = {getattr(module, "name", "") for module in network.modules()}
        names = [name for name in self._tensors if name.startswith(f"{part}.")]
        frames = {name.removeprefix(f"{part}."): self.on_device(name) for name in names}
        own = next(network.parameters()).dtype
        for dtype in {tensor.dtype for tensor in frames.values()} - {own}:
            saved, now = (str(each).removeprefix("torch.") for each in (dtype, own))
            raise InputError(
                f"{self._path}: saved with a {part} in {saved}, which is in {now} here; load the "
                "world with the dtype and on the kind of device it had"
            )
        if unknown := sorted(frames.keys() - layers):
            raise InputError(
                f"{self._path}: saved with another {part}, which has a layer {unknown[0]!r}; load "
                "the world as it was, with or without the tiny decoder"
            )
        return FeatureCache(first, frames)

    def check_all_taken(self) -> None:
        """Raise `InputError` if the file holds a tensor that nobody took."""
        if self._tensors:
            raise InputError(
                f"{self._path}: damaged: unknown tensor {min(self._tensors)!r}; use another copy"
            )
