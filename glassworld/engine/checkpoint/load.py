"""`load_world`: from files, from the package or from random numbers to a world."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from glassworld.engine.acceleration.compile import compile_decoder
from glassworld.engine.acceleration.parts import accelerate as make_faster
from glassworld.engine.acceleration.parts import check_parts
from glassworld.engine.acceleration.tiny_decoder import with_tiny_decoder
from glassworld.engine.checkpoint.config import (
    fitting_variant,
    vae_spec,
    vision_spec,
    world_spec,
)
from glassworld.engine.checkpoint.locate import LocatedWorld, locate_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.checkpoint.tensor_names import (
    channels_last,
    dit_from_released,
    load_strictly,
    read_tensors,
    vae_from_released,
    vision_from_released,
)
from glassworld.engine.runtime.device import Precision, pick_device
from glassworld.engine.runtime.memory import check_memory, enlarge_device_memory, keep_freed_memory
from glassworld.engine.world import Networks, World
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
    """Return a world ready to play; without arguments the embedded one, "maze".

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
    check_parts(accelerate)
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


def load_from(options: LoadOptions, located: LocatedWorld | None = None) -> World:
    """Return the world that `options` name; `located`: the same, found earlier."""
    check_parts(options.accelerate)
    target = pick_device(options.device)
    precision = Precision.of(target, options.dtype)
    located = located or locate_world(options)
    keep_freed_memory()
    if target.type == "cuda":
        enlarge_device_memory()
    if options.random_weights:
        spec = _untrained_spec(located)
        networks = _untrained(spec, target, precision)
    else:
        spec, networks = _trained(located, target, precision)
    for network in (networks.encoder, networks.decoder):
        apply_conv_policy(network)
    world = World(spec, networks, located.name, located.notice, precision.decoding)
    if options.tiny_decoder is not None:
        world = with_tiny_decoder(world, Path(options.tiny_decoder))
    make_faster(world, options.accelerate)  # which may choose what is compiled next
    if options.tiny_decoder is None:
        assert isinstance(world.pipeline.decoder, VAEDecoder)
        compiled = compile_decoder(world.pipeline.decoder, spec, options.vae_compile_mode)
        world.note = "\n".join(filter(None, (located.notice, compiled)))
    return world


def _trained(
    located: LocatedWorld, device: torch.device, precision: Precision
) -> tuple[WorldSpec, Networks]:
    files, config = located.files, located.config
    assert files is not None
    assert files.transformer is not None
    checkpoint, vae_file, vision_file = files.transformer, files.vae, files.vision
    released_vae = read_tensors(vae_file)
    vision = vision_from_released(read_tensors(vision_file))
    spec = world_spec(config, vae_spec(released_vae, vae_file), vision_spec(vision, vision_file))
    dit = dit_from_released(read_tensors(checkpoint), checkpoint)
    networks = _on_meta(spec)
    check_memory(spec, networks, device, precision)

    def to_dit(tensor: Tensor) -> Tensor:
        return tensor.to(device, precision.dit)

    load_strictly(networks.dit, dit, checkpoint, to_dit, lambda: fitting_variant(dit))
    load_strictly(networks.vision, vision, vision_file, to_dit)
    vae = vae_from_released(released_vae)
    halves: tuple[tuple[nn.Module, tuple[str, ...]], ...] = (
        (networks.encoder, ("encoder.", "conv1.")),
        (networks.decoder, ("decoder.", "conv2.")),
    )
    known = tuple(prefix for _, prefixes in halves for prefix in prefixes)
    to_vae = partial(channels_last, device=device, dtype=precision.vae)
    for network, prefixes in halves:
        part = {n: t for n, t in vae.items() if n.startswith(prefixes) or not n.startswith(known)}
        load_strictly(network, part, vae_file, to_vae)
    return spec, _frozen(networks)


def _untrained_spec(located: LocatedWorld) -> WorldSpec:
    """Return a configured world's sizes; the VAE's and tower's from its files, or as released."""
    files = located.files
    if files is None:
        return located.spec
    vision = vision_from_released(read_tensors(files.vision))
    return world_spec(
        located.config,
        vae_spec(read_tensors(files.vae), files.vae),
        vision_spec(vision, files.vision),
    )


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
    """The networks without storage."""
    with torch.device("meta"):
        return Networks(
            DiT(spec.dit), VAEEncoder(spec.vae), VAEDecoder(spec.vae), VisionTower(spec.vision)
        )


def _frozen(networks: Networks) -> Networks:
    for network in (networks.dit, networks.encoder, networks.decoder, networks.vision):
        network.eval().requires_grad_(False)
    return networks
