"""Configuration files of the released layout, and the sizes that tensors tell, as specs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor

from glassworld.engine.variants.registry import VARIANTS, action_space
from glassworld.errors import CheckpointError, SpecError
from glassworld.specs import (
    SPACE_FACTOR,
    ActionModuleSpec,
    DiTSpec,
    VAESpec,
    VisionSpec,
    WorldSpec,
)

UNLIMITED_WINDOW = 15
"""Latent frames that a window of -1 ("unlimited") holds: the reference's cap."""

CLIP_HEAD_DIM = 80  # ViT-H/14: 16 heads at width 1280


class InferenceConfig(NamedTuple):
    """An inference YAML and the transformer's config.json that it names."""

    path: Path
    inference: dict[str, Any]
    model: dict[str, Any]


def yaml_problem(error: Exception) -> str:
    """Say in one line what is wrong with a YAML file, and on which line of it."""
    mark = getattr(error, "problem_mark", None)
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return str(error).splitlines()[0]
    return f"{error.problem}, line {mark.line + 1}"


def read_config(path: Path) -> InferenceConfig:
    """Read an inference YAML; its `model_config` is looked for beside it first."""
    try:
        inference = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        raise SpecError(f"{path}: no such configuration file; name an inference YAML") from None
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise SpecError(
            f"{path}: not readable as YAML ({yaml_problem(error)}); fix the line it names"
        ) from None
    if not isinstance(inference, dict):
        raise SpecError(f"{path}: not a mapping of settings; write lines such as seed: 0")
    named = _section(inference, "model_kwargs", path).get("model_config")
    if not isinstance(named, str):
        raise SpecError(f"{path}: model_kwargs.model_config must name the model's config folder")
    roots = (path.parent, *path.resolve().parents, Path.cwd())
    for candidate in (root / named for root in roots):
        file = candidate / "config.json" if candidate.is_dir() else candidate
        if file.is_file():
            return InferenceConfig(path, inference, _read_json(file))
    raise SpecError(
        f"{path}: model_config {named!r} is neither beside it nor in this folder; put it there"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not readable as JSON ({error}); fix the line it names") from None
    if not isinstance(content, dict):
        raise SpecError(
            f"{path}: not an object of settings; write one, such as the released config.json"
        )
    return content


def read_model_config(path: Path) -> dict[str, Any] | None:
    """Return a transformer's config.json with its settings by released names.

    Diffusers' names are recognized. None for a file that is not there or says no sizes.
    """
    if not path.is_file():
        return None
    content = _read_json(path)
    if not isinstance(content.get("action_config"), dict):
        return None
    settings = {released: content[name] for name, released in DIFFUSERS_SETTINGS if name in content}
    heads, width = content.get("num_attention_heads"), content.get("attention_head_dim")
    if "dim" not in content and isinstance(heads, int) and isinstance(width, int):
        settings["dim"] = heads * width
    return {**settings, **content}


DIFFUSERS_SETTINGS = (
    ("hidden_size", "dim"),
    ("num_attention_heads", "num_heads"),
    ("in_channels", "in_dim"),
    ("out_channels", "out_dim"),
)
"""The settings that Diffusers and the release name differently."""


def _section(settings: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    section = settings.get(name, {})
    if not isinstance(section, Mapping):
        raise SpecError(f"{path}: {name} must be a mapping")
    return section


def world_spec(config: InferenceConfig, vae: VAESpec, vision: VisionSpec) -> WorldSpec:
    """Return the spec of a configured world whose VAE and image tower have been sized."""
    path, settings = config.path, config.inference
    options = _section(settings, "model_kwargs", path)
    try:
        mode = str(settings["mode"])
        shape = [int(size) for size in settings["image_or_video_shape"]]
        rows, columns = shape[-2:]
        spec = WorldSpec(
            mode=mode,
            dit=dit_spec({**config.model, **_overrides(options)}, vision.width),
            vae=vae,
            vision=vision,
            height=rows * SPACE_FACTOR,
            width=columns * SPACE_FACTOR,
            frames_per_block=int(settings.get("num_frame_per_block", 1)),
            denoising_steps=tuple(int(step) for step in settings["denoising_step_list"]),
            timestep_shift=float(options.get("timestep_shift", 5.0)),
            warp_steps=bool(settings.get("warp_denoising_step", False)),
            eta=float(settings.get("fresh_noise", 1)),
            context_noise=float(settings.get("context_noise", 0)),
            seed=int(settings.get("seed", 0)),
            frame_rate=int(settings.get("frame_rate", 12)),
        )
        _check_mode(spec)
        return spec
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
    except KeyError as error:
        raise SpecError(f"{path}: the setting {error} is missing; add it") from None
    except (TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise SpecError(
            f"{path}: a setting has the wrong type or value ({error}); fix it"
        ) from None


def outline_spec(config: InferenceConfig) -> WorldSpec:
    """Return the spec of a configured world, its VAE and image tower as in the release."""
    return world_spec(config, VAESpec(), VisionSpec())


def _check_mode(spec: WorldSpec) -> None:
    """Raise `SpecError` if the model was made for other keys, or only one of them has a mouse."""
    space, action = action_space(spec.mode), spec.dit.action
    if (len(space.keyboard), space.has_mouse) != (action.keyboard_dim, bool(action.mouse_dim)):
        mouse = "a mouse" if action.mouse_dim else "no mouse"
        raise SpecError(
            f"mode {spec.mode!r} does not fit the model, which knows {action.keyboard_dim} keys "
            f"and {mouse}"
            "; choose the mode or the weights that fit"
        )


def _overrides(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the YAML's model_kwargs that go before the config.json's."""
    return {name: options[name] for name in ("local_attn_size", "sink_size") if name in options}


def dit_spec(config: Mapping[str, Any], context_dim: int) -> DiTSpec:
    """Return the transformer of a `CausalWanModel` config; unknown settings are ignored."""
    action = config["action_config"]
    mouse = bool(action.get("enable_mouse", True))
    window = int(config.get("local_attn_size", -1))
    return DiTSpec(
        action=ActionModuleSpec(
            layers=tuple(int(layer) for layer in action["blocks"]),
            keyboard_dim=int(action["keyboard_dim_in"]),
            mouse_dim=int(action.get("mouse_dim_in", 2)) if mouse else 0,
            embed_width=int(action["hidden_size"]),
            keyboard_width=int(action["keyboard_hidden_dim"]),
            mouse_width=int(action.get("mouse_hidden_dim", action["keyboard_hidden_dim"])),
            heads=int(action["heads_num"]),
            rotary_dims=int(action.get("rope_dim_list", [8])[0]),
            rope_theta=float(action.get("rope_theta", 256)),
            window=int(action.get("windows_size", 3)),
        ),
        dim=int(config["dim"]),
        ffn_dim=int(config["ffn_dim"]),
        num_layers=int(config["num_layers"]),
        num_heads=int(config["num_heads"]),
        freq_dim=int(config.get("freq_dim", 256)),
        in_dim=int(config.get("in_dim", 36)),
        out_dim=int(config.get("out_dim", 16)),
        context_dim=context_dim,
        eps=float(config.get("eps", 1e-6)),
        window=UNLIMITED_WINDOW if window < 0 else window,
        sink=int(config.get("sink_size", 0)),
    )


@contextmanager
def _sizing(source: Path, what: str) -> Iterator[None]:
    """Say in one line that tensors lack a name, or have sizes that cannot be."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(
            f"{source}: not a {what} (no tensor {error}); name another file"
        ) from None
    except SpecError as error:
        raise CheckpointError(f"{source}: {error}") from None
    except (IndexError, TypeError, ValueError, ArithmeticError):
        raise CheckpointError(
            f"{source}: a {what} of an unknown layout; name another file"
        ) from None


def vae_spec(tensors: Mapping[str, Tensor], source: Path) -> VAESpec:
    """Return the sizes of a VAE as its tensors, by released names, show them."""
    with _sizing(source, "Wan 2.1 VAE"):
        width = tensors["encoder.conv1.weight"].shape[0]
        latent = tensors["conv2.weight"].shape[0]
        blocks: list[int] = []  # output width of each stage, and how many residual blocks it has
        counts: list[int] = []
        temporal: list[bool] = []
        opened = False
        numbers = {m[1] for m in map(_STAGE.match, tensors) if m}
        for number in sorted(numbers, key=int):
            stage = f"encoder.downsamples.{number}."
            if f"{stage}resample.1.weight" in tensors:
                temporal.append(f"{stage}time_conv.weight" in tensors)
                opened = False
                continue
            out = tensors[f"{stage}residual.2.weight"].shape[0]
            if opened:
                counts[-1] += 1
            else:
                blocks.append(out)
                counts.append(1)
            opened = True
        if len(set(counts)) != 1 or any(out % width for out in blocks):
            raise SpecError("a VAE of an unknown layout; use a Wan 2.1 VAE")
        multiples = tuple(out // width for out in blocks)
        return VAESpec(width, multiples, counts[0], tuple(temporal), latent)


_STAGE = re.compile(r"encoder\.downsamples\.(\d+)\.")


def vision_spec(tensors: Mapping[str, Tensor], source: Path) -> VisionSpec:
    """Return the sizes of an image tower from its tensors without their prefix."""
    with _sizing(source, "CLIP image tower"):
        patch = tensors["patch_embedding.weight"]
        width, side = patch.shape[0], patch.shape[-1]
        tokens = tensors["pos_embedding"].shape[1]
        mlp = tensors["transformer.0.mlp.0.weight"].shape[0]
        layers = [int(name.split(".")[1]) for name in tensors if name.startswith("transformer.")]
        head_dim = CLIP_HEAD_DIM if width % CLIP_HEAD_DIM == 0 else VISION_HEAD_DIM
        return VisionSpec(
            width=width,
            layers=1 + max(layers),
            heads=max(1, width // head_dim),
            patch=side,
            image_size=side * round((tokens - 1) ** 0.5),
            mlp_width=mlp,
        )


VISION_HEAD_DIM = 32  # of towers whose width does not split into CLIP's heads


def variant_config(name: str) -> InferenceConfig:
    """Return the settings of a released variant at its released size."""
    variant = VARIANTS[name]
    return InferenceConfig(Path(f"variant {name}"), variant.inference, variant.model)


def variant_spec(name: str) -> WorldSpec:
    """Return the spec of a released variant at its released size, 352x640."""
    return outline_spec(variant_config(name))


def fitting_variants(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the released variants that a transformer of these tensors (by released names) fits."""
    keyboard = shapes.get(KEYBOARD)
    if keyboard is None or len(keyboard) != 2:
        return []
    mouse, layers = MOUSE in shapes, sum(name.endswith(KEYBOARD_END) for name in shapes)
    fitting = [
        variant
        for variant in VARIANTS.values()
        if (len(variant.space.keyboard), variant.space.has_mouse) == (keyboard[1], mouse)
    ]
    exact = [variant for variant in fitting if variant.action_layers == layers]
    return [variant.name for variant in exact or fitting]


KEYBOARD_END = ".action_model.keyboard_embed.0.weight"
KEYBOARD = f"blocks.0{KEYBOARD_END}"
MOUSE = "blocks.0.action_model.mouse_mlp.0.weight"


def fit_advice(shapes: Mapping[str, Sequence[int]]) -> str:
    """Say, as the end of an error, which released variant a transformer's tensors would fit."""
    keyboard = shapes.get(KEYBOARD)
    if keyboard is None or len(keyboard) != 2:
        return "; no action module is in it, so it fits no Matrix-Game-2 variant"
    found = " or ".join(fitting_variants(shapes)) or "no released variant"
    mouse = "a mouse" if MOUSE in shapes else "no mouse"
    return f"; with {keyboard[1]} keys and {mouse} it would fit {found}"
