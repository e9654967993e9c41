"""Certificates and keys of NATS, made and renewed by the whole operator on a real API server."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.api.operator_process import operator
from e2e.api.queue_stage import Stage
from e2e.api.test_credentials import KEYS, QUEUE, settings, written
from galley import Tls, call, connect
from galley.broker.connection import Broker
from galley.broker.permissions import Role
from galley_local.nats_server import NatsServer
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.errors import ObjectNotFound
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.key_secret import entries_of
from galley_operator.credentials.queue_secrets import secret_name
from galley_operator.credentials.server_secret import NEW_AUTHORITY
from galley_operator.credentials.store_key import ensure_store_key
from galley_operator.errors import StoreEncrypted
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats
from tests.support.port import free_port
from tests.support.tls_nats import Authority
from tests.support.workers import a_task_queue, workers

SERVER, STORE, THEIRS = "nats-server", "nats-store", "theirs"


class EncryptedNats(GuardedNats):
    """A server that shows the certificate of the operator's Secret, beside the accounts of the other one."""

    def __init__(self, folder: Path, keys: dict[str, str], port: int, entries: dict[str, str]) -> None:
        self._entries = entries
        super().__init__(folder, keys, port)

    def _configure(self) -> None:
        super()._configure()
        self.mount(self._entries)
        with (self.folder / "nats.conf").open("a") as config:
            config.write('tls { cert_file: "tls.crt", key_file: "tls.key" }\ninclude tag.conf\n')

    def _start(self) -> Any:
        config = self.folder / "nats.conf"
        text = config.read_text()
        for name in ("tls.crt", "tls.key"):
            text = text.replace(f'"{name}"', f'"{self.folder / name}"')
        config.write_text(text)
        return super()._start()

    def mount(self, entries: dict[str, str]) -> None:
        """Write what the server is shown of the Secret, as the kubelet does."""
        for name in ("tls.crt", "tls.key", "tag.conf"):
            (self.folder / name).write_text(entries[name])


@pytest.fixture
async def cluster(galley_api: ApiServer) -> AsyncIterator[Cluster]:
    async with Cluster(load_config(galley_api.kubeconfig)) as connected:
        yield connected


@pytest.fixture
async def stage(galley_api: ApiServer, nats_server: NatsServer, api_namespace: str) -> AsyncIterator[Stage]:
    async with Broker(nats_server.url, name="test") as broker:
        yield Stage(galley_api, broker, api_namespace)


@pytest.fixture
def servers() -> Iterator[list[GuardedNats]]:
    """What a test starts, to be ended."""
    started: list[GuardedNats] = []
    yield started
    for server in started:
        server.kill()


def entries(stage: Stage, name: str) -> dict[str, str]:
    return entries_of(stage.get("secret", name))


async def test_from_nothing_to_encrypted_tasks_and_on_to_another_authority(
    stage: Stage, servers: list[GuardedNats], tmp_path: Path
) -> None:
    folder = tmp_path / "nats"
    folder.mkdir()
    port = free_port()
    told = settings(
        stage.namespace,
        server_secret=SERVER,
        server_hosts="127.0.0.1,localhost",
        server_tls=True,
        overlap_seconds=3,
        certificate_look_seconds=0.3,
    )
    stage.apply(QUEUE)
    with operator(stage.api.kubeconfig, f"tls://127.0.0.1:{port}", tmp_path, **told) as running:
        # NATS waits for both Secrets, and the operator for NATS.
        await eventually(lambda: stage.there("secret", SERVER) and stage.there("secret", KEYS), within=30)
        nats = EncryptedNats(folder, entries(stage, KEYS), port, entries(stage, SERVER))
        servers.append(nats)
        await eventually(lambda: running.leads, within=30)
        await eventually(lambda: stage.there("deployment"), within=20)
        ca = tmp_path / "ca.crt"

        def fetched() -> str:
            """Have clients fetch the authorities again, as volumes do by themselves."""
            ca.write_text(entries(stage, secret_name(Role.PRODUCER, QUEUE))["ca.crt"])
            return ca.read_text()

        first = fetched()
        [container] = stage.get("deployment", f"galley-{QUEUE}")["spec"]["template"]["spec"]["containers"]
        environment = {each["name"]: each.get("value") for each in container["env"]}
        assert environment["GALLEY_TLS_CA"] == "/etc/galley/queue/ca.crt"
        assert stage.get("configmap", f"galley-{QUEUE}")["data"]["ca.crt"] == first
        creds = {role: written(stage, role, tmp_path) for role in Role}
        queue = a_task_queue(stage.namespace, QUEUE)
        told_worker = {"GALLEY_CREDENTIALS": str(creds[Role.WORKER]), "GALLEY_TLS_CA": str(ca)}
        with workers(f"tls://127.0.0.1:{port}", queue, tmp_path, **told_worker):
            async with connect(
                f"tls://127.0.0.1:{port}", stage.namespace, credentials=creds[Role.PRODUCER], tls=Tls(ca)
            ) as client:
                assert await (await client.submit(call(QUEUE, "echo", value=7))).result(30) == 7
                stage.change("secret", SERVER, {"metadata": {"annotations": {NEW_AUTHORITY: "now"}}})

                async def replaced() -> bool:
                    nats.mount(entries(stage, SERVER))
                    now = fetched()
                    return now != first and now.count("BEGIN CERTIFICATE") == 1

                await eventually(replaced, within=60)
                assert await (await client.submit(call(QUEUE, "echo", value=8))).result(30) == 8
        assert running.logged("server told to load certificates")
        assert NEW_AUTHORITY not in stage.get("secret", SERVER)["metadata"].get("annotations", {})
        assert "galley_operator_certificate_expiry_timestamp_seconds" in running.page("metrics")[1]
        assert running.stop() == 0


async def test_a_certificate_of_others_is_checked_copied_and_kept_if_the_next_is_bad(
    stage: Stage, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue(tmp_path, "theirs")
    good = {"tls.crt": certificate.read_text(), "tls.key": key.read_text(), "ca.crt": authority.text}

    def give(data: dict[str, str]) -> None:
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in data.items()}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": THEIRS}, "data": encoded}
        stage.api.kubectl.apply(body, namespace=stage.namespace)

    told = settings(
        stage.namespace, server_secret=SERVER, server_hosts="127.0.0.1", server_tls=True,
        certificate_secret=THEIRS, certificate_look_seconds=0.3,
    )  # fmt: skip
    with operator(stage.api.kubeconfig, "tls://127.0.0.1:1", tmp_path, **told) as running:
        said = await eventually(lambda: running.logged("no way into the broker"), within=30)
        assert (
            f"in Secret {stage.namespace}/{THEIRS} cannot be used: there is no such Secret"
            in said[0]["error"]
        )
        give({**good, "tls.key": "rubbish"})
        await eventually(lambda: "cannot be read" in running.log()[-1].get("error", ""), within=20)
        give({**good, "ca.crt": ""})
        await eventually(lambda: "no ca.crt" in running.log()[-1].get("error", ""), within=20)
        give(good)
        await eventually(lambda: stage.there("secret", SERVER), within=20)
        copied = entries(stage, SERVER)
        assert {name: copied[name] for name in good} == good
        assert not any(name.startswith("authority") for name in copied)
        expired, its_key = authority.issue(tmp_path, "expired", days=(-2, -1))
        give({**good, "tls.crt": expired.read_text(), "tls.key": its_key.read_text()})
        await eventually(lambda: running.logged("certificate not taken"), within=20)
        assert entries(stage, SERVER) == copied


async def test_several_replicas_agree_on_certificates_and_keys(cluster: Cluster, api_namespace: str) -> None:
    await asyncio.gather(*(ensure_store_key(cluster, api_namespace, STORE, 1) for _ in range(6)))
    first = entries_of(await cluster.get(SECRETS, api_namespace, STORE))
    assert first == {"key-1": first["key-1"], "store-1.conf": f'key: "{first["key-1"]}"\n'}
    await ensure_store_key(cluster, api_namespace, STORE, 2)
    second = entries_of(await cluster.get(SECRETS, api_namespace, STORE))
    assert second["key-1"] == first["key-1"] != second["key-2"]
    for number, other in ((1, 2), (2, 1)):
        assert second[f"store-{number}.conf"] == (
            f'key: "{second[f"key-{number}"]}"\nprev_encryption_key: "{second[f"key-{other}"]}"\n'
        )
    with pytest.raises(StoreEncrypted, match=f"{api_namespace}/{STORE}"):
        await ensure_store_key(cluster, api_namespace, STORE, 0)
    await ensure_store_key(cluster, api_namespace, "none", 0)
    with pytest.raises(ObjectNotFound):
        await cluster.get(SECRETS, api_namespace, "none")
