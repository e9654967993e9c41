"""Requests to an API server that is not there."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import ClusterConfig
from galley_operator.cluster.errors import ClusterUnreachable
from galley_operator.cluster.resource import TASKS
from tests.support.port import free_port


async def _watched(cluster: Cluster) -> None:
    async for _ in cluster.watch(TASKS):
        pass


REQUESTS: dict[str, Callable[[Cluster], Awaitable[Any]]] = {
    "get tasks": lambda cluster: cluster.get(TASKS, "default", "thumb"),
    "watch tasks": _watched,
    "patch tasks": lambda cluster: cluster.replace_status(TASKS, "default", "thumb", "1", {}),
}


@pytest.mark.parametrize("what", REQUESTS)
async def test_each_kind_of_request_says_what_was_asked_of_which_server(what: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with Cluster(ClusterConfig(url, None)) as cluster:
        with pytest.raises(ClusterUnreachable) as raised:
            await REQUESTS[what](cluster)
    assert url in str(raised.value)
    assert all(word in str(raised.value) for word in what.split())
