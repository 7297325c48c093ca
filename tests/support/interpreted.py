"""Run Triton kernels by its interpreter, on a CPU: import this before modules with kernels."""

import os

import pytest

os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined, Triton's own included
pytest.importorskip("triton")
