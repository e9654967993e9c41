"""Accounts of queues in the directory of a real server: registered once, kept, changed and removed."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.errors import AccessRefused, BrokerRefused, BrokerUnreachable
from galley.broker.permissions import Role
from galley_local.nats_binary import nats_server_binary
from galley_operator.credentials.authority import Authority
from galley_operator.credentials.key_pair import KeyPair, Owner
from galley_operator.credentials.queue_roles import Holder
from galley_operator.credentials.registrar import Registrar
from galley_operator.credentials.signed_token import sign, verified
from galley_operator.credentials.trust import made_keys
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats

WORKER = Holder(Role.WORKER, "ns", "mine")
LAYOUT = a_queue("mine", namespace="ns")


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


async def test_an_account_is_stored_once_and_again_only_if_it_differs(guarded_nats: GuardedNats) -> None:
    authority, clock = guarded_nats.authority, Time()
    account = authority.account_of(WORKER._replace(queue="once")).public
    async with guarded_nats.directory() as directory:
        assert await directory.read(account) == ""
        await Registrar(authority, directory, clock).ensure("ns", "once")
        first = await directory.read(account)
        assert (verified(first, authority.operator) or {})["nats"] == authority.queue_rights(
            WORKER._replace(queue="once")
        )
        clock.now += 1000
        await Registrar(authority, directory, clock).ensure("ns", "once")
        assert await directory.read(account) == first
        # One from an older release, say, and of a machine whose clock was ahead.
        other = authority.queue_rights(WORKER._replace(queue="once")) | {"imports": []}
        ahead = {"name": "x", "sub": account, "iat": int(clock.now) + 500, "nats": other}
        await directory.store(sign(ahead, authority.operator))
        await Registrar(authority, directory, clock).ensure("ns", "once")
        now_there = verified(await directory.read(account), authority.operator) or {}
        assert now_there["nats"]["imports"]


async def test_what_was_found_right_is_not_asked_for_again_for_a_while(guarded_nats: GuardedNats) -> None:
    class Counting:
        """Counts what is asked of the real directory."""

        def __init__(self) -> None:
            self.reads = 0

        async def read(self, account: str) -> str:
            self.reads += 1
            return await real.read(account)

        async def store(self, token: str) -> None:
            await real.store(token)

        async def remove(self, token: str) -> None:
            await real.remove(token)

    clock = Time()
    async with guarded_nats.directory() as real:
        counting = Counting()
        registrar = Registrar(guarded_nats.authority, counting, clock)
        await registrar.ensure("ns", "counted")
        await registrar.ensure("ns", "counted")
        assert counting.reads == len(Role)
        clock.now += 301
        await registrar.ensure("ns", "counted")
        assert counting.reads == 2 * len(Role)


async def test_accounts_outlive_the_server_and_are_gone_once_removed(own_guarded_nats: GuardedNats) -> None:
    server = own_guarded_nats
    async with server.operator() as operator:
        await ensure(operator, LAYOUT)
    creds = server.write_creds(Role.WORKER, "ns", "mine")
    server.restart()
    async with Broker(server.url, name="worker", connect_seconds=10, credentials=creds) as worker:
        async with server.directory() as directory:
            await Registrar(server.authority, directory).remove("ns", "mine")
        await eventually(lambda: not worker.connected, within=30)
    with pytest.raises(AccessRefused):
        async with Broker(server.url, name="worker", connect_seconds=2, credentials=creds):
            pass


async def test_keys_of_the_release_before_serve_the_new_accounts(tmp_path: Path) -> None:
    """In their configuration the account of the streams exports nothing."""
    keys = made_keys(time.time() - 3600)
    authority = Authority.read(keys, "keys")
    assert authority is not None
    before = authority.streams_rights()
    del before["exports"]
    claims = {"name": "galley", "sub": authority.streams.public, "iat": int(time.time()) - 3600}
    old = sign({**claims, "nats": before}, authority.operator)
    configuration = keys["auth.conf"].replace(authority.streams_token(time.time() - 3600), old)
    assert configuration != keys["auth.conf"]
    server = GuardedNats(tmp_path, {**keys, "auth.conf": configuration})
    try:
        async with server.operator() as operator:
            await ensure(operator, LAYOUT)
        creds = server.write_creds(Role.PRODUCER, "ns", "mine")
        async with server.directory() as directory:
            await Registrar(authority, directory).ensure_streams()
        for _ in range(2):
            async with Broker(server.url, name="producer", connect_seconds=10, credentials=creds) as producer:
                assert await producer.api("look", f"STREAM.INFO.{topology.work_stream('ns', 'mine')}")
            server.restart()
    finally:
        server.kill()


async def test_what_the_server_does_not_accept_is_an_error(guarded_nats: GuardedNats) -> None:
    forged = replace(guarded_nats.authority, operator=KeyPair.made(Owner.OPERATOR))
    async with guarded_nats.directory() as directory:
        with pytest.raises(BrokerRefused, match="store an account"):
            await directory.store("no token")
        with pytest.raises(BrokerRefused, match="remove an account"):
            await directory.remove(forged.removal([WORKER], time.time()))


async def test_a_server_that_is_away_is_told_by_name(own_guarded_nats: GuardedNats) -> None:
    async with own_guarded_nats.directory() as directory:
        own_guarded_nats.kill()
        with pytest.raises(BrokerUnreachable, match="system account"):
            await directory.read(own_guarded_nats.authority.streams.public)
    with pytest.raises(BrokerUnreachable, match="system account"):
        async with own_guarded_nats.directory():
            pass


def test_a_secret_with_the_key_of_one_account_signs_no_others() -> None:
    keys = made_keys(0)
    assert Authority.read({key: keys[key] for key in ("account", "account.seed")}, "keys") is None
    assert Authority.read(keys, "keys") is not None


async def test_the_configuration_of_an_earlier_chart_starts_with_these_keys(tmp_path: Path) -> None:
    """It includes `auth.conf` and names no directory: what a rollback brings back."""
    (tmp_path / "auth.conf").write_text(made_keys(time.time())["auth.conf"])
    (tmp_path / "nats.conf").write_text("port: -1\ninclude auth.conf\n")
    command = [str(nats_server_binary()), "--config", str(tmp_path / "nats.conf")]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:  # noqa: ASYNC220 - it does not block
        try:
            await eventually(lambda: "Server is ready" in (tmp_path / "log").read_text(), within=20)
        finally:
            server.kill()
