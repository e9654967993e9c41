"""Certificates are renewed in time, and servers are told until they have loaded them."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import pytest

from galley import Tls
from galley.broker.errors import BrokerUnreachable
from galley_operator.cluster.errors import ObjectConflict
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.certificate import Times
from galley_operator.credentials.certificate_keeper import CertificateKeeper
from galley_operator.credentials.client_tls import ClientTls, read_files
from galley_operator.credentials.key_secret import entries_of
from galley_operator.credentials.server_secret import ServerSecret
from galley_operator.errors import CertificateInvalid
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster, Written

DAY = 86_400.0


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now


class Fleet:
    """Servers that load what is in the Secret when they are told."""

    def __init__(self) -> None:
        self.loaded = {"one": frozenset[str](), "two": frozenset[str]()}
        self.shown = ""
        self.away = False

    async def tags(self) -> dict[str, frozenset[str]]:
        if self.away:
            raise BrokerUnreachable("nats", "away")
        return dict(self.loaded)

    async def reload(self, server: str) -> None:
        self.loaded[server] = frozenset({self.shown})


def a_secret(cluster: MemoryCluster, clock: Clock) -> ServerSecret:
    times = Times(certificate=timedelta(days=90))
    return ServerSecret(cluster, "galley", "nats-server", ["nats"], times=times, clock=clock)


async def test_each_server_is_told_until_it_has_loaded_the_present_state() -> None:
    cluster, clock, fleet = MemoryCluster(), Clock(), Fleet()
    secret = a_secret(cluster, clock)
    keeper = CertificateKeeper(secret, await secret.ensure(), fleet)
    first = keeper.present
    await keeper.look()
    assert fleet.loaded["one"] == frozenset({""}), "the kubelet has not brought it yet"
    fleet.shown = first.tag
    await keeper.look()
    assert set(fleet.loaded.values()) == {frozenset({first.tag})}
    clock.now += 61 * DAY
    await keeper.look()
    assert keeper.present.tag != first.tag
    assert keeper.present.expires == first.expires + 61 * DAY
    written = [request.name for request in cluster.log]
    await keeper.look()
    assert [request.name for request in cluster.log] == written, "nothing is written without need"


async def test_without_a_system_account_a_restart_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    cluster, clock = MemoryCluster(), Clock()
    secret = a_secret(cluster, clock)
    keeper = CertificateKeeper(secret, await secret.ensure(), None)
    await keeper.look()
    assert not caplog.records
    clock.now += 61 * DAY
    await keeper.look()
    assert "NATS has to be restarted" in caplog.text


async def test_a_look_that_fails_is_logged_and_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cluster, fleet = MemoryCluster(), Fleet()
    secret = a_secret(cluster, Clock())
    keeper = CertificateKeeper(secret, await secret.ensure(), fleet, look_seconds=0.01)
    fleet.away = True
    running = asyncio.create_task(keeper.run())
    await eventually(lambda: "certificates not looked at" in caplog.text, within=5)
    fleet.away, fleet.shown = False, keeper.present.tag
    await eventually(lambda: fleet.loaded["two"] == frozenset({keeper.present.tag}), within=5)
    running.cancel()


async def test_a_secret_that_others_change_meanwhile_is_read_again() -> None:
    cluster, clock = MemoryCluster(), Clock()
    secret = a_secret(cluster, clock)
    await secret.ensure()
    clock.now += 61 * DAY
    refused = 2

    def interfere(request: Written) -> None:
        nonlocal refused
        if request.verb == "patch" and refused:
            refused -= 1
            raise ObjectConflict("patch", request.name, 409, "changed meanwhile")

    cluster.before = interfere
    renewed = await secret.ensure()
    entries = entries_of(await cluster.get(SECRETS, "galley", "nats-server"))
    assert renewed.tag in entries["tag.conf"]


@pytest.mark.parametrize("broken", ["authority.key", "tls.crt", "ca.crt"])
async def test_a_secret_that_was_damaged_is_made_again(broken: str) -> None:
    cluster, clock = MemoryCluster(), Clock()
    secret = a_secret(cluster, clock)
    await secret.ensure()
    body = {"data": {broken: "cnViYmlzaA=="}}
    await cluster.merge_patch(SECRETS, "galley", "nats-server", body)
    await secret.ensure()
    assert "rubbish" not in entries_of(await cluster.get(SECRETS, "galley", "nats-server")).values()


def test_clients_get_the_files_of_a_nats_of_others(tmp_path: Path) -> None:
    for name in ("ca", "crt", "key"):
        (tmp_path / name).write_text(name)
    tls = Tls(tmp_path / "ca", tmp_path / "crt", tmp_path / "key", "nats.example")
    assert read_files(tls) == ClientTls("ca", "crt", "key", "nats.example")
    assert read_files(tls).entries == {"ca.crt": "ca", "tls.crt": "crt", "tls.key": "key"}
    assert read_files(Tls(server_name="x")).entries == {}
    with pytest.raises(CertificateInvalid, match="nothing"):
        read_files(Tls(tmp_path / "nothing"))
