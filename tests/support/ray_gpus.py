"""A Ray of this machine that counts GPUs which are not there: workers are placed, none computes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from glassworld.serve.ray_cluster import NAMESPACE, OBJECT_STORE_BYTES, import_ray

TOKEN = secrets.token_hex(32)
"""Ray reads it once in a process; without one it would write its own into the home."""


@contextmanager
def ray_with_gpus(gpus: int) -> Iterator[str]:
    """Run a Ray until the end of the `with`; yield its address, for this and other processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("RAY_AUTH_MODE", "")
        patch.delenv("RAY_AUTH_MODE")  # Ray sets it, for the processes that it starts
        ray = import_ray()
        context = ray.init(
            num_cpus=4,
            num_gpus=gpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            namespace=NAMESPACE,
        )
        try:
            yield str(context.address_info["gcs_address"])
        finally:
            ray.shutdown()


def visible_gpus(_: object) -> str | None:
    """Return the GPUs that Ray shows to the process of an actor: to be run there."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")
