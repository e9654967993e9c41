"""What each role can do to others on the NATS that the chart renders, tried as an attacker would.

One attacker for each role of a queue sends every request it may send, with every subject it may not publish
to as the reply subject, as the target of a schedule, of a trace and of a batch; and it tries every subject
that it has no right to. Observers hear all of the nine other accounts, and everything other queues store is
compared before and after. `tests/integration/credentials/test_rights.py` has the table, in which each
permission needs a line.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace
from nats.aio.client import Client as Nats

from e2e.rendered_nats import RenderedNats
from galley.address import Kind, TaskAddress
from galley.audit import Action, Entry, Writer
from galley.broker import audit, topology
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.errors import BrokerUnreachable
from galley.broker.permissions import Role
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.lanes import Lane
from galley.topic import Origin, Subscription, Topic
from galley_operator.credentials.queue_roles import Holder, credentials_of
from tests.integration.credentials.test_replies import (
    BODIES,
    LAYOUTS,
    all_read,
    forbidden_to,
    observed,
    requests_of,
)
from tests.integration.credentials.test_rights import PUBLISH, SUBSCRIBE, judged
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats

pytestmark = pytest.mark.timeout(300)

VICTIMS: Final = [TaskAddress(each.namespace, each.queue, Lane.HIGH, Kind.DIRECT, "id") for each in LAYOUTS]


@dataclass(frozen=True)
class Cell:
    """One thing an attacker tries."""

    verb: str
    subject: str
    other: str = ""
    """The subject it is to have an effect on, which the attacker may not publish to."""
    headers: tuple[tuple[str, str], ...] = ()

    async def try_with(self, nats: Nats) -> None:
        body = next((body for start, body in BODIES.items() if self.subject.startswith(start)), b"{}")
        reply = self.other if self.verb in {"request", "batch"} else ""
        await nats.publish(self.subject, body, reply, headers=dict(self.headers) or None)


def with_reply(subject: str, other: str) -> Iterator[Cell]:
    yield Cell("request", subject, other)


def with_trace(subject: str, other: str) -> Iterator[Cell]:
    yield Cell("trace", subject, other, (("Nats-Trace-Dest", other),))
    yield Cell("trace", subject, other, (("Nats-Trace-Dest", other), ("Nats-Trace-Only", "true")))
    w3c = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    yield Cell("trace", subject, other, (("Nats-Trace-Dest", other), w3c))


def with_schedule(subject: str, other: str) -> Iterator[Cell]:
    for when in ("@at 2020-01-01T00:00:00Z", "@every 1s"):
        yield Cell("schedule", subject, other, (("Nats-Schedule", when), ("Nats-Schedule-Target", other)))
    source = ("Nats-Schedule-Source", other)
    target = ("Nats-Schedule-Target", subject.replace(".schedule.", ".due.").replace(".again.", ".due."))
    yield Cell("schedule", subject, other, (("Nats-Schedule", "@at 2020-01-01T00:00:00Z"), target, source))
    purge = ("Nats-Schedule-Next", "purge")
    yield Cell("schedule", subject, other, (("Nats-Scheduler", other), purge))


def with_batch(subject: str, other: str) -> Iterator[Cell]:
    """One message that begins and ends a batch; what the server says of it goes to the reply subject."""
    batch = (("Nats-Batch-Id", f"b{abs(hash((subject, other)))}"), ("Nats-Batch-Sequence", "1"))
    yield Cell("batch", subject, other, batch)
    yield Cell("batch", subject, other, (*batch, ("Nats-Batch-Commit", "1")))
    expected = ("Nats-Expected-Last-Subject-Sequence-Subject", other)
    yield Cell("batch", subject, other, (*batch, expected, ("Nats-Expected-Last-Subject-Sequence", "0")))


def with_roll_up(subject: str) -> Iterator[Cell]:
    for reach in ("all", "sub"):
        yield Cell("roll-up", subject, headers=(("Nats-Rollup", reach),))
    yield Cell("roll-up", subject, headers=(("Nats-Marker-Reason", "Purge"), ("Nats-TTL", "1s")))


def cells_of(role: Role) -> Iterator[Cell]:
    """Yield all that an attacker with this role tries."""
    forbidden = forbidden_to(role)
    for subject in forbidden:
        yield Cell("publish", subject)
        for allowed in requests_of(role)[:1]:
            yield Cell("request", subject, allowed)  # the other way around
    for subject in requests_of(role):
        yield from with_roll_up(subject)
        for other in forbidden:
            for make in (with_reply, with_trace, with_schedule, with_batch):
                yield from make(subject, other)


@dataclass
class Tally:
    """How many cells were tried, of which kind, and which were wrong."""

    tried: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RenderedNats]:
    server = RenderedNats(tmp_path)
    yield server
    server.kill()


async def stored(broker: Broker, but: str) -> dict[str, list[tuple[int, str, str]]]:
    """Return all messages of all streams, by subject, but those of one queue's direct tasks and streams."""
    found: dict[str, list[tuple[int, str, str]]] = {}
    names = (await broker.api("list", "STREAM.NAMES"))["streams"]
    for name in sorted(names):
        state = (await broker.api("look", f"STREAM.INFO.{name}"))["state"]
        for sequence in range(state["first_seq"], state["last_seq"] + 1):
            answer = await broker.request(
                f"$JS.API.STREAM.MSG.GET.{name}", json.dumps({"seq": sequence}).encode()
            )
            message = json.loads(answer.data).get("message") if answer is not None else None
            own = message is not None and f".{but}." in f"{message['subject']}."
            # All roles of a namespace may publish to its topics, and change nothing else there.
            event = message is not None and message["subject"].startswith("galley.event.ns.")
            if message is not None and not own and not event:
                found.setdefault(name, []).append((sequence, message["subject"], message.get("data", "")))
        found.setdefault(name, [])
    return found


async def put_something_everywhere(broker: Broker) -> None:
    """Have each queue hold a task, one for later, a record, a dead letter, topics and an audit."""
    for namespace in {each.namespace for each in VICTIMS}:
        subscription = Subscription("all", "theirs", "echo")
        declared = Declared(Topic("orders", origin=Origin.OBJECT), (subscription,))
        await TopicKeeper(broker, namespace, "tests").keep([declared])
        await audit.store(broker, namespace, "theirs", Writer.OPERATOR, Entry(Action.EDIT, "alice"))
    for victim in VICTIMS:
        at = {
            "Nats-Schedule": "@at 2098-01-01T00:00:00Z",
            "Nats-Schedule-Target": topology.due_subject(victim),
        }
        for subject, headers in (
            (topology.task_subject(victim), None),
            (topology.schedule_subject(replace(victim, id="later")), at),
            (topology.record_subject(victim), None),
            (topology.dead_subject(victim), None),
        ):
            answer = await broker.nats.request(
                subject, b'{"of":"' + victim.queue.encode() + b'"}', headers=headers
            )
            assert b'"seq"' in answer.data, answer.data


@pytest.mark.parametrize("role", Role)
async def test_no_role_reaches_anything_of_another_queue_or_namespace(
    server: RenderedNats, role: Role
) -> None:
    async with server.operator() as operator:
        for layout in LAYOUTS:
            await ensure(operator, layout)
            for each in Role:
                server.write_creds(each, layout.namespace, layout.queue)
        await put_something_everywhere(operator)
        before = await stored(operator, but="ns.mine")
        tally = await attacked(server, role, server.write_creds(role, "ns", "mine"))
        after = await stored(operator, but="ns.mine")
        tally.wrong += [
            f"stream {name} differs"
            for name in before.keys() | after.keys()
            if before.get(name) != after.get(name)
        ]
    print(f"{role}: {tally.tried.total()} cells tried, {len(tally.wrong)} wrong; {dict(tally.tried)}")
    assert tally.wrong == []
    assert tally.tried.total() > 5_000
    assert set(tally.tried) == {"publish", "request", "trace", "schedule", "batch", "roll-up", "subscribe"}


async def test_one_account_for_all_would_let_the_same_attacks_through(
    server: RenderedNats, tmp_path: Path
) -> None:
    """Proof that observers and comparison see an attack that succeeds."""
    async with server.operator() as operator:
        for layout in LAYOUTS:
            await ensure(operator, layout)
            server.write_creds(
                Role.PRODUCER, layout.namespace, layout.queue
            )  # so that the accounts are there
        await put_something_everywhere(operator)
        before = await stored(operator, but="ns.mine")
        holder = Holder(Role.PRODUCER, "ns", "mine")
        path = tmp_path / "shared.creds"
        path.write_text(credentials_of(server.authority.streams, holder, time.time(), 60))
        tally = await attacked(server, Role.PRODUCER, path)
        after = await stored(operator, but="ns.mine")
    assert "$JS.API.STREAM.PURGE.GW_ns_theirs in the account of the streams" in tally.wrong
    assert before["GW_ns_theirs"]
    assert not after.get("GW_ns_theirs")


async def attacked(server: GuardedNats, role: Role, path: Path) -> Tally:
    tally = Tally()
    async with observed(server, Holder(role, "ns", "mine")) as seen:
        async with Broker(server.url, name="attacker", connect_seconds=10, credentials=path) as attacker:
            for cell in cells_of(role):
                await cell.try_with(attacker.nats)
                tally.tried[cell.verb] += 1
                if tally.tried.total() % 500 == 0:
                    await attacker.nats.flush(10)
            await attacker.nats.flush(10)
            # The server answers from its own threads: wait for the answers to ordinary requests behind ours.
            for _ in range(3):
                await eventually(partial(answers, attacker), within=120)
            # Schedules of the past, and of every second, fire meanwhile.
            await asyncio.sleep(2)
        await all_read(seen)
        wrong = set(forbidden_to(role)) - news_of(role)
        tally.wrong += [
            f"{subject} in {each.account}" for each, _ in seen for subject in sorted(each.subjects & wrong)
        ]
    async with judged(server, role) as connection:
        for subject, allowed in SUBSCRIBE.items():
            tally.tried["subscribe"] += 1
            if await connection.subscribes(subject) is not (role in allowed):
                tally.wrong.append(f"subscribe {subject}")
        for subject, allowed in PUBLISH.items():
            tally.tried["publish"] += 1
            if await connection.publishes(subject) is not (role in allowed):
                tally.wrong.append(f"publish {subject}")
    return tally


async def answers(broker: Broker) -> bool:
    """Return whether the server answers: on a busy machine it has work left from what was asked before."""
    try:
        await broker.api("look", "INFO")
    except BrokerUnreachable:
        return False
    return True


def news_of(role: Role) -> set[str]:
    """Return what the streams themselves say when the role does what it may."""
    news = {
        "galley.result.ns.mine.sdk.id": "galley.done.ns.mine.sdk.id",
        "galley.note.ns.mine.sdk.id.progress": "galley.noted.ns.mine.sdk.id.progress",
        "galley.due.ns.mine.high.sdk.id": "galley.bell.ns.mine.high.sdk.id",
        "galley.event.ns.orders": "galley.live.ns.orders",
    }
    return {heard for said, heard in news.items() if said in requests_of(role)}
