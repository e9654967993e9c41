"""A stage for each module: its workers go on from test to test, unless the fault ends them."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from galley_local.nats_server import NatsServer
from tests.failpoints.stage import ArmedWorker, Stage, environment_of, prepare
from tests.support.workers import WorkerProcess


@pytest.fixture(scope="module")
def stage(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One worker."""
    folder, namespace = tmp_path_factory.mktemp("stage"), f"t{secrets.token_hex(5)}"
    queue = asyncio.run(prepare(nats_server.url, namespace))
    worker = ArmedWorker(nats_server.url, queue, folder, "w1", **environment_of(folder))
    yield Stage(nats_server.url, namespace, folder, queue, worker)
    worker.kill()


@pytest.fixture(scope="module")
def stage_of_two(stage: Stage) -> Iterator[Stage]:
    """A worker, and one that takes over when told."""
    stage.reserve = WorkerProcess(stage.url, stage.queue, stage.folder, "w2", **environment_of(stage.folder))
    yield stage
    stage.reserve.kill()
    stage.reserve = None


@pytest.fixture
def stage_for(request: pytest.FixtureRequest, fault: str) -> Stage:
    """What a test of this fault needs."""
    found: Stage = request.getfixturevalue("stage_of_two" if fault == "freeze" else "stage")
    return found
