"""Each role may publish to and hear what this table says, and nothing else, according to the server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from galley.broker.connection import Broker
from galley.broker.permissions import Role, permissions_of
from tests.support.guarded_nats import GuardedNats

NAMESPACE = "ns"
P, W, M = Role.PRODUCER, Role.WORKER, Role.MANAGER

PUBLISH: dict[str, set[Role]] = {
    # tasks
    "galley.task.ns.mine.high.sdk.id": {P, W, M},
    "galley.task.ns.mine.high.k8s.id": set(),
    "galley.plan.ns.mine.low.sdk.id": {P, W, M},
    "galley.plan.ns.mine.low.k8s.id": set(),
    "galley.plan.ns.theirs.low.sdk.id": set(),
    # A schedule names the subject it fires at, and may repeat.
    "galley.schedule.ns.mine.low.sdk.id": {W},
    "galley.schedule.ns.mine.low.k8s.id": {W},
    "galley.schedule.ns.theirs.low.sdk.id": set(),
    "galley.schedule.ns.mine.timer.cron.nightly": {W, M},
    "galley.schedule.ns.theirs.timer.cron.nightly": set(),
    "galley.due.ns.mine.timer.cron.nightly": set(),
    "galley.again.ns.mine.low.sdk.id": {W},
    "galley.again.ns.mine.low.k8s.id": {W},
    "galley.due.ns.mine.low.sdk.id": {W},
    "galley.task.ns.theirs.high.sdk.id": set(),
    "galley.task.other.mine.high.sdk.id": set(),
    # A worker puts copies of events into its own queue.
    "galley.task.ns.mine.low.sdk.id": {P, W, M},
    # topics: all of a namespace may publish to all of its topics, and to none of another namespace
    "galley.event.ns.orders": {P, W, M},
    "galley.event.other.orders": set(),
    "galley.live.ns.orders": set(),
    "galley.topic.ns.orders": set(),
    "galley.topic.ns.orders.mine": set(),
    "galley.subscribe.ns.mine": {W},
    "galley.subscribe.ns.theirs": set(),
    "galley.subscribe.other.mine": set(),
    "$JS.API.DIRECT.GET.GT_ns.galley.topic.ns.orders": {P, W, M},
    "$JS.API.DIRECT.GET.GT_ns.galley.subscribe.ns.mine": {W},
    "$JS.API.DIRECT.GET.GT_ns.galley.subscribe.ns.theirs": set(),
    "$JS.API.DIRECT.GET.GT_ns.galley.event.ns.orders": set(),
    "$JS.API.DIRECT.GET.GT_other.galley.topic.other.orders": set(),
    "$JS.API.DIRECT.GET.GT_ns": {M},
    "$JS.API.DIRECT.GET.GT_other": set(),
    "$JS.API.STREAM.INFO.GT_ns": {P, W, M},
    "$JS.API.STREAM.INFO.GT_other": set(),
    "$JS.API.STREAM.PURGE.GT_ns": set(),
    "$JS.API.STREAM.MSG.GET.GT_ns": set(),
    "$JS.API.CONSUMER.INFO.GT_ns.mine": {P, W, M},
    "$JS.API.CONSUMER.INFO.GT_ns.theirs": {P, M},
    "$JS.API.CONSUMER.INFO.GT_other.mine": set(),
    "$JS.API.CONSUMER.MSG.NEXT.GT_ns.mine": {W},
    "$JS.API.CONSUMER.MSG.NEXT.GT_ns.theirs": set(),
    "$JS.API.CONSUMER.MSG.NEXT.GT_other.mine": set(),
    "$JS.API.CONSUMER.CREATE.GT_ns.mine": set(),
    "$JS.API.CONSUMER.DELETE.GT_ns.mine": set(),
    "$JS.ACK.GT_ns.mine.1.1.1.1.0": {W},
    "$JS.ACK.GT_ns.theirs.1.1.1.1.0": set(),
    # records and dead letters
    "galley.result.ns.mine.sdk.id": {W, M},
    "galley.result.ns.mine.k8s.id": {W, M},
    "galley.result.ns.theirs.sdk.id": set(),
    # unique keys, and nothing else, are producers' to write among the records
    "galley.result.ns.mine.unique.key.id": {P, W, M},
    "galley.result.ns.mine.unique.other.id": {W, M},
    "galley.result.ns.theirs.unique.key.id": set(),
    "galley.result.other.mine.unique.key.id": set(),
    "$JS.API.DIRECT.GET.GR_ns_mine.galley.result.ns.mine.unique.key.id": {P, W, M},
    "$JS.API.DIRECT.GET.GR_ns_theirs.galley.result.ns.theirs.unique.key.id": set(),
    "galley.dead.ns.mine.sdk.id": {W, M},
    "galley.dead.ns.theirs.sdk.id": set(),
    # notes
    "galley.note.ns.mine.sdk.id.progress": {W},
    "galley.note.ns.mine.sdk.id.log.1.h-1": {W},
    "galley.note.ns.theirs.sdk.id.progress": set(),
    "galley.noted.ns.mine.sdk.id.progress": set(),
    "$JS.API.DIRECT.GET.GN_ns_mine.galley.note.ns.mine.sdk.id.checkpoint": {P, W, M},
    "$JS.API.DIRECT.GET.GN_ns_mine.galley.note.ns.theirs.sdk.id.checkpoint": set(),
    "$JS.API.DIRECT.GET.GN_ns_theirs.galley.note.ns.theirs.sdk.id.checkpoint": set(),
    "$JS.API.DIRECT.GET.GN_ns_mine": {P, M},
    "$JS.API.DIRECT.GET.GN_ns_theirs": set(),
    "$JS.API.STREAM.INFO.GN_ns_mine": set(),
    "$JS.API.STREAM.PURGE.GN_ns_mine": set(),
    "$JS.API.STREAM.MSG.GET.GN_ns_mine": set(),
    "$JS.API.DIRECT.GET.GR_ns_mine.galley.result.ns.mine.sdk.id": {P, W, M},
    "$JS.API.DIRECT.GET.GR_ns_mine.galley.result.ns.theirs.sdk.id": set(),
    "$JS.API.DIRECT.GET.GR_ns_theirs.galley.result.ns.theirs.sdk.id": set(),
    "$JS.API.DIRECT.GET.GR_ns_mine": set(),
    "$JS.API.STREAM.MSG.GET.GR_ns_mine": set(),
    "$JS.API.STREAM.INFO.GR_ns_mine": set(),
    "$JS.API.DIRECT.GET.GD_ns_mine.galley.dead.ns.mine.sdk.id": {W, M},
    "$JS.API.DIRECT.GET.GD_ns_theirs.galley.dead.ns.theirs.sdk.id": set(),
    "$JS.API.STREAM.MSG.GET.GD_ns_mine": set(),
    "$JS.API.STREAM.PURGE.GR_ns_mine": set(),
    "$JS.API.STREAM.PURGE.GD_ns_mine": {M},
    "$JS.API.STREAM.PURGE.GD_ns_theirs": set(),
    "$JS.API.DIRECT.GET.GD_ns_mine": {M},
    "$JS.API.DIRECT.GET.GD_ns_theirs": set(),
    "$JS.API.DIRECT.GET.GD_ns": set(),
    "$JS.API.STREAM.PURGE.GD_ns": set(),
    # the streams that queues of one namespace share if 0.1 made them
    "$JS.API.DIRECT.GET.GR_ns.galley.result.ns.mine.sdk.id": {P, W, M},
    "$JS.API.DIRECT.GET.GR_ns.galley.result.ns.theirs.sdk.id": set(),
    "$JS.API.DIRECT.GET.GR_ns": set(),
    "$JS.API.DIRECT.GET.GD_ns.galley.dead.ns.mine.sdk.id": {W, M},
    "$JS.API.DIRECT.GET.GD_ns.galley.dead.ns.theirs.sdk.id": set(),
    "$JS.API.STREAM.PURGE.GR_ns": set(),
    # the queue's own streams
    "$JS.API.CONSUMER.MSG.NEXT.GW_ns_mine.high": {W},
    "$JS.API.CONSUMER.MSG.NEXT.GW_ns_mine.plan": {W},
    "$JS.API.CONSUMER.MSG.NEXT.GS_ns_mine.high": {W},
    "$JS.API.CONSUMER.MSG.NEXT.GS_ns_mine.timer": {W},
    "$JS.API.CONSUMER.MSG.NEXT.GW_ns_theirs.high": set(),
    "$JS.ACK.GW_ns_mine.high.1.1.1.1.0": {W},
    "$JS.ACK.GS_ns_mine.high.1.1.1.1.0": {W},
    "$JS.ACK.GW_ns_theirs.high.1.1.1.1.0": set(),
    "$JS.API.STREAM.INFO.GW_ns_mine": {P, W, M},
    "$JS.API.STREAM.INFO.GS_ns_mine": {P, W, M},
    "$JS.API.STREAM.INFO.GW_ns_theirs": set(),
    # tasks that wait under keys, their turns, and the permits of keys
    "galley.wait.ns.mine.high-abc.sdk.id": {P, W, M},
    "galley.wait.ns.mine.high-abc.k8s.id": set(),
    "galley.wait.ns.theirs.high-abc.sdk.id": set(),
    "galley.wait.other.mine.high-abc.sdk.id": set(),
    "galley.task.ns.mine.high.turn.abc": {P, W, M},
    "galley.task.ns.theirs.high.turn.abc": set(),
    "galley.due.ns.mine.high.sdk.id": {W},
    "galley.due.ns.theirs.high.sdk.id": set(),
    "galley.flow.ns.mine.key.abc": {W},
    "galley.flow.ns.theirs.key.abc": set(),
    # unique keys
    "galley.result.ns.mine.unique.key.abc": {P, W, M},
    "galley.result.ns.theirs.unique.key.abc": set(),
    # counts
    "galley.count.ns.mine.high.succeeded": {W},
    "galley.count.ns.mine.high.cancelled": {W, M},
    "galley.count.ns.theirs.high.succeeded": set(),
    "galley.count.ns.theirs.high.cancelled": set(),
    "$JS.API.DIRECT.GET.GC_ns_mine": {P, M},
    "$JS.API.DIRECT.GET.GC_ns_theirs": set(),
    "$JS.API.STREAM.PURGE.GC_ns_mine": set(),
    "$JS.API.STREAM.MSG.GET.GC_ns_mine": set(),
    # the audit: clients of managers add lines, and no role reads or removes one
    "galley.audit.ns.mine.client": {M},
    "galley.audit.ns.mine.gateway": set(),
    "galley.audit.ns.mine.gateway-submits": set(),
    "galley.audit.ns.mine.operator": set(),
    "galley.audit.ns.theirs.client": set(),
    "galley.audit.other.mine.client": set(),
    "$JS.API.DIRECT.GET.GA_ns": set(),
    "$JS.API.DIRECT.GET.GA_ns.galley.audit.ns.mine.client": set(),
    "$JS.API.STREAM.INFO.GA_ns": set(),
    "$JS.API.STREAM.PURGE.GA_ns": set(),
    "$JS.API.STREAM.UPDATE.GA_ns": set(),
    "$JS.API.STREAM.DELETE.GA_ns": set(),
    "$JS.API.STREAM.MSG.DELETE.GA_ns": set(),
    "$JS.API.STREAM.MSG.GET.GA_ns": set(),
    # workflows
    "galley.flow.ns.mine.f.root": {P, W, M},
    "galley.flow.ns.mine.f.of.plan.0": {P, W, M},
    "galley.flow.ns.mine.f.of.join.7": {W},
    "galley.flow.ns.mine.f.of.marks.0": {W},
    "galley.flow.ns.theirs.f.root": set(),
    "galley.flow.other.mine.f.root": set(),
    "galley.flow.ns.theirs.f.of.plan.0": set(),
    "galley.flow.ns.theirs.f.of.join.7": set(),
    "$JS.API.DIRECT.GET.GF_ns_mine": {P, W, M},
    "$JS.API.DIRECT.GET.GF_ns_mine.galley.flow.ns.mine.f.root": {P, W, M},
    "$JS.API.DIRECT.GET.GF_ns_mine.galley.flow.ns.theirs.f.root": set(),
    "$JS.API.DIRECT.GET.GF_ns_theirs": set(),
    "$JS.API.DIRECT.GET.GF_ns_theirs.galley.flow.ns.theirs.f.root": set(),
    "$JS.API.STREAM.INFO.GF_ns_mine": {P, M},
    "$JS.API.STREAM.INFO.GF_ns_theirs": set(),
    "$JS.API.STREAM.PURGE.GF_ns_mine": {W},
    "$JS.API.STREAM.PURGE.GF_ns_theirs": set(),
    "$JS.API.STREAM.MSG.GET.GF_ns_mine": set(),
    # objects
    "galley.object.ns.mine.part.abc.0": {P, W, M},
    "galley.object.ns.mine.whole.abc": {P, W, M},
    "galley.object.ns.mine.use.abc.input.sdk.id": {P, W, M},
    "galley.object.ns.mine.use.abc.input.k8s.id": {W},
    "galley.object.ns.mine.use.abc.result.sdk.id": {W},
    "galley.object.ns.mine.leaving.abc": {W},
    "galley.object.ns.mine.sweep": {W},
    "galley.object.ns.theirs.part.abc.0": set(),
    "galley.object.ns.theirs.use.abc.input.sdk.id": set(),
    "$JS.API.STREAM.INFO.GO_ns_mine": {P, W, M},
    "$JS.API.STREAM.INFO.GO_ns_theirs": set(),
    "$JS.API.DIRECT.GET.GO_ns_mine.galley.object.ns.mine.part.abc.0": {P, W, M},
    "$JS.API.DIRECT.GET.GO_ns_theirs.galley.object.ns.theirs.part.abc.0": set(),
    "$JS.API.DIRECT.GET.GO_ns_mine": set(),
    "$JS.API.STREAM.PURGE.GO_ns_mine": {W},
    "$JS.API.STREAM.PURGE.GO_ns_theirs": set(),
    "$JS.API.STREAM.MSG.DELETE.GO_ns_mine": set(),
    "$JS.API.CONSUMER.INFO.GW_ns_mine.high": {P, M},
    "$JS.API.CONSUMER.INFO.GS_ns_mine.high": {P, M},
    "$JS.API.DIRECT.GET.GW_ns_mine": {P, W, M},
    "$JS.API.DIRECT.GET.GS_ns_mine": {P, W, M},
    "$JS.API.DIRECT.GET.GS_ns_theirs": set(),
    "$JS.API.DIRECT.GET.GW_ns_theirs": set(),
    "$JS.API.STREAM.MSG.GET.GW_ns_mine": set(),
    "$JS.API.STREAM.PURGE.GW_ns_mine": {M},
    "$JS.API.STREAM.PURGE.GS_ns_mine": {M},
    "$JS.API.STREAM.PURGE.GW_ns_theirs": set(),
    "$JS.API.STREAM.UPDATE.GW_ns_mine": set(),
    "$JS.API.STREAM.DELETE.GW_ns_mine": set(),
    "$JS.API.STREAM.MSG.DELETE.GW_ns_mine": {W},
    "$JS.API.STREAM.MSG.DELETE.GW_ns_theirs": set(),
    "$JS.API.STREAM.MSG.DELETE.GS_ns_mine": set(),
    "$JS.API.STREAM.MSG.DELETE.GR_ns_mine": set(),
    "$JS.API.STREAM.CREATE.evil": set(),
    "$JS.API.STREAM.SNAPSHOT.GW_ns_mine": set(),
    "$JS.API.CONSUMER.CREATE.GW_ns_mine": set(),
    "$JS.API.CONSUMER.CREATE.GW_ns_mine.evil.galley.task.ns.mine.high.>": set(),
    "$JS.API.CONSUMER.DELETE.GW_ns_mine.high": set(),
    "$JS.API.CONSUMER.PAUSE.GW_ns_mine.high": {M},
    "$JS.API.CONSUMER.PAUSE.GS_ns_mine.high": {M},
    "$JS.API.CONSUMER.PAUSE.GW_ns_theirs.high": set(),
    "$JS.API.CONSUMER.PAUSE.GO_ns_mine.high": set(),
    "$JS.API.STREAM.LIST": set(),
    "$JS.API.STREAM.NAMES": set(),
    "$JS.API.ACCOUNT.PURGE.A": set(),
    "$JS.API.INFO": {P, W, M},
    # talk
    "galley.ctl.ns.mine.ping": {P, M},
    "galley.ctl.ns.mine.cancel": {W, M},
    "galley.ctl.ns.mine.drain": set(),
    "galley.ctl.ns.theirs.ping": set(),
    "galley.workers.ns.mine": {P, M},
    "galley.workers.ns.theirs": set(),
    "galley.hb.ns.mine.w1": {W},
    "galley.hb.ns.theirs.w1": set(),
    "galley.holder.ns.mine.h1": {W},
    "galley.holder.ns.theirs.h1": set(),
    "galley.answer.ns.mine.abc": {W},
    "galley.answer.ns.theirs.abc": set(),
    "galley.bell.ns.mine.high.sdk.id": set(),
    "galley.done.ns.mine.sdk.id": set(),
    "_INBOX.producer.ns.mine.abc": set(),
    "_INBOX.worker.ns.mine.abc": {W},
    "_INBOX.worker.ns.theirs.abc": set(),
    "_INBOX.operators": set(),
    "$SYS.REQ.SERVER.PING": set(),
    "anything": set(),
}

SUBSCRIBE: dict[str, set[Role]] = {
    "galley.done.ns.mine.sdk.id": {P, M},
    "galley.done.ns.mine.>": {P, M},
    "galley.done.ns.theirs.>": set(),
    "galley.noted.ns.mine.sdk.id.>": {P, M},
    "galley.noted.ns.mine.>": {P, M},
    "galley.noted.ns.theirs.>": set(),
    "galley.noted.ns.>": set(),
    "galley.note.ns.mine.>": set(),
    "galley.live.ns.orders": {P, M},
    "galley.live.ns.*": {P, M},
    "galley.live.other.*": set(),
    "galley.event.ns.*": set(),
    "galley.audit.ns.mine.client": set(),
    "galley.audit.>": set(),
    "galley.done.ns.>": set(),
    "galley.result.ns.mine.>": set(),
    "galley.task.ns.mine.>": set(),
    "galley.bell.ns.mine.>": set(),
    "galley.hb.ns.mine.*": set(),
    "galley.ctl.ns.mine.*": {W},
    "galley.ctl.ns.theirs.*": set(),
    "galley.holder.ns.mine.h1": {W},
    "galley.holder.ns.theirs.h1": set(),
    "galley.answer.ns.mine.abc": {P, M},
    # The server takes the last token for one that `*` covers; no more than that is ever delivered.
    "galley.answer.ns.mine.>": {P, M},
    "galley.answer.ns.theirs.abc": set(),
    "_INBOX.producer.ns.mine.>": {P},
    "_INBOX.worker.ns.mine.>": {W},
    "_INBOX.manager.ns.mine.>": {M},
    "_INBOX.worker.ns.theirs.>": set(),
    "_INBOX.>": set(),
    "$JS.EVENT.ADVISORY.>": set(),
    "$SYS.>": set(),
    ">": set(),
}


class Judged:
    """A connection whose refusals are recorded."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._said: list[str] = []
        broker.nats._error_cb = self._take

    async def _take(self, error: Exception) -> None:
        self._said.append(str(error))

    async def publishes(self, subject: str) -> bool:
        """Whether the server accepts a publish."""
        self._said.clear()
        self._broker.nats.publish_directly(subject, b"")
        return await self._passed()

    async def subscribes(self, subject: str) -> bool:
        """Whether the server accepts a subscription."""
        self._said.clear()
        subscription = await self._broker.nats.subscribe(subject)
        passed = await self._passed()
        await subscription.unsubscribe()
        return passed

    async def _passed(self) -> bool:
        # The server answers in order: refusals of what came before arrive first.
        await self._broker.api("look", "INFO")
        return not any("permissions violation" in said for said in self._said)


@asynccontextmanager
async def judged(server: GuardedNats, role: Role) -> AsyncIterator[Judged]:
    path = server.write_creds(role, NAMESPACE, "mine")
    async with Broker(server.url, name=f"test {role}", connect_seconds=10, credentials=path) as broker:
        yield Judged(broker)


@pytest.mark.parametrize("role", Role)
async def test_a_role_publishes_what_the_table_says_and_nothing_else(
    guarded_nats: GuardedNats, role: Role
) -> None:
    async with judged(guarded_nats, role) as connection:
        found = {subject: await connection.publishes(subject) for subject in PUBLISH}
    assert found == {subject: role in allowed for subject, allowed in PUBLISH.items()}


@pytest.mark.parametrize("role", Role)
async def test_a_role_hears_what_the_table_says_and_nothing_else(
    guarded_nats: GuardedNats, role: Role
) -> None:
    async with judged(guarded_nats, role) as connection:
        found = {subject: await connection.subscribes(subject) for subject in SUBSCRIBE}
    assert found == {subject: role in allowed for subject, allowed in SUBSCRIBE.items()}


@pytest.mark.parametrize("role", Role)
def test_each_permission_has_a_line_in_the_table(role: Role) -> None:
    rights = permissions_of(role, NAMESPACE, "mine")
    for patterns, table in ((rights.publish, PUBLISH), (rights.subscribe, SUBSCRIBE)):
        listed = [subject for subject, allowed in table.items() if role in allowed]
        unlisted = [pattern for pattern in patterns if not any(covers(pattern, each) for each in listed)]
        assert unlisted == []


def covers(pattern: str, subject: str) -> bool:
    """Whether a subject, which may itself be a pattern, is within a pattern."""
    wanted, given = pattern.split("."), subject.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(given) > place
        if place >= len(given) or (token != given[place] and token != "*"):
            return False
    return len(wanted) == len(given)
