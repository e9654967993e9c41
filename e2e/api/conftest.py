"""Fixtures of the tests on an API server alone."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from e2e.api.operator_process import OperatorProcess, operator
from e2e.api.queue_stage import Stage, settings_for
from e2e.api.scene import Scene
from galley.broker.connection import Broker
from galley_local.nats_server import NatsServer
from tests.support.api_server import ApiServer

CRDS = Path(__file__).parent.parent.parent / "crds"


@pytest.fixture(scope="session")
def galley_api(api_server: ApiServer) -> ApiServer:
    """The API server with our kinds."""
    api_server.kubectl("apply", "--server-side", "-f", str(CRDS))
    api_server.kubectl("wait", "--for=condition=Established", "--timeout=20s", "-f", str(CRDS))
    return api_server


@pytest.fixture
def scene(galley_api: ApiServer, nats_server: NatsServer, api_namespace: str, tmp_path: Path) -> Scene:
    """A namespace for the Tasks of one test."""
    return Scene(galley_api, nats_server.url, api_namespace, tmp_path)


@pytest.fixture
async def stage(galley_api: ApiServer, nats_server: NatsServer, api_namespace: str) -> AsyncIterator[Stage]:
    """A namespace for the queues of one test."""
    async with Broker(nats_server.url, name="test") as broker:
        yield Stage(galley_api, broker, api_namespace)


@pytest.fixture
def running(stage: Stage, nats_server: NatsServer, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator that serves the namespace of `stage`."""
    with operator(
        stage.api.kubeconfig, nats_server.url, tmp_path, **settings_for(stage.namespace)
    ) as process:
        yield process
