"""`load_world`: from files, from the package or from random numbers to a world."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from glassworld.engine.acceleration.compile import COMPILE_MODES, compile_decoder
from glassworld.engine.acceleration.parts import accelerate_networks, check_parts
from glassworld.engine.checkpoint.config import (
    fit_advice,
    vae_spec,
    vision_spec,
    world_spec,
)
from glassworld.engine.checkpoint.dequantize import dequantized
from glassworld.engine.checkpoint.locate import LocatedWorld, locate_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.checkpoint.tensor_files import Tensors, read_tensors, shapes
from glassworld.engine.checkpoint.tensor_names import (
    channels_last,
    dit_from_released,
    load_strictly,
    vae_from_released,
    vision_from_released,
)
from glassworld.engine.checkpoint.third_party_names import (
    dit_names,
    standard_names,
    tower_tensors,
    vae_names,
    vision_names,
)
from glassworld.engine.checkpoint.tiny_decoder import load_tiny_decoder, tiny_name
from glassworld.engine.networks import Networks
from glassworld.engine.runtime.device import Precision, device_called, pick_device
from glassworld.engine.runtime.memory import check_memory, enlarge_device_memory, keep_freed_memory
from glassworld.engine.world import World
from glassworld.errors import CheckpointError, InputError
from glassworld.models.transformer.dit import DiT
from glassworld.models.vae.causal_conv import apply_conv_policy
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.models.vision import VisionTower
from glassworld.specs import WorldSpec


def load_world(
    world: str | Path | None = None,
    *,
    variant: str | None = None,
    config_path: str | Path | None = None,
    checkpoint_path: str | Path | None = None,
    pretrained_model_path: str | Path | None = None,
    random_weights: bool = False,
    device: str = "auto",
    dtype: str | None = None,
    vae_compile_mode: str = "auto",
    accelerate: Collection[str] = (),
    tiny_decoder: str | Path | None = None,
) -> World:
    """Return a world ready to play; without arguments the default one, "drive".

    `world`: an embedded world's name, the folder of a world as `World.save` or a training writes
    it, or a hub repository such as "Skywork/Matrix-Game-2.0". `variant`: which released model a
    folder or repository without an inference YAML holds.

    The reference's paths name a world too. `config_path`: an inference YAML.
    `pretrained_model_path`: the folder of the release, or its name on the hub, with the VAE and
    the image tower. `checkpoint_path`: the transformer, found in that folder by the mode's
    released name if not given.

    `random_weights`: untrained weights of the configured size (the `universal` release's by
    default), for measuring speed only. `device`: "auto" takes a GPU if there is one. `dtype`:
    "float32", "mixed" (decoding in bfloat16) or "bfloat16", by default what suits the device.
    `vae_compile_mode`: "auto" uses a compiled decoder stored earlier, "force" compiles one now,
    "none" does neither. `accelerate`: parts of `engine.acceleration.parts`. `tiny_decoder`: decode
    by the weights in this file, faster and less exactly. The world's `note` is what a person
    should know about it. Raises `InputError`.
    """
    check_parts(accelerate)  # while it is what was given: a string is no list of parts
    return load_from(
        LoadOptions(
            world=world,
            variant=variant,
            config_path=config_path,
            checkpoint_path=checkpoint_path,
            pretrained_model_path=pretrained_model_path,
            random_weights=random_weights,
            device=device,
            dtype=dtype,
            vae_compile_mode=vae_compile_mode,
            accelerate=tuple(accelerate),
            tiny_decoder=tiny_decoder,
        )
    )


def check_choices(options: LoadOptions) -> tuple[torch.device, Precision]:
    """Return the device and the precision; raises `InputError` for any choice there is not."""
    check_names(options)
    device = pick_device(options.device)
    return device, Precision.of(device, options.dtype)


def check_names(options: LoadOptions) -> None:
    """Raise `InputError` for what no machine offers; another one may have the device."""
    check_parts(options.accelerate)
    if options.vae_compile_mode not in COMPILE_MODES:
        raise InputError(
            f"vae_compile_mode {options.vae_compile_mode!r}: must be one of "
            f"{', '.join(COMPILE_MODES)}"
        )
    if options.tiny_decoder is not None and not Path(options.tiny_decoder).is_file():
        raise CheckpointError(
            f"{options.tiny_decoder}: no such checkpoint file; name the tiny decoder's weights"
        )
    device = device_called("cpu" if options.device == "auto" else options.device)
    Precision.of(device, options.dtype)


def load_from(options: LoadOptions, located: LocatedWorld | None = None) -> World:
    """Return the world that `options` name; `located`: the same, found earlier."""
    device, precision = check_choices(options)
    located = located or locate_world(options)
    keep_freed_memory()
    if device.type == "cuda":
        enlarge_device_memory()
    if options.random_weights:
        spec = _untrained_spec(located)
        networks = _untrained(spec, device, precision)
    else:
        spec, networks = _trained(located, device, precision)
    for network in (networks.encoder, networks.decoder):
        apply_conv_policy(network)
    networks.decoder.to(precision.decoding)
    name, note = located.name, located.notice
    if options.tiny_decoder is not None:
        path = Path(options.tiny_decoder)
        decoder = load_tiny_decoder(path, spec.vae, device, precision.decoding)
        networks, name = replace(networks, decoder=decoder), tiny_name(name)
    plan = accelerate_networks(spec, networks, options.accelerate)  # chooses what is compiled next
    if isinstance(networks.decoder, VAEDecoder):
        compiled = compile_decoder(networks.decoder, spec, options.vae_compile_mode)
        note = "\n".join(filter(None, (note, compiled)))
    return World(spec, networks, name, note, plan, located.notice, located.source)


class _Part(NamedTuple):
    """The tensors of one file, as it names them and by our names or the release's."""

    file: Path
    stored: Tensors
    tensors: Tensors


def _read_transformer(file: Path) -> _Part:
    stored = read_tensors(file)
    released = dit_names(dequantized(standard_names(stored, file), file))
    return _Part(file, stored, dit_from_released(released, file))


def _read_vae(file: Path) -> _Part:
    """Read a VAE; its tensors by released names, which tell its sizes."""
    stored = read_tensors(file)
    return _Part(file, stored, vae_names(dequantized(standard_names(stored, file), file)))


def _read_vision(file: Path) -> _Part:
    """Read an image tower; the text tower in its file is left alone."""
    stored = tower_tensors(standard_names(read_tensors(file), file))
    tower = vision_names(dequantized(stored, file), file)
    return _Part(file, stored, vision_from_released(tower))


def _trained(
    located: LocatedWorld, device: torch.device, precision: Precision
) -> tuple[WorldSpec, Networks]:
    files = located.files
    assert files is not None
    assert files.transformer is not None
    vae, vision = _read_vae(files.vae), _read_vision(files.vision)
    spec = _spec(located, vae, vision)
    dit = _read_transformer(files.transformer)
    networks = _on_meta(spec)
    check_memory(spec, networks, device, precision)
    to_dit = partial(torch.Tensor.to, device=device, dtype=precision.dit)
    load_strictly(
        networks.dit, dit.tensors, dit.file, to_dit, lambda: fit_advice(shapes(dit.tensors)),
        dit.stored,
    )  # fmt: skip
    load_strictly(networks.vision, vision.tensors, vision.file, to_dit, stored=vision.stored)
    _load_vae(networks, vae, partial(channels_last, device=device, dtype=precision.vae))
    return spec, _frozen(networks)


def _load_vae(networks: Networks, vae: _Part, convert: Callable[[Tensor], Tensor]) -> None:
    """Load the encoder and the decoder, each of its half of a VAE's tensors."""
    ours = vae_from_released(vae.tensors)
    halves: tuple[tuple[nn.Module, tuple[str, ...]], ...] = (
        (networks.encoder, ("encoder.", "conv1.")),
        (networks.decoder, ("decoder.", "conv2.")),
    )
    known = tuple(prefix for _, prefixes in halves for prefix in prefixes)
    for network, prefixes in halves:
        half = {n: t for n, t in ours.items() if n.startswith(prefixes) or not n.startswith(known)}
        load_strictly(network, half, vae.file, convert, stored=vae.stored)


def _spec(located: LocatedWorld, vae: _Part, vision: _Part) -> WorldSpec:
    """Return a world's spec, the sizes of its VAE and image tower from their tensors."""
    return world_spec(
        located.config,
        vae_spec(vae.tensors, vae.file),
        vision_spec(vision.tensors, vision.file),
    )


def _untrained_spec(located: LocatedWorld) -> WorldSpec:
    """Return a configured world's sizes; the VAE's and tower's from its files, or as released."""
    if located.files is None:
        return located.spec
    return _spec(located, _read_vae(located.files.vae), _read_vision(located.files.vision))


def _untrained(spec: WorldSpec, device: torch.device, precision: Precision) -> Networks:
    networks = _on_meta(spec)
    check_memory(spec, networks, device, precision)
    parts = (
        (networks.dit, precision.dit),
        (networks.vision, precision.dit),
        (networks.encoder, precision.vae),
        (networks.decoder, precision.vae),
    )
    generator = torch.Generator(device).manual_seed(0)
    for network, dtype in parts:
        network.to(dtype).to_empty(device=device)
        for name, weight in network.named_parameters():
            # Small enough for thirty layers to stay finite, scaled like a trained projection.
            fan_in = weight[0].numel() if weight.dim() > 1 else 1
            scale = 0.5 * fan_in**-0.5 if weight.dim() > 1 else 0.0
            with torch.no_grad():
                weight.normal_(0, 1, generator=generator).mul_(scale)
                if weight.dim() == 1 and name.endswith(("weight", "gamma")):
                    weight.fill_(1)
    for network in (networks.encoder, networks.decoder):
        for weight in network.parameters():
            weight.data = channels_last(weight.data, device, precision.vae)
    return _frozen(networks)


def _on_meta(spec: WorldSpec) -> Networks:
    """Return the networks without storage."""
    with torch.device("meta"):
        return Networks(
            DiT(spec.dit), VAEEncoder(spec.vae), VAEDecoder(spec.vae), VisionTower(spec.vision)
        )


def _frozen(networks: Networks) -> Networks:
    for network in (networks.dit, networks.encoder, networks.decoder, networks.vision):
        network.eval().requires_grad_(False)
    return networks
