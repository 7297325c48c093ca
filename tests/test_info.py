"""`glassworld info`: complete, and of use where something is missing."""

from __future__ import annotations

import builtins
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from glassworld import __version__, info
from glassworld.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    folder = tmp_path / "glassworld"
    folder.mkdir()
    return folder


def test_info_prints_everything_a_bug_report_needs(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {"threads": 2, "measured_at": "2030-01-01T00:00:00+00:00", "load_average": 0.5}
    (cache / "ceilings.json").write_text(json.dumps({"cpu:float32:2": rates, "cpu:float32": {}}))
    (cache / "compiled").mkdir()
    (cache / "compiled" / "code").write_bytes(bytes(2000))
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for name in ("python", "torch", "SIMD", "threads", "GPUs", "play", "train", "dev"):
        assert f"\n  {name}: " in text
    assert f"  glassworld: {__version__}\n" in text
    assert "worlds: drive, maze, run" in text
    measured = "threads 2, measured_at 2030-01-01T00:00:00+00:00, load_average 0.5"
    assert f"    cpu:float32:2: {measured}\n" in text
    assert "    cpu:float32: threads unknown" in text
    assert f"  compiled: {cache / 'compiled'}, 2,000 bytes in 1 files, written 2" in text
    assert f"  Triton's cache: none ({cache.parent / 'triton'})" in text


def test_info_as_json_has_the_same_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert list(facts) == [
        "versions",
        "system",
        "processor",
        "torch",
        "extras",
        "worlds",
        "stored",
    ]
    assert facts["torch"]["threads"] >= 1
    assert facts["stored"]["peak rates"]["bytes"] is None


def test_info_without_torch_or_metadata_says_so(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "torch":
            raise ImportError("libcudart.so: cannot open\nmore")
        return load(name, *rest)

    def not_installed(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(metadata, "version", not_installed)
    monkeypatch.setattr(metadata, "requires", not_installed)
    (cache / "ceilings.json").write_text("{damaged")
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "torch: unknown: ImportError: libcudart.so: cannot open\n" in text
    assert "  av: not installed\n" in text
    assert "extras: unknown: PackageNotFoundError" in text
    assert ", unknown: JSONDecodeError" in text


def test_missing_packages_are_those_of_the_extra_on_this_system() -> None:
    requirements = [
        "numpy>=1.26",
        "absent-one>=2; extra == 'play'",
        "pytest; extra == 'play'",
        "absent-two; extra == 'dev'",
        "absent-three>=1; (platform_system == 'Elsewhere') and extra == 'play'",
        f"absent_four[all]; (platform_system == '{platform.system()}') and extra == 'play'",
    ]
    assert info.missing_packages(requirements, "play") == ["absent-one", "absent_four"]
    assert info.missing_packages(requirements, "train") == []
