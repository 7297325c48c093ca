"""Small synthetic traces, written the way the profiler writes them."""

import gzip
import json
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from typer.testing import CliRunner

from glassworld.trace.cli import app
from glassworld.trace.report.json_export import write_json

CONFIG: dict[str, Any] = {
    "mode": "universal",
    "seed": 0,
    "num_latent_frames": 24,
    "frames_per_block": 3,
    "denoising_steps": [1000, 666, 333],
    "image_size": [64, 96],
    "latent_shape": [16, 8, 12],
    "window": 6,
    "sink": 0,
    "model": {
        "dim": 64,
        "ffn_dim": 128,
        "num_layers": 4,
        "num_heads": 4,
        "freq_dim": 32,
        "in_dim": 36,
        "out_dim": 16,
        "patch": [1, 2, 2],
        "context_dim": 32,
        "context_tokens": 5,
        "action_layers": [],
        "keyboard_hidden": 32,
        "mouse_dim": 2,
        "mouse_hidden": 32,
        "action_rows": 12,
    },
    "vae": {
        "stage_widths": [8, 16, 32, 32],
        "residual_blocks": 2,
        "temporal": [False, True, True],
        "latent_channels": 16,
    },
    "clip": {"width": 32, "layers": 2, "mlp_width": 64, "patch": 14, "image_size": 28},
    "dtype": "float32",
    "device": "cpu",
}


JSON_VALUES = [None, "x", "12", "", -1, 1.5, True, [], [1], {}, {"a": 1}, 2**70, "NaN"]
"""Values of all JSON types, to put where a trace has another."""


def invoke(*arguments):
    """Run `glassworld trace` with these arguments."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def analysis_json(analysis):
    """Return what `write_json` writes of an analysis."""
    with TemporaryDirectory() as folder:
        write_json(Path(folder, "analysis.json"), analysis)
        return json.loads(Path(folder, "analysis.json").read_bytes())


def near(value):
    """Return a value that equals another if the floats in both are nearly the same."""
    if isinstance(value, dict):
        return {key: near(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [near(inner) for inner in value]
    return pytest.approx(value, abs=2e-6) if isinstance(value, float) else value


class CpuTrace:
    """The events of a program on the CPU, written in order of time; microseconds.

    `tag` is a context manager around the events inside, `op` an operator that takes some time.
    """

    def __init__(self, base=4_623_103_944_612.872):
        self.base, self.now, self.events = base, 0.0, []

    def event(self, cat, name, start, dur, pid=1, tid=1, **args):
        ts = round(self.base + start, 3)
        event = {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid}
        self.events.append(event | {"ts": ts, "dur": round(dur, 3), "args": args})

    def tag(self, name):
        trace = self

        class Tag:
            def __enter__(self):
                self.start, self.index = trace.now, len(trace.events)

            def __exit__(self, *_):
                trace.event("user_annotation", name, self.start, trace.now - self.start)
                trace.events.insert(self.index, trace.events.pop())

        return Tag()

    def op(self, name, dur, **args):
        self.event("cpu_op", name, self.now, dur, **args)
        self.now += dur

    def wait(self, dur):
        self.now += dur


class GpuTrace(CpuTrace):
    """The events of a program whose kernels run on one stream, in the order of their launches."""

    def __init__(self):
        super().__init__()
        self.correlation, self.free = 0, 0.0
        self.allocated = {}

    def launch(self, name, dur, cat="kernel", delay=5.0):
        self.correlation += 1
        args = {"correlation": self.correlation}
        self.event("cuda_runtime", "cudaLaunchKernel", self.now, 2, **args)
        start = max(self.now + delay, self.free)
        self.event(cat, name, start, dur, pid=0, tid=7, **args, stream=7, device=0)
        self.now, self.free = self.now + 2, start + dur

    def call(self, name, dur):
        self.event("cuda_runtime", name, self.now, dur)
        self.now += dur

    @contextmanager
    def op_range(self, name, **args):
        start, index = self.now, len(self.events)
        yield
        self.event("cpu_op", name, start, self.now - start, **args)
        self.events.insert(index, self.events.pop())

    def memory(self, total, device):
        """Record an allocation after which the device holds `total` bytes."""
        change = total - self.allocated.get(device, 0)
        self.allocated[device] = total
        args = {"Total Allocated": total, "Bytes": change, "Device Type": 1, "Device Id": device}
        self.events.append(
            {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1}
            | {"ts": round(self.base + self.now, 3), "s": "t", "args": args}
        )


def engine_run(blocks=8, steps=(1000, 908, 714), layers=4, slow=lambda **where: 0.0):
    """Return the events of an engine's run on a CPU with 2 % jitter; `slow` adds microseconds."""
    clock = CpuTrace()
    jitter = iter(i * 7919 % 101 / 101 for i in range(10**6))

    def work(name, dur):
        clock.op(name, dur * (1 + 0.02 * next(jitter)))

    def forward(**where):
        with clock.tag("DiffusionModel_Forward"):
            for layer in range(layers):
                with clock.tag(f"DiT_Layer_{layer}"):
                    with clock.tag("DiT_Self_Attention"):
                        work("aten::linear", 300)
                    with clock.tag("DiT_Feed_Forward"):
                        work("aten::addmm", 500)
                    clock.wait(slow(layer=layer, **where))

    with clock.tag("1_Data_Preparation"), clock.tag("1.2_VAE_Encode_FirstFrame"):
        work("aten::conv2d", 4000)
    with clock.tag("2_Pipeline_Inference"):
        with clock.tag("2.1_KV_Cache_Initialization"):
            work("aten::zeros", 50)
        for block in range(blocks):
            with clock.tag(f"2.3_Block_{block}"):
                for step, timestep in enumerate(steps):
                    with clock.tag(f"2.3.{block}_Denoising_Step_{step}_t{timestep}"):
                        last = step == len(steps) - 1
                        with clock.tag("Generator_Forward" + "_Final" * last):
                            forward(block=block, step=step)
                with clock.tag(f"2.3.{block}_Update_KV_Cache"):
                    forward(block=block, step=-1)
                with clock.tag(f"2.3.{block}_VAE_Decode"), clock.tag("VAE_Decode_Frame_0"):
                    for part, dur in (("Conv1", 300), ("Upsample_Blocks", 4000), ("Head", 200)):
                        with clock.tag(f"VAE_Dec_{part}"):
                            work("aten::conv2d", dur)
                clock.wait(slow(layer=-1, block=block, step=-2))
    with clock.tag("3_Video_Postprocessing"):
        work("aten::mul", 200)
    return clock.events


def write(path: Path, events, indent=None, config=CONFIG, machine=None, **metadata) -> Path:
    """Write events as a trace, gzipped if the path says so; return the path."""
    document = {"schemaVersion": 1, "traceEvents": events, "traceName": "t"} | metadata
    if config:
        document["glassworld"] = {"version": 1, "config": config, "machine": machine}
    text = json.dumps(document, indent=indent).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path
