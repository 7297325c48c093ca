"""The tiny world in the layout of Diffusers, its names written from the table of that layout."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from glassworld.engine.checkpoint.tensor_names import (
    dit_to_released,
    vae_to_released,
)
from tests.support import tiny
from tests.support.release import model_config

DIT = {
    "patch_embedding.": "patch_embedding.",
    "time_embedding.0.": "condition_embedder.time_embedder.linear_1.",
    "time_embedding.2.": "condition_embedder.time_embedder.linear_2.",
    "time_projection.1.": "condition_embedder.time_proj.",
    "img_emb.proj.0.": "condition_embedder.image_embedder.norm1.",
    "img_emb.proj.1.": "condition_embedder.image_embedder.ff.net.0.proj.",
    "img_emb.proj.3.": "condition_embedder.image_embedder.ff.net.2.",
    "img_emb.proj.4.": "condition_embedder.image_embedder.norm2.",
    "head.head.": "proj_out.",
    "head.modulation": "scale_shift_table",
}
BLOCK = {
    "self_attn.norm_": "attn1.norm_",
    "cross_attn.norm_": "attn2.norm_",
    "self_attn.o.": "attn1.to_out.0.",
    "cross_attn.o.": "attn2.to_out.0.",
    "self_attn.": "attn1.to_",
    "cross_attn.": "attn2.to_",
    "norm3.": "norm2.",
    "ffn.0.": "ffn.net.0.proj.",
    "ffn.2.": "ffn.net.2.",
    "modulation": "scale_shift_table",
    "action_model.": "action_model.",
}
TOWER = {
    "cls_embedding": "embeddings.class_embedding",
    "patch_embedding.": "embeddings.patch_embedding.",
    "pos_embedding": "embeddings.position_embedding.weight",
    "pre_norm.": "pre_layrnorm.",
    "post_norm.": "post_layernorm.",
}
TOWER_LAYER = {
    "attn.proj.": "self_attn.out_proj.",
    "norm1.": "layer_norm1.",
    "norm2.": "layer_norm2.",
    "mlp.0.": "mlp.fc1.",
    "mlp.2.": "mlp.fc2.",
}
RESIDUAL = {"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}
MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}


def first_rule(name: str, table: dict[str, str]) -> str:
    """Rename by the first rule whose beginning fits; there must be one."""
    start = next(start for start in table if name.startswith(start))
    return table[start] + name.removeprefix(start)


def transformer_tensors() -> dict[str, Tensor]:
    released = dit_to_released(tiny.world().networks.dit.state_dict())
    named = {}
    for name, tensor in released.items():
        block = re.fullmatch(r"model\.(blocks\.\d+\.)(.+)", name)
        if block:
            named[block[1] + first_rule(block[2], BLOCK)] = tensor
        else:
            named[first_rule(name.removeprefix("model."), DIT)] = tensor
    return named


def vae_tensors() -> dict[str, Tensor]:
    networks, blocks = tiny.world().networks, tiny.SPEC.vae.residual_blocks + 1
    released = vae_to_released({**networks.encoder.state_dict(), **networks.decoder.state_dict()})
    outer = {"conv1.": "quant_conv.", "conv2.": "post_quant_conv."}
    named = {}
    for name, tensor in released.items():
        if name.startswith(tuple(outer)):
            named[first_rule(name, outer)] = tensor
            continue
        name = re.sub(r"^(encoder|decoder)\.conv1\.", r"\1.conv_in.", name)
        name = name.replace(".head.0.", ".norm_out.").replace(".head.2.", ".conv_out.")
        name = re.sub(r"\.residual\.(\d)\.", lambda m: f".{RESIDUAL[m[1]]}.", name)
        name = name.replace(".shortcut.", ".conv_shortcut.")
        name = re.sub(r"\.middle\.(\d)\.", lambda m: f".mid_block.{MIDDLE[m[1]]}.", name)
        name = name.replace("encoder.downsamples.", "encoder.down_blocks.")
        part = re.match(r"decoder\.upsamples\.(\d+)\.", name)
        if part:
            stage, block = divmod(int(part[1]), blocks + 1)
            place = f"resnets.{block}" if block < blocks else "upsamplers.0"
            name = f"decoder.up_blocks.{stage}.{place}.{name.removeprefix(part[0])}"
        named[name] = tensor
    return named


def tower_tensors() -> dict[str, Tensor]:
    networks, layers = tiny.world().networks, tiny.SPEC.vision.layers
    named = {}
    for name, tensor in networks.vision.state_dict().items():
        layer = re.fullmatch(r"transformer\.(\d+)\.(.+)", name)
        if not layer:
            named[f"vision_model.{first_rule(name, TOWER)}"] = tensor
            continue
        for number in (int(layer[1]), layers):  # the last layer, which is never run, as another
            stem = f"vision_model.encoder.layers.{number}."
            if layer[2].startswith("attn.to_qkv."):
                for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                    end = layer[2].removeprefix("attn.to_qkv.")
                    named[f"{stem}self_attn.{part}_proj.{end}"] = rows.clone()
            else:
                named[stem + first_rule(layer[2], TOWER_LAYER)] = tensor.clone()
    embeddings = "vision_model.embeddings."
    for name in ("class_embedding", "position_embedding.weight"):
        tensor = named[embeddings + name]
        named[embeddings + name] = tensor.reshape(tensor.shape[1:] if name[0] == "p" else -1)
    return named


def write_diffusers(folder: Path) -> Path:
    """Write the tiny world as a folder of Diffusers."""
    for part in ("transformer", "vae", "image_encoder"):
        (folder / part).mkdir(parents=True)
    plain = model_config()
    heads = plain.pop("num_heads")
    config = {
        "_class_name": "MatrixGameWanModel",
        "num_attention_heads": heads,
        "attention_head_dim": plain.pop("dim") // heads,
        "in_channels": 36,
        "out_channels": 16,
        **plain,
    }
    (folder / "model_index.json").write_text("{}")
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    save_file(transformer_tensors(), folder / "transformer" / "diffusion_pytorch_model.safetensors")
    save_file(vae_tensors(), folder / "vae" / "diffusion_pytorch_model.safetensors")
    save_file(tower_tensors(), folder / "image_encoder" / "model.safetensors")
    return folder
