"""How a world is named and loaded: the fields that `load_world` and every command's flags share.

To add a flag, add a field here, a keyword to `load_world`, and use it. The commands take it from
the field's `Flag`. Nothing heavy is imported, so that `--help` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from glassworld.engine.variants import variant_names
from glassworld.errors import InputError

WORLD, SPEED = "World", "Speed"


class Flag(NamedTuple):
    """How a field of `LoadOptions` looks on the command line."""

    help: str
    panel: str
    kind: type = str
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None  # from the command line's text to the field's value


def split_parts(text: str) -> tuple[str, ...]:
    """Split a command line's list of parts at its commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _flag(help: str, panel: str, kind: type = str, **more: Any) -> dict[str, Flag]:
    """Return a field's metadata."""
    return {"flag": Flag(help, panel, kind, **more)}


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Which world to load, and how to run it; `load_world` says what each field means."""

    world: str | Path | None = field(
        default=None,
        metadata=_flag(
            "The name of an embedded world (drive, maze, run), the folder of a world, or a "
            "repository of the Hugging Face hub (owner/name).",
            WORLD,
            metavar="WORLD",
        ),
    )
    variant: str | None = field(
        default=None,
        metadata=_flag(
            "The released model to take from a folder or repository: "
            f"{', '.join(variant_names())}.",
            WORLD,
            metavar="NAME",
        ),
    )
    config_path: str | Path | None = field(
        default=None, metadata=_flag("A world's inference YAML.", WORLD, Path)
    )
    checkpoint_path: str | Path | None = field(
        default=None,
        metadata=_flag("The transformer: .safetensors, its .index.json, or .pth.", WORLD, Path),
    )
    pretrained_model_path: str | Path | None = field(
        default=None,
        metadata=_flag("The model folder, or its name on the hub.", WORLD, metavar="PATH"),
    )
    random_weights: bool = field(
        default=False, metadata=_flag("Use untrained weights: noise, for timing only.", WORLD, bool)
    )
    device: str = field(
        default="auto",
        metadata=_flag("auto takes a GPU if there is one.", SPEED, metavar="auto|cpu|cuda|cuda:N"),
    )
    dtype: str | None = field(
        default=None,
        metadata=_flag("Default: what suits the device.", SPEED, metavar="float32|mixed|bfloat16"),
    )
    vae_compile_mode: str = field(
        default="auto",
        metadata=_flag(
            "none: run the VAE decoder as it is. force: compile it now and store the result. auto: "
            "use a stored result that fits; never wait.",
            SPEED,
            metavar="auto|force|none",
        ),
    )
    accelerate: tuple[str, ...] = field(
        default=(),
        metadata=_flag(
            "On a GPU: kernels,graphs (same results; kernels compile once). Also attention, "
            "convolutions, layers (same results), int8, float8 (nearly the same).",
            SPEED,
            metavar="PART,...",
            parse=split_parts,
        ),
    )
    tiny_decoder: str | Path | None = field(
        default=None,
        metadata=_flag("Decode by these TAEHV weights (taew2_1): faster.", SPEED, Path),
    )

    @property
    def needs_gpu(self) -> bool:
        """Whether a worker of a cluster, for which `on_cluster` made these, needs its own GPU."""
        return not self.device.startswith("cpu")

    def check_cluster_device(self) -> None:
        """Raise `InputError` for a numbered GPU: Ray chooses one for each worker.

        A worker sees that one alone, as number 0, so any other number would fail there.
        """
        if self.device.startswith("cuda:"):
            raise InputError(
                f"device {self.device!r}: Ray gives each worker a GPU of its own; use device cuda"
            )

    def on_cluster(self, gpus: float) -> LoadOptions:
        """Return these options for the workers of a Ray cluster that has so many GPUs.

        "auto" is a GPU for each worker where there are any, and else "cpu": a worker without a GPU
        of its own would share one that Ray has not counted. It stays "auto" beside a GPU, which
        the worker's torch may not be able to use.
        """
        return replace(self, device="cpu") if self.device == "auto" and gpus < 1 else self

    def keywords(self, *without: str) -> dict[str, Any]:
        """Return the keywords of `load_world` that these options are, as JSON values."""
        values = {name: getattr(self, name) for name in FLAGS if name not in without}
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in values.items()
        }


FLAGS: dict[str, tuple[Field[Any], Flag]] = {
    option.name: (option, option.metadata["flag"]) for option in fields(LoadOptions)
}
"""The fields by name, each with its flag."""
