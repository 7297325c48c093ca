"""Ray: imported late, started quietly, and called with time limits."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from glassworld.errors import InputError, MissingExtraError

NAMESPACE = "glassworld"

DIRECTORY = "directory"
"""The name of the directory's actor."""

OBJECT_STORE_BYTES = 100 * 2**20

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_TQDM_PATCH_PRINT": "0",
}
"""Read by Ray when it is imported or started: no statistics are sent, nothing is announced."""

MAX_FOLDER = 60
"""Ray puts sockets into its folder, whose paths may have 107 bytes in all."""


def import_ray() -> ModuleType:
    """Return Ray; raise `MissingExtraError` if it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingExtraError("ray, which serving on several workers needs", "cluster") from None
    module: ModuleType = ray
    return module


@contextmanager
def local_ray(slots: int) -> Iterator[None]:
    """Run a Ray of this machine alone, with room for `slots` workers; then remove its files.

    Its ports listen on all addresses, and want a token, which would otherwise be stored for good.
    """
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray = import_ray()
    folder = Path(tempfile.mkdtemp(prefix="gw-"))
    if len(str(folder)) > MAX_FOLDER:
        folder.rmdir()
        raise InputError(
            f"{folder}: too long a path for Ray's sockets; set TMPDIR to a shorter one"
        )
    try:
        ray.init(
            num_cpus=slots,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            namespace=NAMESPACE,
            _temp_dir=str(folder),
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def joined_ray(address: str) -> Iterator[None]:
    """Join a running cluster; raise `InputError` if there is none."""
    ray = import_ray()
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", namespace=NAMESPACE)
    except ray.exceptions.AuthenticationError:
        raise InputError(
            f"--cluster {address}: the cluster wants a token; set RAY_AUTH_TOKEN to that of the "
            "cluster"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"--cluster {address}: no Ray cluster there ({reason}); start one or name another"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


async def answer(reference: Any, seconds: float) -> Any:
    """Return the result of an actor's method; raise `TimeoutError` if it takes too long."""
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(reference.future())


def actor_named(name: str) -> Any:
    """Return the actor of that name; raise `ValueError` if there is none."""
    return import_ray().get_actor(name, namespace=NAMESPACE)


def actor_errors() -> tuple[type[Exception], ...]:
    """Return what calling an actor raises if its process has died or restarts, or if it fails."""
    ray = import_ray()
    return (ray.exceptions.RayError, TimeoutError, ValueError)
