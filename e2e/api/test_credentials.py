"""The keys for NATS and the credentials of queues, as Secrets of a real API server."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.api.operator_process import operator
from e2e.api.queue_stage import Stage
from galley import call, connect
from galley.broker.connection import Broker
from galley.broker.creds_file import read_creds
from galley.broker.permissions import Role
from galley_local.nats_server import NatsServer
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.key_secret import entries_of, key_secret, keys_in
from galley_operator.credentials.queue_secrets import FILE_KEY, QueueSecrets, secret_name
from galley_operator.errors import KeysNotFound
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats
from tests.support.port import free_port
from tests.support.workers import a_task_queue, workers

KEYS = "nats-auth"
QUEUE = "drills"
WEEK = 7 * 24 * 3600


@pytest.fixture
async def cluster(galley_api: ApiServer) -> AsyncIterator[Cluster]:
    async with Cluster(load_config(galley_api.kubeconfig)) as connected:
        yield connected


@pytest.fixture
async def stage(galley_api: ApiServer, nats_server: NatsServer, api_namespace: str) -> AsyncIterator[Stage]:
    async with Broker(nats_server.url, name="test") as broker:
        yield Stage(galley_api, broker, api_namespace)


def settings(namespace: str, **more: Any) -> dict[str, Any]:
    told = {"namespaces": namespace, "lease_namespace": namespace, "install": namespace, "sweep_seconds": 1}
    return {**told, "auth_secret": KEYS, "make_keys": True, **more}


def written(stage: Stage, role: Role, folder: Path) -> Path:
    """Write a queue's credentials to a file, as a pod that mounts the Secret has them."""
    secret = stage.get("secret", secret_name(role, QUEUE))
    path = folder / f"{role}.creds"
    path.write_text(entries_of(secret)[FILE_KEY])
    return path


@pytest.fixture
def nats_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "guarded"
    folder.mkdir()
    return folder


@pytest.fixture
def servers() -> Iterator[list[GuardedNats]]:
    """What a test starts, to be ended."""
    started: list[GuardedNats] = []
    yield started
    for server in started:
        server.kill()


async def test_from_nothing_to_a_task_that_ran_with_credentials_for_all(
    stage: Stage, nats_folder: Path, servers: list[GuardedNats], tmp_path: Path
) -> None:
    port = free_port()
    stage.apply(QUEUE)
    with operator(
        stage.api.kubeconfig, f"nats://127.0.0.1:{port}", tmp_path, **settings(stage.namespace)
    ) as running:
        # NATS waits for its part of the Secret, and the operator for NATS.
        await eventually(lambda: stage.there("secret", KEYS), within=20)
        nats = GuardedNats(nats_folder, entries_of(stage.get("secret", KEYS)), port)
        servers.append(nats)
        await eventually(lambda: running.leads, within=30)
        await eventually(lambda: stage.there("deployment"), within=20)
        creds = {role: written(stage, role, tmp_path) for role in Role}
        owners = stage.get("secret", secret_name(Role.WORKER, QUEUE))["metadata"]["ownerReferences"]
        assert [owner["name"] for owner in owners] == [QUEUE]
        queue = a_task_queue(stage.namespace, QUEUE)
        with workers(nats.url, queue, tmp_path, GALLEY_CREDENTIALS=str(creds[Role.WORKER])):
            async with connect(nats.url, stage.namespace, credentials=creds[Role.PRODUCER]) as client:
                assert await (await client.submit(call(QUEUE, "echo", value=7))).result(30) == 7
        before = read_creds(creds[Role.WORKER]).token
        stage.delete("secret", secret_name(Role.WORKER, QUEUE))
        stage.change("secret", secret_name(Role.PRODUCER, QUEUE), {"data": {FILE_KEY: "bm8="}})
        await eventually(lambda: stage.there("secret", secret_name(Role.WORKER, QUEUE)), within=20)
        assert read_creds(written(stage, Role.WORKER, tmp_path)).token != before

        def mended() -> bool:
            secret = stage.get("secret", secret_name(Role.PRODUCER, QUEUE))
            return "BEGIN NATS USER JWT" in entries_of(secret)[FILE_KEY]

        await eventually(mended, within=20)
        assert "Violation" not in nats.log
        assert running.stop() == 0


async def test_keys_that_others_make_are_waited_for_by_name(
    stage: Stage, nats_folder: Path, servers: list[GuardedNats], tmp_path: Path
) -> None:
    nats = GuardedNats(nats_folder)
    servers.append(nats)
    told = settings(stage.namespace, make_keys=False)
    with operator(stage.api.kubeconfig, nats.url, tmp_path, **told) as running:
        said = await eventually(lambda: running.logged("no way into the broker"), within=20)
        assert f"there is no Secret {stage.namespace}/{KEYS}" in said[0]["error"]
        assert "kubectl" in said[0]["hint"]
        keys = {"account": nats.account.public, "account.seed": nats.account.signer.seed}
        data = {key: base64.b64encode(text.encode()).decode() for key, text in keys.items()}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS}, "data": data}
        stage.api.kubectl.apply(secret, namespace=stage.namespace)
        await eventually(lambda: running.leads, within=30)


async def test_several_replicas_make_one_set_of_keys(cluster: Cluster, api_namespace: str) -> None:
    found = await asyncio.gather(
        *(keys_in(cluster, api_namespace, KEYS, make=True) for _ in range(8)),
    )
    assert len({(keys.account.public, keys.account.signer.public) for keys in found}) == 1
    with pytest.raises(KeysNotFound):
        await keys_in(cluster, api_namespace, "other", make=False)


async def test_secrets_are_written_only_when_it_is_time(cluster: Cluster, api_namespace: str) -> None:
    await cluster.create(SECRETS, key_secret(api_namespace, KEYS, 0))
    keys = await keys_in(cluster, api_namespace, KEYS, make=False)
    now = 1_800_000_000.0
    secrets = QueueSecrets(cluster, keys.account, clock=lambda: now)

    async def versions() -> list[str]:
        await secrets.ensure(api_namespace, QUEUE, {"labels": {"galley.dev/queue": QUEUE}})
        found = [await cluster.get(SECRETS, api_namespace, secret_name(role, QUEUE)) for role in Role]
        return [each["metadata"]["resourceVersion"] for each in found]

    first = await versions()
    now += WEEK / 3 - 10
    assert await versions() == first
    now += 20
    assert not set(await versions()) & set(first)
