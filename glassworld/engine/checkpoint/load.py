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
    VARIANTS,
    InferenceConfig,
    fitting_variant,
    read_config,
    vae_spec,
    variant_spec,
    vision_spec,
    world_spec,
)
from glassworld.engine.checkpoint.hub import download, is_hub_name
from glassworld.engine.checkpoint.tensor_names import (
    channels_last,
    dit_from_released,
    load_strictly,
    read_tensors,
    vae_from_released,
    vision_from_released,
)
from glassworld.engine.runtime import (
    Precision,
    check_memory,
    enlarge_device_memory,
    keep_freed_memory,
    pick_device,
)
from glassworld.engine.world import Networks, World
from glassworld.errors import CheckpointError, InputError
from glassworld.models.transformer.dit import DiT
from glassworld.models.vae.causal_conv import prefer_conv3d
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.models.vision import VisionTower
from glassworld.specs import WorldSpec

WORLDS = Path(__file__).resolve().parents[2] / "worlds"
EMBEDDED = WORLDS / "maze"

VAE_FILES = ("Wan2.1_VAE.pth", "Wan2.1_VAE.safetensors", "vae.safetensors")
VISION_FILES = (
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors",
    "vision.safetensors",
)
TRANSFORMER_FILE = "transformer.safetensors"

LEAST_FOR_CONV3D = 96
"""From so many channels on `conv3d` is even or quicker on a GPU (docs/performance.md), and does
without a copy of three times its input."""

Given = str | Path | None


def load_world(
    config_path: Given = None,
    checkpoint_path: Given = None,
    pretrained_model_path: Given = None,
    device: str = "cpu",
    dtype: str | None = None,
    random_weights: bool = False,
    vae_compile_mode: str = "none",
    accelerate: Collection[str] = (),
    tiny_decoder: str | Path | None = None,
) -> World:
    """A world ready to play; without any path the embedded one.

    `config_path`: an inference YAML. `pretrained_model_path`: the folder of the release, or its
    name on the hub, with the VAE and the image tower. `checkpoint_path`: the transformer, found
    in that folder by the mode's released name if not given. `dtype`: "float32", "mixed" (decoding
    in bfloat16) or "bfloat16", by default what suits the device. `random_weights`: untrained
    weights of the configured size (the `universal` release's without a configuration), for
    measuring speed only. `accelerate`: parts of `engine.acceleration.parts`. `tiny_decoder`: decode
    by the weights in this file, quicker and less exactly; `vae_compile_mode` is for the own
    decoder alone. The world's `note` is what a person should be told about it. Raises
    `InputError`.
    """
    check_parts(accelerate)
    target = pick_device(device)
    keep_freed_memory()
    if target.type == "cuda":
        enlarge_device_memory()
    precision = Precision.of(target, dtype)
    if random_weights:
        spec = _untrained_spec(config_path, pretrained_model_path)
        networks = _untrained(spec, target, precision)
        name, notice = "random weights", ""
    else:
        config, folder, checkpoint = _locate(config_path, checkpoint_path, pretrained_model_path)
        spec, networks = _trained(config, folder, checkpoint, target, precision)
        name, notice = folder.name, str(config.inference.get("notice", ""))
    if target.type == "cuda":
        for network in (networks.encoder, networks.decoder):
            prefer_conv3d(network, LEAST_FOR_CONV3D)
    world = World(spec, networks, name, notice, precision.decoding)
    if tiny_decoder is not None:
        world = with_tiny_decoder(world, Path(tiny_decoder))
    make_faster(world, accelerate)  # which may choose what is compiled next
    if tiny_decoder is None:
        assert isinstance(world.pipeline.decoder, VAEDecoder)
        compiled = compile_decoder(world.pipeline.decoder, spec, vae_compile_mode)
        world.note = "\n".join(filter(None, (notice, compiled)))
    return world


def _locate(
    config_path: Given, checkpoint_path: Given, model_path: Given
) -> tuple[InferenceConfig, Path, Path]:
    """The configuration, the model folder and the transformer's file."""
    if config_path is None and checkpoint_path is None and model_path is None:
        if not (EMBEDDED / "inference.yaml").is_file():
            raise CheckpointError(f"{EMBEDDED}: the embedded world is not in this installation")
        return read_config(EMBEDDED / "inference.yaml"), EMBEDDED, EMBEDDED / TRANSFORMER_FILE
    if config_path is None:
        raise InputError("config_path: needed with a checkpoint; name the world's inference YAML")
    config = read_config(Path(config_path))
    if model_path is None:
        raise InputError(
            "pretrained_model_path: needed with a configuration; the folder (or hub name) that "
            "holds the VAE and the image tower"
        )
    mode = str(config.inference.get("mode"))
    released = VARIANTS[mode].file if mode in VARIANTS else None
    folder = Path(model_path)
    if not folder.is_dir():
        if not is_hub_name(str(model_path)):
            raise CheckpointError(f"{model_path}: no such model folder")
        needed = [VAE_FILES[0], VISION_FILES[0]]
        if checkpoint_path is None and released is not None:
            needed.append(released)
        folder = download(str(model_path), needed)
    if checkpoint_path is not None:
        return config, folder, Path(checkpoint_path)
    if released is None:
        raise CheckpointError(f"checkpoint_path: needed, mode {mode!r} has no released file")
    own = folder / TRANSFORMER_FILE
    return config, folder, own if own.is_file() else folder / released


def _find(folder: Path, names: tuple[str, ...], what: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: no {what} in it; {names[0]} is missing")


def _trained(
    config: InferenceConfig,
    folder: Path,
    checkpoint: Path,
    device: torch.device,
    precision: Precision,
) -> tuple[WorldSpec, Networks]:
    vae_file = _find(folder, VAE_FILES, "VAE")
    vision_file = _find(folder, VISION_FILES, "image tower")
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


def _untrained_spec(config_path: Given, model_path: Given) -> WorldSpec:
    """A configured world's sizes; the VAE's and tower's from the folder, or as released."""
    if config_path is None:
        return variant_spec("universal")
    config, released = read_config(Path(config_path)), variant_spec("universal")
    if model_path is None:
        return world_spec(config, released.vae, released.vision)
    folder = Path(model_path)
    vae_file = _find(folder, VAE_FILES, "VAE")
    vision_file = _find(folder, VISION_FILES, "image tower")
    vision = vision_from_released(read_tensors(vision_file))
    return world_spec(
        config, vae_spec(read_tensors(vae_file), vae_file), vision_spec(vision, vision_file)
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
