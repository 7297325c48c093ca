"""Compile a tiny world's kernels for a GPU that this machine does not have.

    python -m tests.support.without_a_gpu 90

prints how many kernels were compiled ahead for GPUs of compute capability 9.0, and how many more a
block of the world asked for. Everything but loading and launching kernels is Triton's own code.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver

from glassworld.engine.acceleration import precompile
from glassworld.engine.acceleration.parts import compile_ahead, use_kernels
from glassworld.engine.world import World
from glassworld.models.kernels.norm_residual import FLOAT8
from glassworld.models.ops.quantized import quantize_layers
from glassworld.specs import VAESpec
from tests.support import tiny

FIRST_FLOAT8 = 89
compiled: list[str] = []


class Launcher:
    """Stands in for a loaded kernel; calling it does nothing."""

    def __init__(self, source: Any, metadata: Any) -> None:
        compiled.append(source.fn.__name__)

    def __call__(self, *args: Any) -> None:
        pass


class Loader:
    """Stands in for the code that loads binaries on a GPU."""

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, ...]:
        return 1, 1, 0, 0, 1024  # module, function, registers, spills, threads at most

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 99 * 1024}  # the smallest of all GPUs


class Driver(DriverBase):  # type: ignore[misc]  # triton has no types
    """Presents the CPU as a GPU."""

    launcher_cls = Launcher

    def __init__(self, capability: int) -> None:
        self.utils, self._target = Loader(), GPUTarget("cuda", capability, 32)

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> None:
        return None

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def half_precision_world() -> World:
    """Return a tiny world in the dtypes that a GPU uses."""
    # All stages of the decoder are alike: the kernels are compiled for each number of channels.
    world = tiny.world(vae=VAESpec(width=4, multiples=(1, 1, 1, 1), residual_blocks=1))
    networks = world.networks
    networks.dit.bfloat16()
    networks.encoder.half()
    networks.decoder.half()
    return World(world.spec, networks, "tiny")


def main() -> None:
    capability = int(sys.argv[1])
    driver.set_active(Driver(capability))
    worlds = [half_precision_world()]
    if capability >= FIRST_FLOAT8:
        worlds.append(half_precision_world())
        quantize_layers(worlds[1].networks.dit.blocks, FLOAT8)
    for world in worlds:
        use_kernels(world.networks)
        compile_ahead(world.spec, world.networks)
    ahead = len(compiled)
    with torch.inference_mode():
        for world in worlds:
            precompile.run_transformer(world.spec, world.networks)
            precompile.run_decoder(world.spec, world.networks)
    print(ahead, len(compiled) - ahead)


if __name__ == "__main__":
    main()
