"""Where the repository is, and the shared material that lies beside some checkouts."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"

A_FILE = ROOT / "LICENSE"
"""Nobody can write below it, on any system."""

UNWRITABLE = Path("/proc") if Path("/proc").is_dir() else A_FILE
"""A folder in which nobody can write, where the system has one."""
