"""Following the records of a queue: each change, in order, with nothing left out.

Unlike news, which travel at most once, what is missed here is asked for again: from the last sequence seen,
after a broken connection, a restarted server, or a gap in what came. The stream keeps the last record of each
task, so a follower that was away for long hears where each task is by now, and not how it came there.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from galley import record as wire
from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import records_stream_of, stream_info
from galley.broker.errors import BrokerError
from galley.broker.lean_client import status_in
from galley.broker.listing import BYTES_AT_ONCE
from galley.errors import EnvelopeInvalid
from galley.record import Stored

log = logging.getLogger(__name__)

_BATCH: Final = 256
_NO_MORE_BYTES: Final = "Exceeds MaxBytes"
"""In what the server says when a pull has as many bytes as it asked for."""
_PULL_SECONDS: Final = 30.0
_HEARTBEAT_SECONDS: Final = 10.0
_SILENT_SECONDS: Final = 2.5 * _HEARTBEAT_SECONDS
"""A pull that is silent for so long is given up."""
_FORGET_SECONDS: Final = 60.0
"""The server removes a consumer without pulls after this."""
_PAUSE_SECONDS: Final = 1.0

React = Callable[[TaskAddress, Stored], None]
"""Takes a task, whose lane is the record's, and its record; called while reading, so it must be quick."""


Known = Callable[[str, str], bool]
"""Takes a namespace and an id; returns whether anything is to be done about that task."""


class Follower:
    """Follows the records of one queue's tasks."""

    def __init__(
        self, broker: Broker, queue: tuple[str, str], react: React, known: Known = lambda *_: True
    ) -> None:
        """Args: queue: its namespace and name; known: records of other tasks are passed over unread."""
        self.started = asyncio.Event()
        """Set once it is settled from where on every change is heard, sooner or later."""
        self._broker, self._queue, self._react, self._known = broker, queue, react, known
        self._stream = topology.records_stream(*queue)
        self._inbox = ""
        self._consumer = ""
        self._position: int | None = None
        self._expected = 1
        self._left = 0
        self._heard_at = 0.0
        self._over = asyncio.Event()
        self._broken = ""

    async def run(self) -> None:
        """Follow until cancelled, beginning with what changes after this; errors are logged and mended."""

        async def reconnected() -> None:
            # What was asked for on the earlier connection is not answered on this one.
            self._give_up("the connection broke")

        self._inbox = self._broker.nats.new_inbox()
        stop_hearing = self._broker.on_reconnect(reconnected)
        subscription = await self._broker.nats.subscribe_directly(self._inbox, self._on_message)
        try:
            while True:
                try:
                    await self._follow()
                except BrokerError as error:
                    log.info("records not followed", extra={"stream": self._stream, "error": str(error)})
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            stop_hearing()
            self._broker.unsubscribe(subscription)

    def _give_up(self, reason: str) -> None:
        self._broken = self._broken or reason
        self._over.set()

    async def _follow(self) -> None:
        """Make a consumer where the last one ended, and pull from it until something is wrong with it."""
        self._stream = await records_stream_of(self._broker, *self._queue)
        info = await stream_info(self._broker, self._stream)
        if info is None:
            # No queue was ever here, so all that there will be is new.
            self._position = 0
            self.started.set()
            return
        last = int(info["state"]["last_seq"])
        if self._position is None:
            self._position = last
        elif last < self._position:
            log.warning("records stream recreated", extra={"stream": self._stream})
            self._position = 0
        self.started.set()
        await self._make_consumer(self._position + 1)
        while not self._broken:
            await self._pull()
        log.info("following records again", extra={"stream": self._stream, "reason": self._broken})

    async def _make_consumer(self, start: int) -> None:
        self._consumer = f"follow-{secrets.token_hex(4)}"
        pattern = topology.records_of_queue(*self._queue)
        self._expected, self._broken = 1, ""
        await self._broker.api(
            f"follow {self._stream}",
            f"CONSUMER.CREATE.{self._stream}.{self._consumer}.{pattern}",
            {
                "stream_name": self._stream,
                "action": "create",
                "config": {
                    "name": self._consumer,
                    "filter_subject": pattern,
                    "deliver_policy": "by_start_sequence",
                    "opt_start_seq": start,
                    "ack_policy": "none",
                    "replay_policy": "instant",
                    "inactive_threshold": int(_FORGET_SECONDS * 1e9),
                    "mem_storage": True,
                    "num_replicas": 1,
                },
            },
        )

    async def _pull(self) -> None:
        """Ask for the next batch and wait until it is here, or nothing is heard any more."""
        loop = asyncio.get_running_loop()
        self._left, self._heard_at = _BATCH, loop.time()
        self._over.clear()
        # The largest record there can be must fit, or no pull would bring it.
        most = max(BYTES_AT_ONCE, 2 * self._broker.nats.max_payload)
        numbers = _BATCH, most, int(_PULL_SECONDS * 1e9), int(_HEARTBEAT_SECONDS * 1e9)
        body = '{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}' % numbers  # noqa: UP031 - braces
        connection = self._broker.connection
        self._broker.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}", body.encode(), self._inbox
        )
        while not self._over.is_set():
            try:
                async with asyncio.timeout_at(self._heard_at + _SILENT_SECONDS):
                    await self._over.wait()
            except TimeoutError:
                if connection != self._broker.connection:
                    self._give_up("the connection broke")
                elif loop.time() - self._heard_at >= _SILENT_SECONDS:
                    self._give_up("nothing was heard")

    def _on_message(self, subject: str, reply: str, body: bytes, headers: bytes) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if subject == self._inbox:
            status, description = status_in(headers)
            if status == "100":
                return
            if status not in ("404", "408") and _NO_MORE_BYTES not in description:
                # 409 and 503: the consumer is gone, its server is leaving, or there is no leader just now.
                self._broken = f"{status} {description}"
            self._over.set()
            return
        _, consumer, _, sequence, count, *_ = topology.parse_ack_subject(reply)
        if consumer != self._consumer or self._broken:
            return  # of one that was given up
        if int(count) != self._expected:
            self._broken = "a record is missing"
            self._over.set()
            return
        self._expected += 1
        self._position = int(sequence)
        self._left -= 1
        if self._left == 0:
            self._over.set()
        self._tell(subject, body)

    def _tell(self, subject: str, body: bytes) -> None:
        try:
            address = topology.parse_task_subject(subject)
            if not self._known(address.namespace, address.id):
                return
            record = wire.decode(body)
        except (ValueError, EnvelopeInvalid) as error:
            log.warning("record not understood", extra={"subject": subject, "error": str(error)})
            return
        assert self._position is not None
        self._react(replace(address, lane=record.lane), Stored(record, self._position))
