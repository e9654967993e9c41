"""Fan-out: puts a copy of each event that a subscription of the queue asks for into the queue, as a task.

Any worker of the queue does it, and takes no slot for it. All of it may be done twice: the id of a copy
follows from the event and the subscription, and a copy claims its record before it runs. An event is
acknowledged once all its copies are stored; one whose filter or input mapping fails becomes a dead letter of
the queue, which `galley dead` shows and redrives. Which subscriptions there are is read after the delivery,
so that one that was there before the event was published always counts.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Raw

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError, BrokerSilent, BrokerUnreachable
from galley.broker.publish import Publisher
from galley.broker.pull import Delivery, Source
from galley.broker.topics import find_topic, subscriptions_of
from galley.broker.topology import QueueLayout
from galley.dead_letter import DeadLetter
from galley.encryption import KeyServiceUnavailable
from galley.envelope import Envelope
from galley.error_group import ungrouped
from galley.errors import EnvelopeInvalid, EventInvalid, FilterInvalid, QueueFull
from galley.event import Event, decode
from galley.failpoint import failpoint
from galley.filter import FilterFailed
from galley.lanes import Lane
from galley.record import Failure
from galley.topic import KeyFailed, MappingFailed, Subscription, concerns, copy_address, task_of, task_of_miss
from galley_worker.attempts import UNDECIDED_SECONDS
from galley_worker.feed import Feed
from galley_worker.ledger import Ledger, NoRoom
from galley_worker.measures import Measures
from galley_worker.settle import NO_ROOM_SECONDS
from galley_worker.ticker import stamp_of
from galley_worker.traces import Traces

log = logging.getLogger(__name__)

_AT_ONCE: Final = 256
"""Events copied at the same time at most. Fewer, down to one, while the broker does not answer in time: what
is given up is still stored, and what is sent again waits behind it, so the same number would never end."""

_ABSENT_SECONDS: Final = 1.0
_ABSENT_MOST: Final = 10.0
_PATIENCE_SECONDS: Final = 5.0


class Copied(StrEnum):
    """What became of an event for one subscription; a label of the metric."""

    COPIED = "Copied"
    FILTERED = "Filtered"
    MISSED = "Missed"
    """Its filter or its mapping failed, or the queue does not take it: there is a dead letter."""
    EXPIRED = "Expired"
    """It could not be copied until its retention was over."""


class Fanout:
    """Copies the events of one queue's subscriptions. `run` does so until it is cancelled."""

    def __init__(  # noqa: PLR0917 - what it runs on
        self,
        broker: Broker,
        layout: QueueLayout,
        ledger: Ledger,
        measures: Measures,
        worker: str,
        now: Callable[[], datetime],
        *,
        plaintext: bool = True,
        traces: Traces | None = None,
    ) -> None:
        """Describe it.

        Args:
            broker: an open connection.
            layout: of the queue.
            ledger: acknowledges, and writes dead letters.
            measures: counts.
            worker: our name.
            now: tells the time.
            plaintext: whether the queue takes what was not encrypted before.
            traces: has a span for each copy; None for none.
        """
        self._broker, self._ledger, self._measures = broker, ledger, measures
        self._worker, self._now, self._plaintext = worker, now, plaintext
        self._layout, self._traces = layout, traces
        self._publisher = Publisher(broker, _PATIENCE_SECONDS)
        source = Source(topology.topics_stream(layout.namespace), Lane.NORMAL, layout.queue)
        self._late = False
        """Whether some answer did not come in time, of the events that are being copied."""
        self._feed = Feed(broker, layout, source, ledger, self._copy_some, _ABSENT_MOST, _AT_ONCE)

    async def run(self) -> None:
        """Copy events until cancelled; what is not copied by then is given back."""
        await self._subscribed()
        await self._feed.run()

    async def _subscribed(self) -> None:
        """Return once the queue has a consumer of events; most queues have none, and never will."""
        pause = _ABSENT_SECONDS
        stream, queue = topology.topics_stream(self._layout.namespace), self._layout.queue
        while True:
            try:
                await self._broker.api(f"look at consumer {queue}", f"CONSUMER.INFO.{stream}.{queue}")
            except BrokerError:  # it has none, or has no rights to it, or the broker is away
                await asyncio.sleep(pause)
                pause = min(2 * pause, _ABSENT_MOST)
            else:
                return

    async def _copy_some(self, deliveries: Sequence[Delivery]) -> None:
        self._late = False
        by_topic: dict[str, list[Delivery]] = defaultdict(list)
        for delivery in deliveries:
            by_topic[delivery.address.queue].append(delivery)
        async with asyncio.TaskGroup() as group:
            for topic, of_topic in by_topic.items():
                group.create_task(self._copy_of_topic(topic, of_topic))
        now = self._feed.at_once
        self._feed.at_once = max(1, now // 2) if self._late else min(_AT_ONCE, now + now // 4 + 1)

    async def _copy_of_topic(self, topic: str, deliveries: list[Delivery]) -> None:
        """Copy events of one topic. Does not raise for what they are."""
        try:
            found = await subscriptions_of(self._broker, self._layout.namespace, topic, self._layout.queue)
        except (BrokerError, EnvelopeInvalid) as error:
            self._late |= isinstance(error, BrokerUnreachable)
            log.warning("events not copied", extra={"topic": topic, "error": str(error)})
            for delivery in deliveries:
                self._ledger.give_back(delivery.reply, NO_ROOM_SECONDS)
            return
        async with asyncio.TaskGroup() as group:
            looks = [group.create_task(self._look_at(topic, found, delivery)) for delivery in deliveries]
        ended = ((delivery, look.result()) for delivery, look in zip(deliveries, looks, strict=True))
        if failed := [(delivery, error) for delivery, error in ended if error is not None]:
            self._late |= any(isinstance(error, BrokerUnreachable | BrokerSilent) for _, error in failed)
            await self._take_back(topic, failed)

    async def _look_at(
        self, topic: str, found: tuple[Subscription, ...], delivery: Delivery
    ) -> Exception | None:
        """Copy one event; returns why it could not be copied, since what it is costs the others nothing."""
        try:
            await self._copy(topic, found, delivery)
        except Exception as error:
            return error
        return None

    async def _take_back(self, topic: str, failed: Sequence[tuple[Delivery, Exception]]) -> None:
        """Have events delivered again that could not be copied, and give up those whose retention is over."""
        retention = await self._retention(topic)
        for delivery, error in failed:
            about = {
                "topic": topic,
                "sequence": delivery.sequence,
                "error": f"{type(error).__name__}: {error}",
            }
            if retention is not None and self._now() - stamp_of(delivery) >= retention:
                self._measures.copied(topic, Copied.EXPIRED)
                log.warning("event expired", extra=about)
                self._ledger.acknowledge(delivery.reply)
                continue
            self._measures.held_back(topic)
            log.warning("event not copied yet", extra=about)
            room = NoRoom | BrokerError | QueueFull | KeyServiceUnavailable
            again = NO_ROOM_SECONDS if isinstance(error, room) else UNDECIDED_SECONDS
            self._ledger.give_back(delivery.reply, again)

    async def _retention(self, topic: str) -> timedelta | None:
        """Return how long events are kept; None if that cannot be told now."""
        try:
            found = await find_topic(self._broker, self._layout.namespace, topic)
        except BrokerError:
            return None
        return timedelta(seconds=found.retention_seconds) if found is not None else None

    async def _copy(self, topic: str, found: tuple[Subscription, ...], delivery: Delivery) -> None:
        stored_at = stamp_of(delivery)
        try:
            event = decode(delivery.body, stored_at)
        except EventInvalid as error:
            # There is no subscription to keep it for: it is no event, and was not published by Galley.
            log.warning(
                "event dropped", extra={"topic": topic, "sequence": delivery.sequence, "error": str(error)}
            )
            self._ledger.acknowledge(delivery.reply)
            return
        copies: list[tuple[TaskAddress, Envelope]] = []
        for subscription in found:
            try:
                if not concerns(subscription, topic, event, stored_at):
                    self._measures.copied(topic, Copied.FILTERED)
                    continue
                self._check(subscription)
                task = task_of(topic, subscription, event, stored_at)
                copies.append((copy_address(self._layout.namespace, topic, subscription, event), task))
            except (FilterFailed, MappingFailed, EventInvalid) as error:
                await self._miss(topic, subscription, event, stored_at, error)
        failpoint("fanout.before_copy")
        if len(copies) == 1:
            await self._publish(topic, *copies[0])
        elif copies:
            with ungrouped():
                async with asyncio.TaskGroup() as group:
                    for address, task in copies:
                        group.create_task(self._publish(topic, address, task))
        for _ in copies:
            self._measures.copied(topic, Copied.COPIED)
        failpoint("fanout.before_ack")
        self._ledger.acknowledge(delivery.reply)

    def _check(self, subscription: Subscription) -> None:
        if subscription.lane not in self._layout.lanes:
            raise MappingFailed(f"the queue has no lane {subscription.lane}")
        if not self._plaintext:
            raise MappingFailed("the queue takes encrypted tasks only, and events are not encrypted")

    async def _publish(self, topic: str, address: TaskAddress, task: Envelope) -> None:
        traces = self._traces
        with nullcontext(task) if traces is None else traces.copying(topic, address, task) as copy:
            await self._publisher.publish(address, copy, chosen_id=True)

    async def _miss(
        self, topic: str, subscription: Subscription, event: Event, stored_at: datetime, error: Exception
    ) -> None:
        """Keep an event that could not be looked at as asked, as a dead letter of the queue."""
        address = copy_address(self._layout.namespace, topic, subscription, event)
        reason = {
            FilterFailed: "FilterFailed",
            FilterInvalid: FilterInvalid.reason,
            KeyFailed: "KeyFailed",
            MappingFailed: "InputMappingFailed",
        }.get(type(error), "EventInvalid")
        task = task_of_miss(topic, subscription, event, stored_at)
        problem = f"subscription {subscription.name} of topic {topic}: {error}"
        letter = DeadLetter(
            Failure(reason, problem[:1000]), self._now(), self._worker, 1, subscription.lane,
            envelope=Raw(msgspec.json.encode(task)),
        )  # fmt: skip
        failpoint("fanout.before_letter")
        await self._ledger.bury(address, letter)
        self._measures.copied(topic, Copied.MISSED)
        log.warning("event missed", extra={"topic": topic, "task": address.id, "error": problem})
