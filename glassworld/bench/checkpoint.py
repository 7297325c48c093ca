"""A world's weights as files of the released layout, to be started from as a person would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import Tensor

from glassworld.engine.checkpoint.locate import TRANSFORMER_FILE
from glassworld.engine.checkpoint.save import inference_config, model_config, vision_to_released
from glassworld.engine.checkpoint.tensor_names import dit_to_released, vae_to_released
from glassworld.engine.world import World


def write_checkpoint(world: World, folder: Path) -> dict[str, Any]:
    """Write weights and configuration into `folder`; what `load_world` takes to read them."""
    networks = world.networks
    vae = {**networks.encoder.state_dict(), **networks.decoder.state_dict()}
    _write(folder / TRANSFORMER_FILE, dit_to_released(networks.dit.state_dict()))
    _write(folder / "vae.safetensors", vae_to_released(vae))
    _write(folder / "vision.safetensors", vision_to_released(networks.vision))
    (folder / "config.json").write_text(json.dumps(model_config(world.spec.dit)))
    configuration = folder / "inference.yaml"
    configuration.write_text(yaml.safe_dump(inference_config(world.spec, "config.json")))
    return {"config_path": str(configuration), "pretrained_model_path": str(folder)}


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
