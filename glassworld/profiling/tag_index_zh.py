"""The tag index in Chinese: what each tag's time covers. Names of tags are never translated."""

from __future__ import annotations

from glassworld.profiling import registry as tags

LEVELS = {
    1: "整个运行",
    2: "数据准备",
    3: "块循环",
    4: "生成器前向内部",
    5: "VAE 解码内部",
}
"""The headings, by level."""

HEAD = """# 标签索引

*[English](../tags.md)*

一次运行的全部标签，按层级排列。标签名称保持英文原样。你可以在 Perfetto 或 `chrome://tracing` 里用
Ctrl+F 搜索这些名称，也可以直接看 `glassworld trace report` 的报告。花括号代表数字：
`2.3_Block_{block}` 在 trace 里依次是 `2.3_Block_0`、`2.3_Block_1`，以此类推。最后一列是
Matrix-Game 2.0 原始程序中带有该标签的文件；没有文件名的标签是 glassworld 新增的。

你自己的标签和引擎的标签一样，会出现在每一张表里：

```python
import glassworld

with glassworld.tag("2.3.1_My_Step_t999"):
    ...
```

本页由 `python -m glassworld.profiling.tag_index` 生成。
"""

COVERS = {
    tags.DATA_PREPARATION: "从起始图像到第一个块所需的全部输入",
    tags.PIPELINE_INFERENCE: "块循环，包括解码",
    tags.VIDEO_POSTPROCESSING: "把帧转换为图像，并画上按键",
    tags.VIDEO_EXPORT: "H.264 编码并写入文件",
    tags.IMAGE_LOADING: "读取、裁剪、缩放起始图像",
    tags.VAE_ENCODE: "把起始图像编码为图像潜变量",
    tags.CONDITIONS: "掩码和条件通道",
    tags.VISUAL_CONTEXT: "图像编码塔（CLIP），得到视觉上下文",
    tags.NOISE: "采样本次运行的噪声",
    tags.ACTIONS: "准备键盘和鼠标的动作行",
    tags.CACHE_INIT: "初始化四种缓存：自注意力、鼠标、键盘和交叉注意力",
    tags.INITIAL_LATENTS: "续写视频时，把已有视频写入缓存",
    tags.BLOCK: "一个块：去噪步骤、缓存更新和解码",
    tags.CONDITION_ENCODE: "继续编码图像潜变量；只出现在最初几个块，直到起始图像离开编码器的感受野",
    tags.DENOISING_STEP: "一个去噪步骤",
    tags.GENERATOR_FORWARD: "网络前向以及由 flow 计算 x0，最后一步除外",
    tags.ADD_NOISE: "把 x0 加噪到下一步的噪声水平",
    tags.GENERATOR_FORWARD_FINAL: "最后一步的网络前向以及由 flow 计算 x0",
    tags.UPDATE_CACHE: "把去噪后的块再过一遍网络，写入它的键和值",
    tags.VAE_DECODE: "把块的潜变量解码为像素帧",
    tags.DIFFUSION_FORWARD: "扩散 Transformer",
    tags.FLOW_TO_X0: "x0 = x - sigma * flow，用 float64 计算",
    tags.PATCH_EMBEDDING: "把潜变量和条件变为 token",
    tags.TIME_EMBEDDING: "把时间步变为调制参数",
    tags.VISUAL_EMBEDDING: "把视觉上下文投影到 Transformer 的宽度",
    tags.LAYER: "一个 Transformer 层",
    tags.SELF_ATTENTION: "潜变量之间的窗口注意力",
    tags.CROSS_ATTENTION: "对视觉上下文的注意力",
    tags.MOUSE_ATTENTION: "鼠标注意力：每个空间位置沿时间",
    tags.KEYBOARD_ATTENTION: "键盘注意力：沿整个窗口",
    tags.FEED_FORWARD: "该层的前馈网络（MLP）",
    tags.HEAD: "把 token 变回 flow",
    tags.DECODE_PRE: "把潜变量变换到解码器的尺度",
    tags.DECODE_CONV2: "1x1x1 输入卷积",
    tags.DECODE_FRAME: "块中的一个潜变量帧",
    tags.DEC_CONV1: "从潜变量通道到解码器宽度",
    tags.DEC_MIDDLE: "残差块、注意力、残差块",
    tags.DEC_UPSAMPLE: "四级上采样，直到完整尺寸",
    tags.DEC_HEAD: "从解码器宽度到 RGB",
    tags.DECODE_POST: "截断并转换为 8 位",
}
"""By pattern: what its time covers."""
