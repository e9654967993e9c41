"""An answer cannot be directed at what its requester may not publish to.

The server checks the subject of a request and not its reply subject, nor the subject a trace is sent to. Here
each role sends each request it may send with each forbidden subject as the reply subject, while an
observer in every other account records what arrives.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.control import Answer, Request, Verb, answering
from galley.broker.ensure import ensure
from galley.broker.permissions import Role
from galley_operator.credentials.account import Account
from galley_operator.credentials.queue_roles import Holder, credentials_of
from tests.integration.credentials.test_rights import PUBLISH
from tests.support.builders import a_queue, an_address
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats

MINE = a_queue("mine", namespace="ns")
THEIRS = a_queue("theirs", namespace="ns")
ELSEWHERE = a_queue("mine", namespace="other")
LAYOUTS = (MINE, THEIRS, ELSEWHERE)

BODIES = {
    "$JS.API.CONSUMER.MSG.NEXT": b'{"batch":1,"no_wait":true}',
    "$JS.API.DIRECT.GET.GW_ns_mine": b'{"seq":1}',
    # So that nothing of the queue itself goes.
    "$JS.API.STREAM.PURGE": b'{"filter":"galley.task.ns.mine.high.sdk.none"}',
}
TRACE = {"Nats-Trace-Dest": "{}", "Nats-Trace-Only": "true"}


@dataclass
class Seen:
    """What an observer in one account has seen."""

    account: str
    subjects: set[str] = field(default_factory=set)

    async def take(self, message: Msg) -> None:
        self.subjects.add(message.subject)

    def saw(self, subject: str) -> bool:
        return subject in self.subjects


@asynccontextmanager
async def observing(server: GuardedNats, account: Account, name: str) -> AsyncIterator[tuple[Seen, Nats]]:
    """Hear all there is in an account."""
    async with Broker(
        server.url, name=name, connect_seconds=10, credentials=lambda: account.credentials(name, None)
    ) as broker:
        seen = Seen(name)
        await broker.subscribe(">", seen.take)
        await broker.reached(5)
        yield seen, broker.nats


@asynccontextmanager
async def observed(server: GuardedNats, but: Holder | None) -> AsyncIterator[list[tuple[Seen, Nats]]]:
    """Hear all there is in all accounts but one."""
    async with AsyncExitStack() as stack:
        streams = server.authority.streams
        seen = [await stack.enter_async_context(observing(server, streams, "the account of the streams"))]
        for layout in LAYOUTS:
            for role in Role:
                holder = Holder(role, layout.namespace, layout.queue)
                if holder != but:
                    account = server.authority.account_of(holder)
                    seen.append(await stack.enter_async_context(observing(server, account, str(holder))))
        yield seen


@pytest.fixture
async def server(own_guarded_nats: GuardedNats) -> GuardedNats:
    async with own_guarded_nats.operator() as operator:
        for layout in LAYOUTS:
            await ensure(operator, layout)
            for role in Role:
                own_guarded_nats.write_creds(role, layout.namespace, layout.queue)
    return own_guarded_nats


def requests_of(role: Role) -> list[str]:
    return [subject for subject, allowed in PUBLISH.items() if role in allowed]


def forbidden_to(role: Role) -> list[str]:
    foreign = [
        verb(an_address(of=layout))
        for layout in (THEIRS, ELSEWHERE)
        for verb in (topology.task_subject, topology.record_subject, topology.dead_subject)
    ]
    foreign += [
        f"$JS.API.STREAM.{verb}.{topology.work_stream(layout.namespace, layout.queue)}"
        for layout in (THEIRS, ELSEWHERE)
        for verb in ("PURGE", "DELETE", "INFO")
    ]
    return [subject for subject, allowed in PUBLISH.items() if role not in allowed] + foreign


async def attack(nats: Nats, role: Role) -> int:
    """Direct every answer a role can provoke at every subject it may not publish to; return how many."""
    count = 0
    for request in requests_of(role):
        body = next((body for start, body in BODIES.items() if request.startswith(start)), b"{}")
        for subject in forbidden_to(role):
            await nats.publish(request, body, subject)
            traced = {name: value.format(subject) for name, value in TRACE.items()}
            await nats.publish(request, body, headers=traced)
            count += 2
    await nats.flush(10)
    return count


def arrived(seen: list[tuple[Seen, Nats]], role: Role) -> set[tuple[str, str]]:
    wrong = set(forbidden_to(role))
    if "galley.result.ns.mine.sdk.id" in requests_of(role):
        wrong.discard("galley.done.ns.mine.sdk.id")  # the news of a record the role may write
    if "galley.note.ns.mine.sdk.id.progress" in requests_of(role):
        wrong.discard("galley.noted.ns.mine.sdk.id.progress")
    if "galley.due.ns.mine.high.sdk.id" in requests_of(role):
        wrong.discard("galley.bell.ns.mine.high.sdk.id")  # the bell of its own queue
    return {(each.account, subject) for each, _ in seen for subject in each.subjects & wrong}


async def all_read(seen: list[tuple[Seen, Nats]]) -> None:
    """Return when every observer has seen what was sent before."""
    for each, nats in seen:
        await nats.publish("done.looking", b"")
        await eventually(partial(each.saw, "done.looking"), within=30)


@pytest.mark.parametrize("role", Role)
async def test_no_answer_reaches_a_subject_its_requester_may_not_publish_to(
    server: GuardedNats, role: Role
) -> None:
    path = server.write_creds(role, "ns", "mine")
    async with observed(server, Holder(role, "ns", "mine")) as seen:
        async with Broker(server.url, name="attacker", connect_seconds=10, credentials=path) as attacker:
            assert await attack(attacker.nats, role) > 1_000
            # The server answers from its own threads: wait for the answers to ordinary requests behind ours.
            for _ in range(3):
                await attacker.api("look", f"STREAM.INFO.{topology.work_stream('ns', 'mine')}")
        await asyncio.sleep(0.5)
        await all_read(seen)
        assert arrived(seen, role) == set()
    async with server.operator() as operator:
        for layout in LAYOUTS:
            name = topology.work_stream(layout.namespace, layout.queue)
            assert (await operator.api("look", f"STREAM.INFO.{name}"))["config"]["name"] == name


async def test_users_of_one_account_would_reach_all_of_it(server: GuardedNats, tmp_path: Path) -> None:
    """What the accounts are for, and proof that the observers see an attack that succeeds."""
    shared = server.authority.streams
    path = tmp_path / "shared.creds"
    path.write_text(credentials_of(shared, Holder(Role.PRODUCER, "ns", "mine"), time.time(), 60))
    async with observed(server, None) as seen:
        async with Broker(server.url, name="attacker", connect_seconds=10, credentials=path) as attacker:
            await attack(attacker.nats, Role.PRODUCER)
        aims = {"$JS.API.STREAM.PURGE.GW_ns_theirs", "galley.result.ns.theirs.sdk.id"}
        await eventually(lambda: aims <= {subject for _, subject in arrived(seen, Role.PRODUCER)}, within=30)
        await all_read(seen)


async def test_a_worker_answers_only_where_answers_of_its_queue_go(server: GuardedNats) -> None:
    """A request's reply subject must not make a worker publish what the requester may not."""

    async def react(_verb: Verb, _request: Request) -> Answer:
        return Answer("w1")

    creds = {role: server.write_creds(role, "ns", "mine") for role in Role}
    async with AsyncExitStack() as stack:
        worker, producer = [
            await stack.enter_async_context(
                Broker(server.url, name=role, connect_seconds=10, credentials=creds[role])
            )
            for role in (Role.WORKER, Role.PRODUCER)
        ]
        seen = await stack.enter_async_context(
            observing(server, server.authority.streams, "the account of the streams")
        )
        await stack.enter_async_context(answering(worker, "ns", "mine", react))
        await worker.reached(5)
        ping, good = topology.control_subject("ns", "mine", "ping"), "galley.answer.ns.mine.abc"
        for subject in ("galley.result.ns.mine.sdk.id", "galley.answer.ns.mine.a.b", "galley.answer.ns.b.c"):
            producer.publish(ping, b"{}", subject)
        producer.publish(ping, b"{}", good)
        await eventually(lambda: good in seen[0].subjects, within=30)
        assert seen[0].subjects == {good}
