"""Reading and writing records, the compare-and-set truth about each task."""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Final

from galley import record as wire
from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import dead_stream_of, records_stream_of, stream_info
from galley.broker.errors import BrokerRefused, BrokerUnreachable
from galley.broker.last_message import last_message
from galley.broker.lean_client import header_block
from galley.broker.listing import messages_of
from galley.broker.pipeline import NO_RESPONDERS, Ack, Hear
from galley.errors import EnvelopeInvalid, QueueNotFound
from galley.record import Record, Stored

log = logging.getLogger(__name__)

_TRIES: Final = 10
_PAUSE_SECONDS: Final = 0.5


class Records:
    """The records of tasks.

    Those of a queue whose namespace was first used with 0.1 are in a stream that all its queues share.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def read(self, address: TaskAddress, at_least: int = 0) -> Stored | None:
        """Return the record of a task as it is stored, or None if it has none.

        Args:
            address: the task.
            at_least: a sequence known to exist; an older answer, which a lagging replica may give, counts
                as a failure so that nothing is decided on it.

        Raises:
            BrokerUnreachable: if no answer came, or only older ones.
            BrokerRefused: if the namespace has no records stream, or it has no leader just now.
        """
        stream = topology.records_stream(address.namespace, address.queue)
        shared = topology.shared_records_stream(address.namespace)
        for _ in range(_TRIES):
            found = await last_message(self._broker, stream, topology.record_subject(address), shared)
            if found is None:
                # The fence may have aged out between the refusal and this look: that is an answer too.
                return None
            if found.sequence >= at_least:
                return Stored(wire.decode(found.body), found.sequence)
        raise BrokerUnreachable(self._broker.server, f"only stale records of {address} to be had")

    async def look_up(self, address: TaskAddress) -> Stored | None:
        """Return the record of a task named by a user, who may be wrong about the queue, too.

        Raises:
            QueueNotFound: if there is no such queue, nor records to find it in.
            BrokerUnreachable: if no answer came.
        """
        for _ in range(_TRIES):
            try:
                return await self.read(address)
            except BrokerRefused as refusal:
                if refusal.code != NO_RESPONDERS:
                    raise
            # There is no answer for a stream that does not exist, nor for one without a leader.
            # Only the operator may look at streams of records, so the queue's work stream tells.
            work = topology.work_stream(address.namespace, address.queue)
            if await stream_info(self._broker, work) is None:
                raise QueueNotFound(address.namespace, address.queue)
            await asyncio.sleep(_PAUSE_SECONDS)
        stream = topology.records_stream(address.namespace, address.queue)
        raise BrokerUnreachable(self._broker.server, f"stream {stream} does not answer")

    async def write(
        self, address: TaskAddress, record: Record, fence: int, keep_seconds: int | None = None
    ) -> Ack:
        """Store a record if the last one has sequence `fence` (0: if there is none).

        Args:
            address: the task.
            record: what to store.
            fence: sequence of the record it replaces.
            keep_seconds: life of the record; None keeps it until it is replaced.

        Returns:
            The broker's word: stored, `WRONG_SEQUENCE`, or unanswered.

        Raises:
            KeyServiceUnavailable: if it has to be encrypted and cannot be; nothing was stored.
        """
        body = await self._broker.payloads.record_bytes(address, record)
        answer = await self._broker.pipeline.send(
            topology.record_subject(address), body, _conditions(fence, keep_seconds)
        )
        return await answer

    def write_at_once(
        self, address: TaskAddress, record: Record, fence: int, keep_seconds: int | None, hear: Hear
    ) -> bool:
        """Store a record as `write` does, and have `hear` called with the broker's word.

        Returns:
            False if it would have to wait; then nothing was done.
        """
        pipeline = self._broker.pipeline
        body = self._broker.payloads.plain_record_bytes(address, record) if pipeline.has_room else None
        if body is None:
            return False
        subject = topology.record_subject(address)
        pipeline.put_heard(subject, body, _conditions(fence, keep_seconds), hear)
        return True

    async def forget(self, address: TaskAddress) -> None:
        """Remove the record and the dead letter of a task that has ended, so that its id can be used again.

        Raises:
            BrokerUnreachable: if the broker does not answer; then it may be done or not.
            BrokerRefused: if there are no such streams.
        """
        namespace, queue = address.namespace, address.queue
        for stream, subject in (
            (await dead_stream_of(self._broker, namespace, queue), topology.dead_subject(address)),
            (await records_stream_of(self._broker, namespace, queue), topology.record_subject(address)),
        ):
            await self._broker.api(f"forget {address}", f"STREAM.PURGE.{stream}", {"filter": subject})

    async def all_of(self, namespace: str, queue: str) -> AsyncIterator[tuple[TaskAddress, Stored]]:
        """Yield every record of a queue, oldest change first.

        One that cannot be read is logged and left out.

        Raises:
            BrokerUnreachable: if the broker does not answer.
        """
        for stream in (topology.records_stream(namespace, queue), topology.shared_records_stream(namespace)):
            async for found in self._all_in(stream, topology.records_of_queue(namespace, queue)):
                yield found

    async def latest_of(
        self, namespace: str, queue: str, most: int
    ) -> AsyncIterator[tuple[TaskAddress, Stored]]:
        """Yield records of a queue among the last `most` changes, oldest change first.

        Raises:
            BrokerUnreachable: if the broker does not answer.
        """
        stream = topology.records_stream(namespace, queue)
        info = await stream_info(self._broker, stream)
        if info is None:
            return
        first = max(1, int(info["state"]["last_seq"]) - most + 1)
        async for found in self._all_in(stream, topology.records_of_queue(namespace, queue), first):
            yield found

    async def _all_in(
        self, stream: str, pattern: str, sequence: int = 1
    ) -> AsyncIterator[tuple[TaskAddress, Stored]]:
        async for message in messages_of(self._broker, stream, pattern, sequence):
            try:
                record = wire.decode(message.body)
                address = _address_of(message.subject, record)
            except (EnvelopeInvalid, ValueError) as error:
                log.warning("record not readable", extra={"subject": message.subject, "error": str(error)})
                continue
            yield address, Stored(record, message.sequence)


def _address_of(subject: str, record: Record) -> TaskAddress:
    _, _, namespace, queue, kind, task_id = subject.split(".")
    return TaskAddress(namespace, queue, record.lane, Kind(kind), task_id)


@lru_cache
def _conditions(fence: int, keep_seconds: int | None) -> bytes:
    headers = {topology.EXPECTED_SEQUENCE: str(fence)}
    if keep_seconds is not None:
        headers[topology.TTL] = str(keep_seconds)
    return header_block(headers)
