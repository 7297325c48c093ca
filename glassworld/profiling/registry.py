"""The registry: the name of every tag, where it nests and what its time covers.

The single source of the contract: the engine opens tags by these constants, the tag index in
the docs is generated from them, the trace analysis folds names into them. Free of torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tag:
    """One entry of the contract.

    `pattern` is the exact name with `{}` fields, formatted by `tag()`; `level` is the depth it
    is documented at (1 the run .. 5 inside VAE decode); `parents` are the patterns it may be
    nested in directly (empty: the root); `covers` says what its time is; `origin` is the file in
    the original program that carried it ("" for ours).
    """

    pattern: str
    level: int
    parents: tuple[str, ...]
    covers: str
    origin: str = ""


REGISTRY: dict[str, Tag] = {}


def _register(
    pattern: str, level: int, parents: str | tuple[str, ...], covers: str, origin: str = ""
) -> str:
    if isinstance(parents, str):
        parents = (parents,) if parents else ()
    REGISTRY[pattern] = Tag(pattern, level, parents, covers, origin)
    return pattern


_INFERENCE = "inference.py"
_PIPELINE = "pipeline/causal_inference.py"
_WRAPPER = "utils/wan_wrapper.py"
_VAE = "demo_utils/vae_block3.py"

DATA_PREPARATION = _register(
    "1_Data_Preparation", 1, "", "from the picture to everything the first block needs", _INFERENCE
)
PIPELINE_INFERENCE = _register(
    "2_Pipeline_Inference", 1, "", "the block loop, decoding included", _INFERENCE
)
VIDEO_POSTPROCESSING = _register(
    "3_Video_Postprocessing", 1, "", "frames to pictures, keys drawn on", _INFERENCE
)
VIDEO_EXPORT = _register("4_Video_Export", 1, "", "H.264 encoding and writing", _INFERENCE)

IMAGE_LOADING = _register(
    "1.1_Image_Loading_Resize", 2, DATA_PREPARATION, "read, crop, resize", _INFERENCE
)
VAE_ENCODE = _register(
    "1.2_VAE_Encode_FirstFrame", 2, DATA_PREPARATION, "picture to image latents", _INFERENCE
)
CONDITIONS = _register(
    "1.3_Condition_Preparation", 2, DATA_PREPARATION, "mask and condition channels", _INFERENCE
)
VISUAL_CONTEXT = _register(
    "1.4_CLIP_Visual_Context", 2, DATA_PREPARATION, "the image tower", _INFERENCE
)
NOISE = _register("1.5_Noise_Sampling", 2, DATA_PREPARATION, "the run's noise", _INFERENCE)
ACTIONS = _register(
    "1.6_Action_Conditions_Setup", 2, DATA_PREPARATION, "keyboard and mouse rows", _INFERENCE
)

CACHE_INIT = _register(
    "2.1_KV_Cache_Initialization",
    3,
    PIPELINE_INFERENCE,
    "self, mouse, keyboard and cross attention caches",
    _PIPELINE,
)
INITIAL_LATENTS = _register(
    "2.2_Initial_Latents_Prefill", 3, PIPELINE_INFERENCE, "caching the video to be extended", ""
)
BLOCK = _register(
    "2.3_Block_{block}", 3, PIPELINE_INFERENCE, "one block: steps, update, decode", _PIPELINE
)
CONDITION_ENCODE = _register(
    "2.3.{block}_Condition_Encode",
    3,
    (BLOCK, INITIAL_LATENTS),
    "more image latents; the first blocks only, until the encoder has forgotten the picture",
)
DENOISING_STEP = _register(
    "2.3.{block}_Denoising_Step_{step}_t{timestep}", 3, BLOCK, "one denoising step", _PIPELINE
)
GENERATOR_FORWARD = _register(
    "Generator_Forward", 3, DENOISING_STEP, "network and flow to x0, not the last step", _PIPELINE
)
ADD_NOISE = _register(
    "Scheduler_AddNoise", 3, DENOISING_STEP, "x0 back to the next step's noise level", _PIPELINE
)
GENERATOR_FORWARD_FINAL = _register(
    "Generator_Forward_Final", 3, DENOISING_STEP, "network and flow to x0, last step", _PIPELINE
)
UPDATE_CACHE = _register(
    "2.3.{block}_Update_KV_Cache", 3, BLOCK, "the clean block's keys and values", _PIPELINE
)
VAE_DECODE = _register(
    "2.3.{block}_VAE_Decode", 3, BLOCK, "the block's latents to pixel frames", _PIPELINE
)

_FORWARDS = (GENERATOR_FORWARD, GENERATOR_FORWARD_FINAL, UPDATE_CACHE, INITIAL_LATENTS)
DIFFUSION_FORWARD = _register(
    "DiffusionModel_Forward", 4, _FORWARDS, "the diffusion transformer", _WRAPPER
)
FLOW_TO_X0 = _register(
    "Flow_to_X0_Conversion", 4, _FORWARDS, "x0 = x - sigma * flow, in float64", _WRAPPER
)
PATCH_EMBEDDING = _register(
    "DiT_Patch_Embedding", 4, DIFFUSION_FORWARD, "latents and condition to tokens"
)
TIME_EMBEDDING = _register("DiT_Time_Embedding", 4, DIFFUSION_FORWARD, "timesteps to modulation")
VISUAL_EMBEDDING = _register(
    "DiT_Visual_Embedding", 4, CACHE_INIT, "visual context to the transformer's width"
)
LAYER = _register("DiT_Layer_{layer}", 4, DIFFUSION_FORWARD, "one transformer layer")
SELF_ATTENTION = _register("DiT_Self_Attention", 4, LAYER, "window attention among latents")
CROSS_ATTENTION = _register("DiT_Cross_Attention", 4, LAYER, "attention to the visual context")
MOUSE_ATTENTION = _register("DiT_Mouse_Attention", 4, LAYER, "mouse, per position over time")
KEYBOARD_ATTENTION = _register("DiT_Keyboard_Attention", 4, LAYER, "keyboard, over the window")
FEED_FORWARD = _register("DiT_Feed_Forward", 4, LAYER, "the layer's MLP")
HEAD = _register("DiT_Head", 4, DIFFUSION_FORWARD, "tokens to flow")

DECODE_PRE = _register(
    "VAE_Decode_Preprocessing", 5, VAE_DECODE, "latents to the decoder's scale", _VAE
)
DECODE_CONV2 = _register("VAE_Conv2_Input", 5, VAE_DECODE, "the 1x1x1 input convolution", _VAE)
DECODE_FRAME = _register(
    "VAE_Decode_Frame_{frame}", 5, VAE_DECODE, "one latent frame of the block", _VAE
)
DECODE_POST = _register("VAE_Decode_Postprocessing", 5, VAE_DECODE, "clamp, to 8 bits", _VAE)
DEC_CONV1 = _register("VAE_Dec_Conv1", 5, DECODE_FRAME, "latent channels to width", _VAE)
DEC_MIDDLE = _register(
    "VAE_Dec_Middle_Blocks", 5, DECODE_FRAME, "residual, attention, residual", _VAE
)
DEC_UPSAMPLE = _register(
    "VAE_Dec_Upsample_Blocks", 5, DECODE_FRAME, "four stages up to full size", _VAE
)
DEC_HEAD = _register("VAE_Dec_Head", 5, DECODE_FRAME, "width to RGB", _VAE)
