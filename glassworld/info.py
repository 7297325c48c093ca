"""`glassworld info`: what this installation consists of and what it stored, for a bug report.

Every fact is looked up on its own: one that is missing or broken is reported as such, because an
installation that needs a report is often a broken one.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from glassworld import __version__
from glassworld.files import cache_folder, compiled_folder
from glassworld.trace.analyzers.peak_rates import peak_rates_path

Facts = dict[str, Any]

PACKAGES = ("torch", "numpy", "av", "triton")
EXTRAS = ("play", "train", "batch", "bench", "cluster", "sql", "mcp", "dev")
WORLDS = Path(__file__).resolve().parent / "worlds"
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def collect_info() -> Facts:
    """Return all facts as JSON values, by section; never raises."""
    sections: dict[str, Callable[[], Any]] = {
        "versions": _versions,
        "system": _system,
        "processor": _processor,
        "torch": _torch,
        "extras": _extras,
        "worlds": _worlds,
        "stored": _stored,
    }
    return {name: _try(section) for name, section in sections.items()}


def _try(look_up: Callable[[], Any]) -> Any:
    """Return a fact, or the reason why there is none: a broken installation has any."""
    try:
        return look_up()
    except Exception as error:
        return f"unknown: {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _versions() -> Facts:
    versions: Facts = {"glassworld": __version__, "python": platform.python_version()}
    return versions | {name: _version(name) or "not installed" for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:  # no Linux, or one without the file
        name = ""
    return ", ".join(filter(None, (name, platform.platform())))


def _processor() -> Facts:
    """Describe the processor; its SIMD level is torch's to say."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "name": _processor_name(),
        "cores": os.cpu_count(),
        "usable cores": usable,
        "load average": _try(_load_average),
    }


def _load_average() -> float | None:
    if sys.platform == "win32":
        return None
    return round(os.getloadavg()[0], 2)


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _torch() -> Facts:
    import torch  # slow to import, and the likeliest to be broken

    return {
        "SIMD": _try(torch.backends.cpu.get_cpu_capability),
        "threads": torch.get_num_threads(),
        "thread settings": {
            name: os.environ[name] for name in THREAD_SETTINGS if name in os.environ
        },
        "CUDA": torch.version.cuda or "not in this build of torch",
        "GPUs": _try(lambda: _gpus(torch)),
    }


def _gpus(torch: Any) -> list[str]:
    gpus = []
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        memory = f"{gpu.total_memory / 2**30:.0f} GiB"
        gpus.append(f"{gpu.name}, {memory}, compute capability {gpu.major}.{gpu.minor}")
    return gpus


def _extras() -> Facts:
    """Return the missing packages of each extra; an installed extra lacks none."""
    requirements = metadata.requires("glassworld") or []
    return {extra: missing_packages(requirements, extra) for extra in EXTRAS}


def missing_packages(requirements: list[str], extra: str) -> list[str]:
    """Return the names of an extra's packages that are not installed and needed on this system."""
    missing = []
    for requirement in requirements:
        text, _, marker = requirement.partition(";")
        if not re.search(rf"extra\s*==\s*['\"]{extra}['\"]", marker):
            continue
        wanted = re.search(r"platform_system\s*==\s*['\"](\w+)['\"]", marker)
        if wanted and wanted[1] != platform.system():
            continue
        name = re.split(r"[^\w.-]", text.strip())[0]
        if _version(name) is None:
            missing.append(name)
    return missing


def _worlds() -> list[str]:
    return sorted(path.parent.name for path in WORLDS.glob("*/transformer.safetensors"))


def _stored() -> Facts:
    """Return the files that this user's runs left behind."""
    triton = os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache"
    return {
        "folder": str(cache_folder()),
        "peak rates": _try(_peak_rates),
        "compiled": _try(lambda: describe_path(compiled_folder())),
        "Triton's cache": _try(lambda: describe_path(Path(triton))),
        "autotune choices": "not stored: measured again whenever a world loads",
    }


def _peak_rates() -> Facts:
    path = peak_rates_path()
    facts = describe_path(path)
    if path.is_file():
        facts["entries"] = _try(lambda: _peak_rate_entries(path))
    return facts


def _peak_rate_entries(path: Path) -> Facts:
    """Return under which conditions each of the stored peak rates was measured."""
    names = ("threads", "measured_at", "load_average")
    return {
        key: {name: rates.get(name, "unknown") for name in names}
        for key, rates in json.loads(path.read_bytes()).items()
    }


def describe_path(path: Path) -> Facts:
    """Return where a file or folder is, its bytes, and when anything in it was last written."""
    if not path.exists():
        return {"path": str(path), "bytes": None}
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    states = [file.stat() for file in files]
    facts: Facts = {"path": str(path), "bytes": sum(state.st_size for state in states)}
    if path.is_dir():
        facts["files"] = len(files)
    if states:
        newest = max(state.st_mtime for state in states)
        facts["written"] = datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds")
    return facts


def print_info(as_json: bool) -> None:
    """Print all facts, as JSON or as text to paste into a bug report."""
    info = collect_info()
    if as_json:
        json.dump(info, sys.stdout, indent=1)
        print()
        return
    for section, facts in info.items():
        if not isinstance(facts, dict):
            print(f"{section}: {_text(facts)}")
            continue
        print(f"{section}:")
        for name, fact in facts.items():
            print(f"  {name}: {_extra_text(fact) if section == 'extras' else _text(fact)}")
            if isinstance(fact, dict):
                for key, conditions in _entries(fact).items():
                    print(f"    {key}: {_text(conditions)}")


def _entries(fact: Facts) -> Facts:
    entries = fact.get("entries")
    return entries if isinstance(entries, dict) else {}


def _extra_text(missing: object) -> str:
    names = _text(missing)
    return f"missing {names}" if missing else "installed"


def _text(fact: object) -> str:
    """Return a fact on one line."""
    if isinstance(fact, dict) and "bytes" in fact:
        return _path_text(fact)
    if isinstance(fact, dict):
        return ", ".join(f"{name} {_text(value)}" for name, value in fact.items()) or "none"
    if isinstance(fact, list):
        return ", ".join(map(str, fact)) or "none"
    return "unknown" if fact is None else str(fact)


def _path_text(fact: Facts) -> str:
    if fact["bytes"] is None:
        return f"none ({fact['path']})"
    files = f" in {fact['files']} files" if "files" in fact else ""
    written = f", written {fact['written']}" if "written" in fact else ""
    damaged = f", {fact['entries']}" if isinstance(fact.get("entries"), str) else ""
    return f"{fact['path']}, {fact['bytes']:,} bytes{files}{written}{damaged}"
