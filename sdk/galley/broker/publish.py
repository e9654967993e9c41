"""Putting tasks on the broker, pipelined, and saying why when it does not take one."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Final

import msgspec

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.encryption_rules import EncryptionRules
from galley.broker.errors import (
    BrokerError,
    BrokerUnreachable,
    NotAllowed,
)
from galley.broker.known import Known, check_same_work, known_task
from galley.broker.lean_client import header_block
from galley.broker.pipeline import NO_RESPONDERS, UNANSWERED, WRONG_SEQUENCE, Ack, Hear
from galley.broker.refusals import Refusals, given_up, refusal
from galley.broker.schedules import reserved_for
from galley.broker.topics import TopicPublisher
from galley.envelope import FIRST, Envelope, Flags
from galley.errors import GalleyError, IdReserved, Refused
from galley.failpoint import failpoint
from galley.inside import LIFE_WORD
from galley.key import digest_of_key
from galley.lanes import Lane
from galley.life import happened_to, life_event
from galley.schedule import ticks_of

log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 0.25

_LIFE_SECONDS: Final = 1.0
"""How long the event of a submission is tried before it is given up."""

_LOOKS: Final = 3
"""Times a task is looked for: it may come between a look and the publishing, and expire before the next."""

_FLAGGED: Final = Flags(republished=True)
_FIRST_HEADERS: Final = header_block({topology.EXPECTED_SEQUENCE: "0", topology.FLAGS_HEADER: FIRST.encode()})


class Receipt(msgspec.Struct, frozen=True):
    """The broker has the task on disk."""

    address: TaskAddress
    duplicate: bool = False
    """A task of that id was there already; this publish added nothing."""


class Publisher:
    """Publishes tasks. One publisher may be used by many at once."""

    def __init__(self, broker: Broker, patience_seconds: float = 30.0) -> None:
        """Args: broker: an open connection; patience_seconds: how long to go on trying without an answer."""
        self._broker = broker
        self._rules = EncryptionRules(broker)
        self.patience = patience_seconds
        self._lanes: set[tuple[str, str, Lane]] = set()
        """Lanes that are known to be there."""
        self.refusals = Refusals(broker)
        """Says why a task was not stored."""

    @property
    def broker(self) -> Broker:
        """The connection."""
        return self._broker

    async def publish(self, address: TaskAddress, envelope: Envelope, *, chosen_id: bool = False) -> Receipt:
        """Store the task and return when the broker has it.

        Args:
            address: where it goes.
            envelope: what it is.
            chosen_id: the id was not made for this call alone, so the same task may have come before.

        Raises:
            QueueNotFound, LaneNotEnabled, QueueFull: refused; nothing was stored.
            EncryptionRequired, QueueNotEncrypted, KeyServiceUnavailable: nothing was sent.
            BrokerUnreachable, BrokerSilent: no answer for `patience_seconds`; it may have been stored.
                Publishing the same id again does not run it twice.
            BrokerFull: the broker has no room; nothing was stored.
            NotAllowed: our credentials are not good for that.
            BrokerRefused: the broker gave another error; nothing was stored.
        """
        self._broker.check_usable()
        flags = _FLAGGED if chosen_id else FIRST
        return await self.settle(address, envelope, flags, await self.send(address, envelope, flags))

    async def publish_once(self, address: TaskAddress, envelope: Envelope) -> Receipt:
        """Store a task with an id that may be in use; a task that is known already is not stored again.

        Args:
            address: where it goes.
            envelope: what it is, with the digest of its work.

        Raises:
            TaskConflict: the id is in use for other work; nothing was stored.
            As `publish` besides.
        """
        self._broker.check_usable()
        receipt = Receipt(address, duplicate=True)
        for _ in range(_LOOKS):
            if known := await self.look(address):
                check_same_work(address, known.handler, known.digest, envelope)
                # It may be what we published ourselves, and whose answer was lost.
                return Receipt(known.address, duplicate=known.submitted_at != envelope.submitted_at)
            receipt = await self.publish(address, envelope, chosen_id=True)
            if not receipt.duplicate:
                return receipt
        return receipt

    async def publish_again(self, address: TaskAddress, envelope: Envelope, flags: Flags) -> None:
        """Store a message for a further attempt of a task that has ended; return when the broker has it.

        Whether there is another message of the task does not matter: the fence in the flags lets one of
        them begin. So repeating it while no answer comes is safe, too.

        Raises:
            As `publish`.
        """
        self._broker.check_usable()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.patience
        while not (ack := await (await self.send(address, envelope, flags, alone=False))).stored:
            if not ack.unanswered and ack.code != NO_RESPONDERS:
                raise refusal(address, ack)
            if ack.code == NO_RESPONDERS:
                with contextlib.suppress(BrokerUnreachable):
                    await self.refusals.check_lane(address)
            if loop.time() >= give_up:
                raise self._given_up(address, ack)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def look(self, address: TaskAddress) -> Known | None:
        """Return what is known of a task, trying again while the broker does not answer.

        Raises:
            BrokerUnreachable: if it does not for as long as the patience lasts.
            As `known_task` besides.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.patience
        while True:
            try:
                return await known_task(self._broker, address)
            except BrokerUnreachable:
                if loop.time() >= give_up:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)

    async def room(self) -> None:
        """Wait until `send_at_once` has room."""
        await self._broker.pipeline.room()

    def send_at_once(self, address: TaskAddress, envelope: Envelope, hear: Hear) -> bool:
        """Do what `send` does for a task with a new id, and have `hear` called with the broker's answer.

        Returns:
            False if something has to be waited for; then nothing was done.
        """
        pipeline = self._broker.pipeline
        if not (pipeline.has_room and self._rules.settled(address)):
            return False
        body = self._broker.payloads.plain_bytes(address, envelope)
        if body is None or envelope.key:
            return False
        failpoint("publish.before_send")
        pipeline.put_heard(_subject(address, envelope), body, _FIRST_HEADERS, hear)
        return True

    async def send(
        self, address: TaskAddress, envelope: Envelope, flags: Flags = FIRST, *, alone: bool = True
    ) -> asyncio.Future[Ack]:
        """Publish without waiting for the answer; hand the future to `settle`.

        Args:
            address: where it goes.
            envelope: what it is.
            flags: what its worker has to know.
            alone: whether the broker is to refuse it if it has another message of the task.

        Raises:
            BrokerUnreachable, BrokerSilent: it is not known whether the queue demands encryption; nothing was
                sent.
            KeyServiceUnavailable: it has to be encrypted and cannot be; nothing was sent.
        """
        failpoint("publish.before_send")
        try:
            if not self._rules.settled(address):
                await self._rules.check(address, self.patience)
            if alone and ticks_of(address.id) and (schedule := await reserved_for(self._broker, address)):
                raise IdReserved(address.queue, address.id, schedule)
            if envelope.key:
                await self._check_keyed(address)
        except Refused as refused:
            return _failed(refused)
        except NotAllowed:
            # Who may submit to a queue may ask for its rules, too.
            return _failed(NotAllowed(topology.task_subject(address)))
        except BrokerUnreachable as error:
            raise self._given_up(address, Ack(0, problem=str(error))) from None
        body = await self._broker.payloads.task_bytes(address, envelope)
        headers = _FIRST_HEADERS
        if not alone:
            headers = header_block({topology.FLAGS_HEADER: flags.encode()})
        elif flags.republished:
            headers = header_block(
                {
                    topology.EXPECTED_SEQUENCE: "0",
                    topology.EXPECTED_SUBJECT: topology.in_any_lane(address),
                    topology.FLAGS_HEADER: flags.encode(),
                }
            )
        answer = await self._broker.pipeline.send(_subject(address, envelope), body, headers)
        if not envelope.key or envelope.not_before is not None:
            return answer
        # In this order: who takes the turn has to find the task.
        rung = await self.ring(address, envelope.key)
        return _both(answer, rung)

    async def _check_keyed(self, address: TaskAddress) -> None:
        """Check that there is the lane of a task with a key: its subject does not show the broker that."""
        lane = address.namespace, address.queue, address.lane
        if lane not in self._lanes:
            await self.refusals.check_lane(address)
            self._lanes.add(lane)

    async def ring(self, address: TaskAddress, key: str) -> asyncio.Future[Ack]:
        """Have a worker look at the tasks that wait under a key in the lane of a task, unless one is to."""
        turn = topology.turn_address(address.namespace, address.queue, address.lane, digest_of_key(key))
        return await self._broker.pipeline.send(topology.task_subject(turn), b"", _FIRST_HEADERS)

    async def settle(
        self,
        address: TaskAddress,
        envelope: Envelope,
        flags: Flags,
        answer: Awaitable[Ack],
        *,
        give_up: float | None = None,
    ) -> Receipt:
        """Return the receipt for a publish under way, publishing again while no answer comes.

        Args:
            address: where it goes.
            envelope: what it is.
            flags: with which it was sent.
            answer: what `send` returned.
            give_up: time of the event loop after which it is not tried again; None counts the publisher's
                patience from the first answer.

        Raises:
            As `publish`.
        """
        failpoint("publish.sent")
        ack = await answer
        if ack.stored:
            return await self._accepted(address, envelope)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.patience if give_up is None else give_up
        while ack.unanswered or ack.code == NO_RESPONDERS:
            self._broker.check_usable()
            if ack.code == NO_RESPONDERS:
                # While servers elect a leader, this is not answered either.
                with contextlib.suppress(BrokerUnreachable):
                    await self.refusals.check_lane(address)
            if loop.time() >= give_up:
                raise self._given_up(address, ack)
            await asyncio.sleep(0.2)
            # Whether the first one arrived is not known, so from here on it counts as published before.
            flags = _FLAGGED
            ack = await (await self.send(address, envelope, flags))
        if ack.stored:
            return await self._accepted(address, envelope)
        if ack.code == WRONG_SEQUENCE:
            return Receipt(address, duplicate=True)
        raise await self.refusals.error(address, ack)

    def tells(self, address: TaskAddress) -> bool:
        """Return whether a topic hears of the tasks that are submitted to a queue."""
        return self._rules.any_life and bool(self._rules.life_of(address))

    async def _accepted(self, address: TaskAddress, envelope: Envelope) -> Receipt:
        """Return the receipt, once the topic has heard of the submission that hears of the queue's tasks."""
        topic = self._rules.life_of(address)
        if topic and LIFE_WORD not in envelope.ancestors:
            publisher = TopicPublisher(self._broker, address.namespace, _LIFE_SECONDS)
            try:
                happened = happened_to(address, envelope, attempt=0)
                event = life_event("submitted", address, happened, datetime.now(UTC), envelope.trace)
                await publisher.publish(topic, event)
            except GalleyError as error:
                # The task is accepted, whatever becomes of its event.
                about = {"task": address.id, "topic": topic, "happened": "submitted", "error": str(error)}
                log.warning("life event missed", extra=about)
        return Receipt(address)

    def _given_up(self, address: TaskAddress, ack: Ack) -> BrokerError:
        return given_up(self._broker, f"task {address}: {ack.problem}", self.patience)


def _both(answer: asyncio.Future[Ack], rung: asyncio.Future[Ack]) -> asyncio.Future[Ack]:
    """Return the answer for a task with a key, which is not accepted before its key is to be looked at."""
    both: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()

    def look(_: asyncio.Future[Ack]) -> None:
        if both.done() or not (answer.done() and rung.done()):
            return
        stored, turn = answer.result(), rung.result()
        if turn.stored or turn.code == WRONG_SEQUENCE:
            both.set_result(stored)
        elif stored.stored or stored.code == WRONG_SEQUENCE:
            both.set_result(Ack(0, UNANSWERED, turn.problem))
        else:
            both.set_result(stored)

    answer.add_done_callback(look)
    rung.add_done_callback(look)
    return both


def _subject(address: TaskAddress, envelope: Envelope) -> str:
    # A task for later is no message with a schedule: that could name any task as its target, and repeat.
    if envelope.not_before is not None:
        return topology.plan_subject(address)
    if envelope.key:
        return topology.wait_subject(address, digest_of_key(envelope.key))
    return topology.task_subject(address)


def _failed(error: GalleyError) -> asyncio.Future[Ack]:
    """Return what awaiting raises an error."""
    answer: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
    answer.set_exception(error)
    return answer
