"""Which device a world runs on, and in which types of numbers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch

from glassworld.errors import InputError

DTYPES = {"float32": torch.float32, "mixed": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """Return the device of this name, if this machine has it; "auto": a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = device_called(name)
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        present = f"only {count} CUDA devices" if count else "no CUDA device"
        raise InputError(f"device {name!r}: this machine has {present}; try device cpu")
    return device


def device_called(name: str) -> torch.device:
    """Return the device of this name, whether or not this machine has it."""
    with suppress(RuntimeError):  # no device has this name
        device = torch.device(name)
        if device.type in ("cpu", "cuda"):
            return device
    raise InputError(f"device {name!r}: must be cpu, cuda or cuda:N")


def has_fast_bfloat16(device: str) -> bool:
    """Tell whether a type of device, `cpu` or `cuda`, multiplies bfloat16 natively."""
    return device == "cuda" or torch.cpu._is_avx512_bf16_supported()


@dataclass(frozen=True)
class Precision:
    """The types of the transformer and the image tower, of the VAE, and of decoding."""

    dit: torch.dtype
    vae: torch.dtype
    decoding: torch.dtype

    @staticmethod
    def of(device: torch.device, name: str | None) -> Precision:
        """Return the precision called `name`, or by default the one that suits the device.

        On a GPU that is, as in the reference, bfloat16 and for the VAE float16; on a CPU all is
        float32, which is exact. "mixed" is float32 with the decoder in bfloat16: quicker where
        the processor multiplies bfloat16 natively, its frames at 49 dB PSNR against the exact ones.
        """
        cpu = device.type == "cpu"
        name = name or ("float32" if cpu else "bfloat16")
        if name not in DTYPES:
            raise InputError(f"dtype {name!r}: must be one of {', '.join(DTYPES)}")
        dit = DTYPES[name]
        vae = dit if cpu or dit is torch.float32 else torch.float16
        return Precision(dit, vae, torch.bfloat16 if name == "mixed" else vae)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
