"""Names that tools give to tensors, back to those of the release.

Training wrappers put a part in front of every name or into it; Diffusers and transformers name the
same tensors otherwise. What is here changes names, and of the image tower the split of queries,
keys and values; the release's own names and ours are in `tensor_names`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from glassworld.engine.checkpoint.tensor_files import Tensors
from glassworld.errors import CheckpointError

T = TypeVar("T")

WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)"
    r"(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
"""Parts that data parallelism, `torch.compile`, FSDP and checkpointing put into a name."""

HOLDERS = re.compile(r"^(?:diffusion_model\.|model\.)+")
"""Parts that name the attribute a network was held in."""


def standard_name(name: str) -> str:
    """Return a tensor's name without what wrappers and holders added."""
    return HOLDERS.sub("", WRAPPERS.sub("", name))


OWN = ("blocks", "encoder", "decoder", "visual", "vision_model", "embeddings")
"""First parts of names that belong to a network, though all of a file's names may have them."""

COUNTS = ("n_averaged",)
"""What averaging of weights keeps beside them."""


def standard_names(tensors: Mapping[str, T], source: Path) -> dict[str, T]:
    """Return the tensors by their `standard_name`, without a part that is in front of all of them.

    Raises `CheckpointError` for two of one name, and for a LoRA.
    """
    if tensors and all(".lora_" in name or name.endswith(".alpha") for name in tensors):
        raise CheckpointError(
            f"{source}: is a LoRA, which changes a checkpoint; merge it into its checkpoint first"
        )
    plain_names = {name: standard_name(name) for name in tensors if name not in COUNTS}
    front = _common_part(plain_names.values())
    named: dict[str, T] = {}
    for name, plain in plain_names.items():
        plain, tensor = standard_name(plain.removeprefix(front)), tensors[name]
        if plain in named:
            raise CheckpointError(
                f"{source}: two tensors are {plain}; one of them is {name}; remove one"
            )
        named[plain] = tensor
    return named


def _common_part(names: Iterable[str]) -> str:
    """Return what all names begin with that belongs to none, such as "generator." or ""."""
    left, front = sorted(set(names)), ""
    while len(left) > 1:
        firsts = {name.partition(".")[0] for name in left}
        if len(firsts) != 1 or firsts & set(OWN) or not all("." in name for name in left):
            return front
        front += f"{firsts.pop()}."
        left = [name.partition(".")[2] for name in left]
    return front


Rules = tuple[tuple[str, str], ...]

_DIT: Rules = (
    (r"^patch_embedding\.proj\.", "patch_embedding."),
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^condition_embedder\.image_embedder\.norm1\.", "img_emb.proj.0."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj\.", "img_emb.proj.1."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2\.", "img_emb.proj.3."),
    (r"^condition_embedder\.image_embedder\.norm2\.", "img_emb.proj.4."),
    (r"^(blocks\.\d+\.)norm2\.", r"\1norm3."),
    (r"^(blocks\.\d+\.)attn1\.", r"\1self_attn."),
    (r"^(blocks\.\d+\.)attn2\.", r"\1cross_attn."),
    (r"_attn\.to_([qkv])\.", r"_attn.\1."),
    (r"_attn\.to_out\.0\.", "_attn.o."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
    (r"^(blocks\.\d+\.)scale_shift_table$", r"\1modulation"),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
)


def dit_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """Return a transformer's tensors by released names; Diffusers' are recognized."""
    if not any(name.startswith("condition_embedder.") for name in tensors):
        return dict(tensors)
    return _renamed(tensors, _DIT)


_VAE: Rules = (
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"^(encoder|decoder)\.conv_in\.", r"\1.conv1."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.head.0."),
    (r"^(encoder|decoder)\.conv_out\.", r"\1.head.2."),
    (r"^encoder\.down_blocks\.", "encoder.downsamples."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"((?:samples|middle)\.\d+)\.norm1\.", r"\1.residual.0."),
    (r"((?:samples|middle)\.\d+)\.conv1\.", r"\1.residual.2."),
    (r"((?:samples|middle)\.\d+)\.norm2\.", r"\1.residual.3."),
    (r"((?:samples|middle)\.\d+)\.conv2\.", r"\1.residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
)
_RESNET = re.compile(r"^decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.")
_UPSAMPLER = re.compile(r"^decoder\.up_blocks\.(\d+)\.upsamplers\.0\.")


def vae_names(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return a VAE's tensors by released names; Diffusers' are recognized."""
    if "encoder.conv_in.weight" not in tensors:
        return dict(tensors)
    resnets = 1 + max((int(m[2]) for m in map(_RESNET.match, tensors) if m), default=0)

    def flat(name: str) -> str:
        """Return the name with the decoder's stages in one row, as in the release."""
        name = _RESNET.sub(
            lambda m: f"decoder.upsamples.{int(m[1]) * (resnets + 1) + int(m[2])}.", name
        )
        return _UPSAMPLER.sub(
            lambda m: f"decoder.upsamples.{int(m[1]) * (resnets + 1) + resnets}.", name
        )

    return _renamed({flat(name): tensor for name, tensor in tensors.items()}, _VAE)


_VISION: Rules = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.cls_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.patch_embedding."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.pos_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.pre_norm."),
    (r"^vision_model\.post_layernorm\.", "visual.post_norm."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
)
_TOWER = ("visual.", "vision_model.")
_BARE = "embeddings.class_embedding"  # how transformers names it since version 5


def tower_tensors(tensors: Mapping[str, T]) -> dict[str, T]:
    """Return the image tower's tensors of a file that may hold a text tower too."""
    if _BARE in tensors:
        tensors = {f"vision_model.{name}": tensor for name, tensor in tensors.items()}
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith(_TOWER) and not name.endswith(".position_ids")
    }


def vision_names(tensors: Mapping[str, Tensor], source: Path) -> Tensors:
    """Return an image tower's tensors by released names; those of transformers are recognized."""
    if not any(name.startswith("vision_model.") for name in tensors):
        return dict(tensors)
    named = _renamed(tensors, _VISION)
    for name in [name for name in named if ".self_attn.q_proj." in name]:
        parts = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
        if all(part in named for part in parts):
            stacked = _stacked([named.pop(part) for part in parts], parts, source)
            named[name.replace("self_attn.q_proj", "attn.to_qkv")] = stacked
    embeddings = {"visual.cls_embedding": 3, "visual.pos_embedding": 3}
    for name, dims in embeddings.items():
        while name in named and named[name].dim() < dims:
            named[name] = named[name][None]
    return named


def _stacked(tensors: list[Tensor], names: Iterable[str], source: Path) -> Tensor:
    try:
        return torch.cat(tensors)
    except RuntimeError:
        listed = ", ".join(names)
        raise CheckpointError(
            f"{source}: {listed} are of shapes that do not fit; use another checkpoint"
        ) from None


def _renamed(tensors: Mapping[str, T], rules: Rules) -> dict[str, T]:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
