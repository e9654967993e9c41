"""Credentials that end within seconds, renewed while tasks flow: nothing is lost and nothing runs twice."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from galley import (
    AccessRefused,
    BrokerUnreachable,
    CredentialsExpired,
    CredentialsInvalid,
    TaskNotFound,
    call,
    connect,
)
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.creds_file import read_creds
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.permissions import Role
from galley.client import AsyncClient
from galley.resources import TaskQueue
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats
from tests.support.workers import a_task_queue, workers

LONGEST_SECONDS = 240
"""For all renewals, on a machine that is busy."""
pytestmark = pytest.mark.timeout(LONGEST_SECONDS + 60)
NAMESPACE = "shop"
QUEUE = "drills"
LIFE_SECONDS = 12
"""They are replaced after half of it; the other half is for a machine that is busy."""
LEASE_SECONDS = 10
RENEWALS = 2
"""How often each connection is replaced while tasks flow."""


@pytest.fixture
async def queue(own_guarded_nats: GuardedNats) -> TaskQueue:
    queue = a_task_queue(NAMESPACE, QUEUE, worker={"concurrency": 4}, retry={"attempts": 1})
    async with own_guarded_nats.operator() as operator:
        # Short leases, since what is on its way to a worker at such a moment comes again when its lease ends.
        layout = layout_of(queue, "tests")
        await ensure(operator, type(layout)(**{**vars(layout), "lease_seconds": float(LEASE_SECONDS)}))
    return queue


def renew(server: GuardedNats, role: Role, seconds: float = LIFE_SECONDS) -> Path:
    return server.write_creds(role, NAMESPACE, QUEUE, seconds)


async def renewing(server: GuardedNats) -> None:
    """Renew a worker's and a producer's credentials after a third of their life, as the operator does."""
    while True:
        await asyncio.sleep(LIFE_SECONDS / 3)
        for role in (Role.WORKER, Role.PRODUCER):
            renew(server, role)


async def submitting(client: AsyncClient, enough: Callable[[], bool]) -> list[str]:
    """Submit tasks all the time and return their words once all have succeeded."""
    words: list[str] = []
    results: list[asyncio.Task[object]] = []
    async with asyncio.timeout(LONGEST_SECONDS), asyncio.TaskGroup() as waiting:
        while not enough():
            word = f"word-{len(words)}"
            handle = await client.submit(call(QUEUE, "note", word=word))
            words.append(word)
            results.append(waiting.create_task(handle.result(LONGEST_SECONDS)))
            await asyncio.sleep(0.03)
    assert [result.result() for result in results] == words
    return words


async def test_renewed_while_tasks_flow_none_is_lost_and_none_runs_twice(
    own_guarded_nats: GuardedNats, queue: TaskQueue, tmp_path: Path
) -> None:
    server = own_guarded_nats
    creds = {role: renew(server, role) for role in Role}
    settings = {"GALLEY_CREDENTIALS": str(creds[Role.WORKER]), "GALLEY_LEASE_SECONDS": str(LEASE_SECONDS)}
    async with asyncio.TaskGroup() as beside:
        renewals = beside.create_task(renewing(server))
        with workers(server.url, queue, tmp_path, ("w1", "w2"), **settings) as (first, second):
            async with connect(server.url, NAMESPACE, credentials=creds[Role.PRODUCER]) as client:

                def all_renewed() -> bool:
                    return client.broker.connection > RENEWALS and all(
                        len(worker.logged("reconnecting with newer credentials")) >= RENEWALS
                        for worker in (first, second)
                    )

                words = await submitting(client, all_renewed)
                for lane in queue.spec.lanes:
                    # Pulls of earlier connections are gone; each would swallow a task for a lease.
                    consumer = f"CONSUMER.INFO.{topology.work_stream(NAMESPACE, QUEUE)}.{lane}"
                    assert (await client.broker.api("look", consumer))["num_waiting"] <= 2
            for worker in (first, second):
                assert worker.end() == 0
        renewals.cancel()
    ran = Counter(line.split()[1] for line in (tmp_path / "drills.log").read_text().splitlines())
    assert ran == Counter(words)
    assert "expired" not in server.log.lower(), "no connection came to the end of its credentials"


async def test_credentials_that_are_not_renewed_expire_by_name_and_newer_ones_help(
    own_guarded_nats: GuardedNats, queue: TaskQueue
) -> None:
    path = renew(own_guarded_nats, Role.PRODUCER, 2)
    async with connect(own_guarded_nats.url, NAMESPACE, credentials=path) as client:
        await client.submit(call(QUEUE, "note", word="before"))

        async def ended() -> bool:
            try:
                await client.handle(QUEUE, "id").status()
            except CredentialsExpired as error:
                return f"{path} expired" in str(error) and "fetch them again" in error.hint
            except TaskNotFound:
                return False
            raise AssertionError("there is no such task")

        await eventually(ended, within=20)
        assert time.time() >= read_creds(path).claims.exp
        renew(own_guarded_nats, Role.PRODUCER)
        await eventually(lambda: client.broker.connected, within=20)
        await client.submit(call(QUEUE, "note", word="after"))


async def test_without_credentials_or_with_others_no_client_is_admitted(
    guarded_nats: GuardedNats, tmp_path: Path
) -> None:
    for path, refusal in (
        (None, AccessRefused),
        (guarded_nats.write_creds(Role.PRODUCER, NAMESPACE, QUEUE, -1, "ended.creds"), CredentialsExpired),
        (tmp_path / "nothing.creds", CredentialsInvalid),
    ):
        with pytest.raises(refusal) as error:
            async with Broker(guarded_nats.url, name="test", connect_seconds=3, credentials=path):
                pass
        assert error.value.hint


async def test_credentials_of_another_nats_are_refused(guarded_nats: GuardedNats, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = GuardedNats(folder)
    path = other.write_creds(Role.PRODUCER, NAMESPACE, QUEUE)
    other.kill()
    with pytest.raises(AccessRefused, match="refused the connection") as error:
        async with Broker(guarded_nats.url, name="test", connect_seconds=3, credentials=path):
            pass
    assert str(path) in error.value.hint


async def test_lost_keys_lose_no_task_and_all_clients_come_back_with_new_credentials(
    own_guarded_nats: GuardedNats, queue: TaskQueue, tmp_path: Path
) -> None:
    server = own_guarded_nats
    creds = {role: renew(server, role, 3600) for role in Role}
    async with connect(server.url, NAMESPACE, credentials=creds[Role.PRODUCER]) as client:
        handle = await client.submit(call(QUEUE, "note", word="before"))
        server.restart_with_other_keys()

        async def refused() -> bool:
            try:
                await handle.status()
            except AccessRefused:
                return True
            except BrokerUnreachable:
                return False
            raise AssertionError("credentials of lost keys were taken")

        await eventually(refused, within=30)
        for role in Role:
            renew(server, role, 3600)
        await eventually(lambda: client.broker.connected, within=20)
        settings = {"GALLEY_CREDENTIALS": str(creds[Role.WORKER])}
        with workers(server.url, queue, tmp_path, **settings):
            assert await handle.result(30) == "before"
