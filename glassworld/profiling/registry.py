"""The registry: the name of every tag, where it nests, what its time covers, how it is shown.

The single source of the contract: the engine opens tags by these constants, the tag index in
the docs is generated from them, the trace analysis folds names into them and takes tables, plots,
labels and colors from them. Free of torch.

To add a tag, register it here and open it with `tag()`: it then appears in every table and plot.
Give it a `cost` where its work can be counted from a run's configuration.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass


@dataclass(frozen=True)
class TagFamily:
    """Tags of one kind of work, which share a color; one for light pages, one for dark ones."""

    name: str
    light: str
    dark: str


DENOISE = TagFamily("denoise", "#2a6fdb", "#6aa2ff")
DECODE = TagFamily("decode", "#b45b06", "#f3a14a")
UPDATE = TagFamily("update", "#0a8077", "#35c2b3")
ENCODE = TagFamily("encode", "#8b4fd8", "#bd8cf7")
PREPARE = TagFamily("prepare", "#5b6b8c", "#93a3c7")
POST = TagFamily("post", "#c2328a", "#f07fc0")
EXPORT = TagFamily("export", "#7d7468", "#b5aa9c")
OTHER = TagFamily("other", "#68737f", "#8b96a5")

FAMILIES = (DENOISE, DECODE, UPDATE, ENCODE, PREPARE, POST, EXPORT, OTHER)


@dataclass(frozen=True)
class Tag:
    """One entry of the contract.

    `pattern` is the exact name with `{}` fields, formatted by `tag()`; `level` is the depth it
    is documented at (1 the run .. 5 inside VAE decode); `parents` are the patterns it may be
    nested in directly (empty: the root); `covers` says what its time is; `family` gives its color
    and `label` its name in plots (fields in it are filled where they are known); `origin` is the
    file in the original program that carried it ("" for ours); `cost` names the function in
    `glassworld.trace.analyzers.flops` that counts its work ("" where none does).
    """

    pattern: str
    level: int
    parents: tuple[str, ...]
    covers: str
    family: TagFamily
    label: str
    origin: str = ""
    cost: str = ""


REGISTRY: dict[str, Tag] = {}


def _register(
    pattern: str,
    level: int,
    parents: str | tuple[str, ...],
    covers: str,
    *,
    family: TagFamily,
    label: str,
    origin: str = "",
    cost: str = "",
) -> str:
    if isinstance(parents, str):
        parents = (parents,) if parents else ()
    REGISTRY[pattern] = Tag(pattern, level, parents, covers, family, label, origin, cost)
    return pattern


_INFERENCE = "inference.py"
_PIPELINE = "pipeline/causal_inference.py"
_WRAPPER = "utils/wan_wrapper.py"
_VAE = "demo_utils/vae_block3.py"

DATA_PREPARATION = _register(
    "1_Data_Preparation",
    1,
    "",
    "from the start image to everything the first block needs",
    family=PREPARE,
    label="data preparation",
    origin=_INFERENCE,
)
PIPELINE_INFERENCE = _register(
    "2_Pipeline_Inference",
    1,
    "",
    "the block loop, decoding included",
    family=DENOISE,
    label="inference loop",
    origin=_INFERENCE,
)
VIDEO_POSTPROCESSING = _register(
    "3_Video_Postprocessing",
    1,
    "",
    "frames to images, keys drawn on",
    family=POST,
    label="post-processing",
    origin=_INFERENCE,
    cost="pixels",
)
VIDEO_EXPORT = _register(
    "4_Video_Export",
    1,
    "",
    "H.264 encoding and writing",
    family=EXPORT,
    label="video export",
    origin=_INFERENCE,
)

IMAGE_LOADING = _register(
    "1.1_Image_Loading_Resize",
    2,
    DATA_PREPARATION,
    "read, crop, resize",
    family=PREPARE,
    label="image loading",
    origin=_INFERENCE,
)
VAE_ENCODE = _register(
    "1.2_VAE_Encode_FirstFrame",
    2,
    DATA_PREPARATION,
    "start image to image latents",
    family=PREPARE,
    label="first-frame encode",
    origin=_INFERENCE,
    cost="first_encode",
)
CONDITIONS = _register(
    "1.3_Condition_Preparation",
    2,
    DATA_PREPARATION,
    "mask and condition channels",
    family=PREPARE,
    label="condition preparation",
    origin=_INFERENCE,
)
VISUAL_CONTEXT = _register(
    "1.4_CLIP_Visual_Context",
    2,
    DATA_PREPARATION,
    "the image tower",
    family=PREPARE,
    label="CLIP visual context",
    origin=_INFERENCE,
    cost="clip",
)
NOISE = _register(
    "1.5_Noise_Sampling",
    2,
    DATA_PREPARATION,
    "the run's noise",
    family=PREPARE,
    label="noise sampling",
    origin=_INFERENCE,
)
ACTIONS = _register(
    "1.6_Action_Conditions_Setup",
    2,
    DATA_PREPARATION,
    "keyboard and mouse rows",
    family=PREPARE,
    label="action setup",
    origin=_INFERENCE,
)

CACHE_INIT = _register(
    "2.1_KV_Cache_Initialization",
    3,
    PIPELINE_INFERENCE,
    "self, mouse, keyboard and cross attention caches",
    family=PREPARE,
    label="cache initialization",
    origin=_PIPELINE,
    cost="cache_initialization",
)
INITIAL_LATENTS = _register(
    "2.2_Initial_Latents_Prefill",
    3,
    PIPELINE_INFERENCE,
    "caching the video to be extended",
    family=ENCODE,
    label="initial latents",
)
BLOCK = _register(
    "2.3_Block_{block}",
    3,
    PIPELINE_INFERENCE,
    "one block: steps, update, decode",
    family=DENOISE,
    label="block {block}",
    origin=_PIPELINE,
)
CONDITION_ENCODE = _register(
    "2.3.{block}_Condition_Encode",
    3,
    (BLOCK, INITIAL_LATENTS),
    "more image latents; the first blocks only, until the start image leaves the receptive field",
    family=ENCODE,
    label="condition encode",
    cost="condition_encode",
)
DENOISING_STEP = _register(
    "2.3.{block}_Denoising_Step_{step}_t{timestep}",
    3,
    BLOCK,
    "one denoising step",
    family=DENOISE,
    label="denoising {step}",
    origin=_PIPELINE,
)
GENERATOR_FORWARD = _register(
    "Generator_Forward",
    3,
    DENOISING_STEP,
    "network and flow to x0, not the last step",
    family=DENOISE,
    label="generator",
    origin=_PIPELINE,
)
ADD_NOISE = _register(
    "Scheduler_AddNoise",
    3,
    DENOISING_STEP,
    "x0 back to the next step's noise level",
    family=DENOISE,
    label="add noise",
    origin=_PIPELINE,
)
GENERATOR_FORWARD_FINAL = _register(
    "Generator_Forward_Final",
    3,
    DENOISING_STEP,
    "network and flow to x0, last step",
    family=DENOISE,
    label="generator (last step)",
    origin=_PIPELINE,
)
UPDATE_CACHE = _register(
    "2.3.{block}_Update_KV_Cache",
    3,
    BLOCK,
    "the clean block's keys and values",
    family=UPDATE,
    label="cache update",
    origin=_PIPELINE,
)
VAE_DECODE = _register(
    "2.3.{block}_VAE_Decode",
    3,
    BLOCK,
    "the block's latents to pixel frames",
    family=DECODE,
    label="VAE decode",
    origin=_PIPELINE,
)

_FORWARDS = (GENERATOR_FORWARD, GENERATOR_FORWARD_FINAL, UPDATE_CACHE, INITIAL_LATENTS)
DIFFUSION_FORWARD = _register(
    "DiffusionModel_Forward",
    4,
    _FORWARDS,
    "the diffusion transformer",
    family=DENOISE,
    label="diffusion model",
    origin=_WRAPPER,
)
FLOW_TO_X0 = _register(
    "Flow_to_X0_Conversion",
    4,
    _FORWARDS,
    "x0 = x - sigma * flow, in float64",
    family=DENOISE,
    label="flow to x0",
    origin=_WRAPPER,
)
PATCH_EMBEDDING = _register(
    "DiT_Patch_Embedding",
    4,
    DIFFUSION_FORWARD,
    "latents and condition to tokens",
    family=DENOISE,
    label="patch embedding",
    cost="patch_embedding",
)
TIME_EMBEDDING = _register(
    "DiT_Time_Embedding",
    4,
    DIFFUSION_FORWARD,
    "timesteps to modulation",
    family=DENOISE,
    label="time embedding",
    cost="time_embedding",
)
VISUAL_EMBEDDING = _register(
    "DiT_Visual_Embedding",
    4,
    CACHE_INIT,
    "visual context to the transformer's width",
    family=DENOISE,
    label="visual embedding",
)
LAYER = _register(
    "DiT_Layer_{layer}",
    4,
    DIFFUSION_FORWARD,
    "one transformer layer",
    family=DENOISE,
    label="layer {layer}",
)
SELF_ATTENTION = _register(
    "DiT_Self_Attention",
    4,
    LAYER,
    "window attention among latents",
    family=DENOISE,
    label="self attention",
    cost="self_attention",
)
CROSS_ATTENTION = _register(
    "DiT_Cross_Attention",
    4,
    LAYER,
    "attention to the visual context",
    family=DENOISE,
    label="cross attention",
    cost="cross_attention",
)
MOUSE_ATTENTION = _register(
    "DiT_Mouse_Attention",
    4,
    LAYER,
    "mouse, per position over time",
    family=DENOISE,
    label="mouse attention",
    cost="mouse_attention",
)
KEYBOARD_ATTENTION = _register(
    "DiT_Keyboard_Attention",
    4,
    LAYER,
    "keyboard, over the window",
    family=DENOISE,
    label="keyboard attention",
    cost="keyboard_attention",
)
FEED_FORWARD = _register(
    "DiT_Feed_Forward",
    4,
    LAYER,
    "the layer's MLP",
    family=DENOISE,
    label="feed forward",
    cost="dit_feed_forward",
)
HEAD = _register(
    "DiT_Head",
    4,
    DIFFUSION_FORWARD,
    "tokens to flow",
    family=DENOISE,
    label="DiT head",
    cost="dit_head",
)

DECODE_PRE = _register(
    "VAE_Decode_Preprocessing",
    5,
    VAE_DECODE,
    "latents to the decoder's scale",
    family=DECODE,
    label="preprocessing",
    origin=_VAE,
)
DECODE_CONV2 = _register(
    "VAE_Conv2_Input",
    5,
    VAE_DECODE,
    "the 1x1x1 input convolution",
    family=DECODE,
    label="conv2 input",
    origin=_VAE,
)
DECODE_FRAME = _register(
    "VAE_Decode_Frame_{frame}",
    5,
    VAE_DECODE,
    "one latent frame of the block",
    family=DECODE,
    label="frame {frame}",
    origin=_VAE,
)
DEC_CONV1 = _register(
    "VAE_Dec_Conv1",
    5,
    DECODE_FRAME,
    "latent channels to width",
    family=DECODE,
    label="conv1",
    origin=_VAE,
    cost="decoder_conv1",
)
DEC_MIDDLE = _register(
    "VAE_Dec_Middle_Blocks",
    5,
    DECODE_FRAME,
    "residual, attention, residual",
    family=DECODE,
    label="middle blocks",
    origin=_VAE,
    cost="decoder_middle",
)
DEC_UPSAMPLE = _register(
    "VAE_Dec_Upsample_Blocks",
    5,
    DECODE_FRAME,
    "four stages up to full size",
    family=DECODE,
    label="upsample blocks",
    origin=_VAE,
    cost="decoder_upsample",
)
DEC_HEAD = _register(
    "VAE_Dec_Head",
    5,
    DECODE_FRAME,
    "width to RGB",
    family=DECODE,
    label="VAE head",
    origin=_VAE,
    cost="decoder_head",
)
DECODE_POST = _register(
    "VAE_Decode_Postprocessing",
    5,
    VAE_DECODE,
    "clamp, to 8 bits",
    family=DECODE,
    label="postprocessing",
    origin=_VAE,
)


def tag_label(pattern: str, fields: dict[str, int] | None = None) -> str:
    """Return the short name of a tag of the registry; fields that are not given are left out."""
    label = REGISTRY[pattern].label
    values = {name: str(value) for name, value in (fields or {}).items()}
    return " ".join(label.format_map(defaultdict(str, values)).split())


def child_tags(pattern: str) -> list[str]:
    """Return the tags that may be nested directly in `pattern`, in the order of the registry."""
    return [tag.pattern for tag in REGISTRY.values() if pattern in tag.parents]


def leaf_tags(pattern: str) -> list[str]:
    """Return the tags below `pattern` that have none inside them, each once."""
    found: dict[str, None] = {}
    for child in child_tags(pattern):
        found |= dict.fromkeys(leaf_tags(child) or [child])
    return list(found)


def root_tags() -> list[str]:
    """Return the outermost tags of a run: its stages."""
    return [tag.pattern for tag in REGISTRY.values() if not tag.parents]
