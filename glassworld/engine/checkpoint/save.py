"""Write a world as a folder in the released layout, which `load_world` reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from glassworld.engine.checkpoint.config import (
    InferenceConfig,
    vae_spec,
    vision_spec,
    world_spec,
)
from glassworld.engine.checkpoint.locate import (
    CONFIG_FILE,
    INFERENCE_FILE,
    TRANSFORMER_FILE,
    UNFINISHED_FILE,
    VAE_FILE,
    VISION_FILE,
)
from glassworld.engine.checkpoint.tensor_files import Tensors
from glassworld.engine.checkpoint.tensor_names import (
    VISION_PREFIX,
    dit_to_released,
    first_few,
    vae_to_released,
    vision_from_released,
)
from glassworld.engine.networks import Networks
from glassworld.errors import InputError, SpecError
from glassworld.files import (
    draft_of,
    naming_full_disk,
    usual_permissions,
    writable_folder,
    write_file,
)
from glassworld.models.transformer.dit import DiT
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.models.vision import VisionTower
from glassworld.specs import TIME_FACTOR, DiTSpec, WorldSpec


def save_world(
    folder: Path,
    spec: WorldSpec,
    networks: Networks,
    notice: str = "",
    source: str = "",
    dtype: torch.dtype | None = None,
) -> None:
    """Write a world's weights and settings into `folder`, whole or not at all.

    If the process ends while they replace those of another world, the folder is refused as a world
    until one is saved there again.

    `notice`: what the world says about itself when it is loaded. `source`: what it learned from,
    with which `glassworld eval` compares it. `dtype`: what to write the weights in, their own by
    default. Raises `InputError` for weights that do not stand for the world, such as quantized
    ones, for a spec that the layout cannot hold, and for a folder that holds anything but a saved
    world.
    """
    _check_networks(spec, networks)
    tensors = {
        TRANSFORMER_FILE: dit_to_released(networks.dit.state_dict()),
        VAE_FILE: vae_to_released(
            {**networks.encoder.state_dict(), **networks.decoder.state_dict()}
        ),
        VISION_FILE: vision_to_released(networks.vision),
    }
    settings = inference_config(spec, Path(CONFIG_FILE).parent.name)
    if notice:
        settings["notice"] = notice
    if source:
        settings["source"] = source
    model = model_config(spec.dit)
    _check_settings(spec, InferenceConfig(Path(INFERENCE_FILE), settings, model), tensors)
    with _whole_folder(folder) as draft:
        for name, part in tensors.items():
            weights = {
                key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in part.items()
            }
            with usual_permissions(draft / name):
                save_file(weights, draft / name)
        (draft / CONFIG_FILE).parent.mkdir()
        (draft / CONFIG_FILE).write_text(json.dumps(model, indent=1) + "\n", encoding="utf-8")
        (draft / INFERENCE_FILE).write_text(
            yaml.safe_dump(settings, sort_keys=False), encoding="utf-8"
        )


def _check_networks(spec: WorldSpec, networks: Networks) -> None:
    """Raise `InputError` unless the weights are those that a world is loaded with."""
    if not isinstance(networks.decoder, VAEDecoder):
        raise InputError("save: the world decodes by a tiny decoder; load it without and save that")
    with torch.device("meta"):
        plain = DiT(spec.dit).state_dict()
    own = networks.dit.state_dict()
    changed = sorted(
        name
        for name in plain.keys() | own.keys()
        if name not in plain
        or name not in own
        or own[name].shape != plain[name].shape
        or own[name].itemsize < 2
    )
    if changed:
        raise InputError(
            f"save: {len(changed)} weights are not the world's own, "
            f"{first_few(changed)}; load it without int8, float8 or kernels and save that"
        )


def _check_settings(spec: WorldSpec, config: InferenceConfig, tensors: dict[str, Tensors]) -> None:
    """Raise `InputError` unless the settings and tensors are read as the same spec."""
    vae, vision = Path(VAE_FILE), Path(VISION_FILE)
    read = world_spec(
        config,
        vae_spec(tensors[VAE_FILE], vae),
        vision_spec(vision_from_released(tensors[VISION_FILE]), vision),
    )
    if read != spec:
        fields = [name for name in vars(spec) if getattr(read, name, None) != getattr(spec, name)]
        raise SpecError(f"save: the layout cannot hold this world's {', '.join(fields)}")


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder whose files come to be in `folder` when all went well."""
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder")
    saved = any((folder / name).is_file() for name in (TRANSFORMER_FILE, UNFINISHED_FILE))
    if folder.is_dir() and any(folder.iterdir()) and not saved:
        raise InputError(f"{folder}: holds other files and no saved world; name a new folder")
    writable_folder(folder.parent)
    draft = draft_of(folder)
    draft.mkdir()
    try:
        with naming_full_disk(folder):
            yield draft
        if not folder.exists():
            draft.rename(folder)
            return
        write_file(folder / UNFINISHED_FILE, b"The files here may be of two worlds.\n")
        for path in sorted(file for file in draft.rglob("*") if file.is_file()):
            target = folder / path.relative_to(draft)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
        (folder / UNFINISHED_FILE).unlink()
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def vision_to_released(vision: VisionTower) -> Tensors:
    """Return the image tower's tensors; a stub stands for the last layer, which is never run."""
    tensors: dict[str, Tensor] = {
        VISION_PREFIX + name: part for name, part in vision.state_dict().items()
    }
    last = f"{VISION_PREFIX}transformer.{vision.spec.layers}.norm1.weight"
    return {**tensors, last: torch.ones_like(vision.pre_norm.weight)}


def model_config(spec: DiTSpec) -> dict[str, object]:
    """Return the transformer's config.json, its keys as in the release."""
    action = spec.action
    head = action.keyboard_width // action.heads
    still = (head - action.rotary_dims) // 2
    return {
        "_class_name": "CausalWanModel",
        "action_config": {
            "blocks": list(action.layers),
            "enable_keyboard": True,
            "enable_mouse": bool(action.mouse_dim),
            "heads_num": action.heads,
            "hidden_size": action.embed_width,
            "img_hidden_size": spec.dim,
            "keyboard_dim_in": action.keyboard_dim,
            "keyboard_hidden_dim": action.keyboard_width,
            "mouse_dim_in": action.mouse_dim,
            "mouse_hidden_dim": action.mouse_width,
            "mouse_qk_dim_list": [action.rotary_dims, still, still],
            "patch_size": [1, spec.patch, spec.patch],
            "qk_norm": True,
            "qkv_bias": False,
            "rope_dim_list": [action.rotary_dims, still, still],
            "rope_theta": action.rope_theta,
            "vae_time_compression_ratio": TIME_FACTOR,
            "windows_size": action.window,
        },
        "dim": spec.dim,
        "eps": spec.eps,
        "ffn_dim": spec.ffn_dim,
        "freq_dim": spec.freq_dim,
        "in_dim": spec.in_dim,
        "local_attn_size": spec.window,
        "model_type": "i2v",
        "num_heads": spec.num_heads,
        "num_layers": spec.num_layers,
        "out_dim": spec.out_dim,
        "sink_size": spec.sink,
    }


def inference_config(spec: WorldSpec, model: str) -> dict[str, object]:
    """Return the inference YAML: keys as in the release, `fresh_noise` and `frame_rate`.

    `model`: where the transformer's config.json is, from the YAML's own folder.
    """
    return {
        "denoising_step_list": list(spec.denoising_steps),
        "warp_denoising_step": spec.warp_steps,
        "fresh_noise": spec.eta,
        "seed": spec.seed,
        "image_or_video_shape": [1, spec.vae.latent_channels, spec.dit.window, *spec.latent_size],
        "num_frame_per_block": spec.frames_per_block,
        "context_noise": spec.context_noise,
        "mode": spec.mode,
        "frame_rate": spec.frame_rate,
        "model_kwargs": {"timestep_shift": spec.timestep_shift, "model_config": model},
    }
