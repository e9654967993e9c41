"""The Secret with the credentials of `galley backup`, on a real API server and a NATS with accounts."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from galley.backup.destination import Folder
from galley.backup.take import take_backup
from galley.broker.connection import Broker
from galley.broker.creds_file import parse_creds
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.backup_secret import BackupSecret
from galley_operator.credentials.client_tls import ClientTls
from galley_operator.credentials.key_secret import entries_of
from galley_operator.credentials.queue_secrets import FILE_KEY
from galley_operator.credentials.registrar import Registrar
from galley_operator.errors import NameTaken
from tests.support.api_server import ApiServer
from tests.support.backups import KEY
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats

WEEK = 7 * 24 * 3600


@pytest.fixture
async def cluster(galley_api: ApiServer) -> AsyncIterator[Cluster]:
    async with Cluster(load_config(galley_api.kubeconfig)) as connected:
        yield connected


@pytest.fixture
def own_guarded_nats(tmp_path: Path) -> Iterator[GuardedNats]:
    folder = tmp_path / "guarded"
    folder.mkdir()
    server = GuardedNats(folder)
    yield server
    server.kill()


async def entries(cluster: Cluster, namespace: str) -> dict[str, str]:
    return entries_of(await cluster.get(SECRETS, namespace, "nats-backup"))


async def test_the_secret_is_made_renewed_and_good_for_a_backup(
    cluster: Cluster, api_namespace: str, own_guarded_nats: GuardedNats, tmp_path: Path
) -> None:
    place, now = (api_namespace, "nats-backup"), [0.0]
    tls = [ClientTls(ca="one")]
    async with own_guarded_nats.operator(), own_guarded_nats.directory() as directory:
        registrar = Registrar(own_guarded_nats.authority, directory)
        await registrar.ensure_streams()
        now[0] = time.time()
        secret = BackupSecret(
            cluster, own_guarded_nats.account, registrar, place, tls=lambda: tls[0], clock=lambda: now[0]
        )
        await secret.ensure()
        first = await entries(cluster, api_namespace)
        assert first["ca.crt"] == "one"
        path = tmp_path / "backup.creds"
        path.write_text(first[FILE_KEY])
        async with Broker(own_guarded_nats.url, name="test", credentials=path) as broker:
            await take_backup(broker, Folder(tmp_path), KEY)
        await secret.ensure()
        assert await entries(cluster, api_namespace) == first
        tls[0] = ClientTls(ca="two")
        await secret.ensure()
        second = await entries(cluster, api_namespace)
        assert second["ca.crt"] == "two"
        now[0] += WEEK / 2
        await secret.ensure()
        third = await entries(cluster, api_namespace)
        ends = [parse_creds(each[FILE_KEY], "test").claims.exp for each in (second, third)]
        assert ends[1] - ends[0] == pytest.approx(WEEK / 2, abs=5)


async def test_a_secret_of_others_is_left_alone_and_looked_at_again(
    cluster: Cluster, api_namespace: str, own_guarded_nats: GuardedNats, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = {"metadata": {"namespace": api_namespace, "name": "nats-backup"}, "stringData": {"a": "b"}}
    await cluster.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", **theirs})
    # With the key of one account only, the credentials are for a user of that account.
    secret = BackupSecret(cluster, own_guarded_nats.account, None, (api_namespace, "nats-backup"))
    with pytest.raises(NameTaken):
        await secret.ensure()
    running = asyncio.create_task(secret.run())
    try:
        await eventually(lambda: "credentials not renewed" in caplog.text, within=30)
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert await entries(cluster, api_namespace) == {"a": "b"}
    await cluster.delete(SECRETS, api_namespace, "nats-backup")
    await secret.ensure()
    assert FILE_KEY in await entries(cluster, api_namespace)
