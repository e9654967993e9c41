"""The Secrets that NATS, its operator and backups share: made by the replica that is first, and kept good."""

import asyncio
import logging
from typing import Any

import pytest

from galley_operator.cluster.errors import ObjectConflict, RightsMissing
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.account import Account
from galley_operator.credentials.backup_secret import BackupSecret
from galley_operator.credentials.key_secret import entries_of, key_secret, keys_in
from galley_operator.credentials.queue_secrets import FILE_KEY
from galley_operator.credentials.server_secret import ServerSecret
from galley_operator.credentials.store_key import ensure_store_key
from galley_operator.errors import CertificateInvalid, KeysNotFound
from tests.support.memory_cluster import MemoryCluster, Written
from tests.support.virtual_time import in_virtual_time

PLACE = ("galley", "nats-keys")


def entries(cluster: MemoryCluster, name: str = PLACE[1]) -> dict[str, str]:
    return entries_of(cluster.objects[SECRETS.plural, PLACE[0], name])


def another_is_first(cluster: MemoryCluster, body: dict[str, Any]) -> None:
    """Have another replica create an object right before we do."""

    def create(request: Written) -> None:
        if request.verb == "create":
            cluster.before = lambda _request: None
            cluster.put(SECRETS, body)
            raise ObjectConflict("create", request.name, 409, "it exists already")

    cluster.before = create


async def test_keys_that_are_not_ours_to_make_are_asked_for_by_name() -> None:
    with pytest.raises(KeysNotFound, match="galley/nats-keys"):
        await keys_in(MemoryCluster(), *PLACE, make=False)


async def test_keys_are_made_once_and_then_read() -> None:
    cluster = MemoryCluster()
    made = await keys_in(cluster, *PLACE, make=True)
    again = await keys_in(cluster, *PLACE, make=True)
    assert again.account.public == made.account.public
    assert len(cluster.log) == 1


async def test_the_keys_of_the_replica_that_was_first_are_used_by_all() -> None:
    cluster = MemoryCluster()
    another_is_first(cluster, key_secret(*PLACE, 1_900_000_000.0))
    read = await keys_in(cluster, *PLACE, make=True)
    assert read.account.public == Account.read(entries(cluster), "").public


async def test_a_key_of_the_store_is_made_if_it_is_wanted_and_another_replicas_is_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = MemoryCluster()
    await ensure_store_key(cluster, *PLACE, 0)
    assert not cluster.objects
    theirs = {"metadata": {"namespace": PLACE[0], "name": PLACE[1]}, "data": {"key-1": "a2V5"}}
    another_is_first(cluster, theirs)
    with caplog.at_level(logging.INFO):
        await ensure_store_key(cluster, *PLACE, 1)
    assert entries(cluster) == {"key-1": "key"}
    assert not caplog.messages
    cluster.objects.clear()
    await ensure_store_key(cluster, *PLACE, 1)
    assert set(entries(cluster)) == {"key-1", "store-1.conf"}


@in_virtual_time
async def test_credentials_of_backups_are_tried_again_until_they_can_be_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = MemoryCluster()
    account = (await keys_in(cluster, *PLACE, make=True)).account
    secret = BackupSecret(cluster, account, None, (PLACE[0], "backup"))

    def refuse(request: Written) -> None:
        raise RightsMissing(request.verb, request.name, 403, "not yet")

    cluster.before = refuse
    running = asyncio.create_task(secret.run())
    await asyncio.sleep(25)
    assert caplog.messages == ["credentials not renewed"] * 3
    cluster.before = lambda _request: None
    await asyncio.sleep(10)
    assert FILE_KEY in entries(cluster, "backup")
    running.cancel()


async def test_a_certificate_of_others_that_goes_leaves_the_last_good_one_in_force(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = MemoryCluster()
    theirs = ServerSecret(cluster, PLACE[0], "from-cert-manager", ["nats"])
    secret = ServerSecret(cluster, PLACE[0], "nats-server", ["nats"], source="from-cert-manager")
    with pytest.raises(CertificateInvalid, match="galley/from-cert-manager cannot be used: there is no such"):
        await secret.ensure()
    await theirs.ensure()
    taken = await secret.ensure()
    cluster.remove(SECRETS, "from-cert-manager", PLACE[0])
    assert await secret.ensure() == taken
    assert caplog.messages == ["certificate not taken"]


async def test_a_certificate_that_another_replica_changes_meanwhile_is_read_again() -> None:
    cluster = MemoryCluster()
    other = MemoryCluster()
    made = await ServerSecret(other, PLACE[0], "nats-server", ["nats"]).ensure()
    another_is_first(cluster, other.objects[SECRETS.plural, PLACE[0], "nats-server"])
    assert await ServerSecret(cluster, PLACE[0], "nats-server", ["nats"]).ensure() == made
