# ruff: noqa: ASYNC240 - the file is small
"""The objects of tasks in a worker."""

import hashlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

from galley.address import Kind, TaskAddress
from galley.broker.connection import Broker
from galley.envelope import Envelope
from galley.lanes import Lane
from galley.objects.node_cache import NodeCache
from galley.objects.store import Objects
from galley.reference import Reference
from galley_worker.objects import TaskObjects

ADDRESS = TaskAddress("default", "q", Lane.NORMAL, Kind.DIRECT, "one")


async def test_an_input_that_is_stored_needs_no_name(tmp_path: Path) -> None:
    """A producer may write one all the same."""
    data = b"[1]"
    large = Reference(hashlib.sha256(data).hexdigest(), len(data), name="x.json")

    async def fetch() -> AsyncGenerator[bytes, None]:
        yield data

    with NodeCache(tmp_path) as cache:
        async with cache.holding([(large, fetch)]):
            pass
        objects = TaskObjects(Objects(Broker("nats://127.0.0.1:1", name="test")), cache)
        task = Envelope("h", datetime.now(UTC), v=3, large=large)
        async with objects.of(ADDRESS, task) as here:
            assert (Path(here.large).read_bytes(), here.files) == (data, {})
