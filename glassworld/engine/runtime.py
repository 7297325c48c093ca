"""Device, precision, memory and compilation: the policies of a machine, not of a world."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glassworld.errors import InputError
from glassworld.specs import WorldSpec

if TYPE_CHECKING:
    from glassworld.engine.world import Networks

DTYPES = {"float32": torch.float32, "mixed": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """Return the device of this name, if this machine has it; "auto": a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r}: must be cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise InputError(f"device {name!r}: must be cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        found = f"only {count} CUDA devices are" if count else "no CUDA device is"
        raise InputError(f"device {name!r}: {found} here; try --device cpu")
    return device


@dataclass(frozen=True)
class Precision:
    """The type of the transformer and the image tower, of the VAE, and what decoding runs in."""

    dit: torch.dtype
    vae: torch.dtype
    decoding: torch.dtype

    @staticmethod
    def of(device: torch.device, name: str | None) -> Precision:
        """What `name` asks for, or what suits the device.

        On a GPU that is, as in the reference, bfloat16 and for the VAE float16; on a CPU all is
        float32, which is exact. "mixed" is float32 with the decoder in bfloat16: quicker where
        the processor multiplies bfloat16 natively, its pictures 49 dB from the exact ones.
        """
        cpu = device.type == "cpu"
        name = name or ("float32" if cpu else "bfloat16")
        if name not in DTYPES:
            raise InputError(f"dtype {name!r}: must be one of {', '.join(DTYPES)}")
        dit = DTYPES[name]
        vae = dit if cpu or dit is torch.float32 else torch.float16
        return Precision(dit, vae, torch.bfloat16 if name == "mixed" else vae)


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have the C library keep the memory that a block frees for the next one.

    Left to itself glibc gives large tensors back to the system, and every block pays for their
    pages anew: thousands of faults, a tenth of its time. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    library, most = ctypes.CDLL(None), 2**31 - 1
    if hasattr(library, "mallopt"):  # musl has none
        library.mallopt(M_MMAP_THRESHOLD, most)
        library.mallopt(M_TRIM_THRESHOLD, most)
        library.mallopt(M_TOP_PAD, 64 * 2**20)


ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the new name and the old one


def enlarge_device_memory() -> None:
    """Have torch enlarge what it took from a GPU instead of taking more pieces of fixed sizes.

    What a decoder frees then serves a transformer: of a released world's peak a gigabyte goes.
    To be called before CUDA is set up, which reads the environment; a setting already there stays.
    """
    if not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


def threads_beside_others() -> int:
    """How many of torch's threads leave a core to the rest of the program, where there are two.

    Threads that wait for one another stand still whenever anything else takes a core from one of
    them. A number given by OMP_NUM_THREADS stays.
    """
    threads = torch.get_num_threads()
    return threads if "OMP_NUM_THREADS" in os.environ else max(1, threads - 1)


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Have so many threads do what is asked for from this one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class HostCopy:
    """A tensor on its way to the host, while the device goes on with what was asked for after."""

    def __init__(self, source: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._tensor = source
        if source.device.type == "cuda":
            self._tensor = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
            self._tensor.copy_(source, non_blocking=True)
            self._arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(source.device))

    def wait(self, rows: slice = slice(None)) -> Tensor:
        """The tensor on the host, or those `rows` of it."""
        if self._arrived is None:
            return self._tensor[rows]
        self._arrived.synchronize()
        return self._tensor[rows].clone()  # pinned memory is dear: the next block's needs it again


def sent(x: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`x` on the device and of that type, without waiting for what the device is doing.

    Torch copies from pageable memory only once the device has come so far, and other types by
    way of such memory.
    """
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.to(dtype).pin_memory()
    return x.to(device, dtype, non_blocking=True)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def session_bytes(spec: WorldSpec, size: int) -> int:
    """What a session's key and value rings take, at `size` bytes a number."""
    dit, action = spec.dit, spec.dit.action
    per_frame = dit.num_layers * spec.tokens_per_frame * dit.dim
    per_frame += len(action.layers) * action.keyboard_width
    if action.mouse_dim:
        per_frame += len(action.layers) * spec.tokens_per_frame * action.mouse_width
    return 2 * size * dit.window * per_frame


def check_memory(
    spec: WorldSpec, networks: Networks, device: torch.device, precision: Precision
) -> None:
    """Raise `InputError` if the weights and one session cannot fit into free memory."""
    parts = (
        (networks.dit, precision.dit),
        (networks.vision, precision.dit),
        (networks.encoder, precision.vae),
        (networks.decoder, precision.vae),
    )
    needed = session_bytes(spec, precision.dit.itemsize) + sum(
        weight.numel() * dtype.itemsize for part, dtype in parts for weight in part.parameters()
    )
    free = _free_bytes(device)
    if free is not None and needed > free:
        raise InputError(
            f"too little memory on {device}: this world needs {needed / 1e9:.1f} GB for weights "
            f"and one session, {free / 1e9:.1f} GB are free; try --dtype bfloat16 or another device"
        )


def check_room(spec: WorldSpec, frames: int) -> None:
    """Raise `InputError` if memory cannot hold so many pixel frames, with keys and without."""
    needed = 2 * 3 * frames * spec.height * spec.width
    free = _free_bytes(torch.device("cpu"))
    if free is not None and needed > free:
        raise InputError(
            f"num_output_frames: {frames} pixel frames need {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free; ask for fewer and go on from their latents"
        )


def _free_bytes(device: torch.device) -> int | None:
    """Free memory of a device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def cache_folder() -> Path:
    """Where compiled artefacts and measurements of this user's machine are kept."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "glassworld"
