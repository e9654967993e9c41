"""Has the facts about the server in memory wait for nothing."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.support.virtual_time import VirtualLoop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run one module in virtual time, and the others as ever."""
    virtual = item.nodeid.split("::")[0].endswith("test_memory_nats.py")
    return {"virtual": VirtualLoop} if virtual else {"asyncio": asyncio.new_event_loop}
