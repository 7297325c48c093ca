"""Triton kernels on a processor: import this before what imports them."""

import os

import pytest

os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined, Triton's own ones included
pytest.importorskip("triton")
