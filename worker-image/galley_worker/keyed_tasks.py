"""Keyed tasks: the messages of tasks that wait under keys, and those by which their turns come."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerRefused
from galley.broker.lean_client import header_block
from galley.broker.pipeline import WRONG_SEQUENCE
from galley.broker.pull import Delivery, Source
from galley.broker.topology import QueueLayout
from galley.envelope import FIRST, Flags
from galley.errors import EnvelopeInvalid
from galley.failpoint import failpoint
from galley.lanes import HIGHEST_FIRST, Lane
from galley.record import Failure
from galley_worker.ledger import Ledger, TooLarge
from galley_worker.settle import Settler
from galley_worker.verdict import TOO_LARGE

log = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """A task that waits under a key."""

    address: TaskAddress
    sequence: int
    body: bytes
    header: str


class KeyedTasks:
    """Reads and stores what is on the broker of the keys of one queue.

    Methods raise `BrokerError` if the broker refuses or does not answer.
    """

    def __init__(
        self,
        broker: Broker,
        layout: QueueLayout,
        ledger: Ledger,
        settler: Settler,
        now: Callable[[], datetime],
    ) -> None:
        self._broker, self._layout, self._ledger, self._now = broker, layout, ledger, now
        self._settler = settler
        self._work = topology.work_stream(layout.namespace, layout.queue)
        self.lanes = tuple(lane for lane in HIGHEST_FIRST if lane in layout.lanes)
        """Of the queue, the highest first."""

    def turn(self, digest: str, lane: Lane) -> TaskAddress:
        """Return the address of the turn of a key in a lane."""
        return topology.turn_address(self._layout.namespace, self._layout.queue, lane, digest)

    async def first(self, digest: str, lane: Lane, most: int) -> list[Waiting]:
        """Return the first tasks of a lane that wait under a key, `most` at most."""
        pattern, sequence = topology.waiting_of_key(self.turn(digest, lane)), 1
        found: list[Waiting] = []
        while len(found) < most:
            each = await self.next(pattern, sequence)
            if each is None:
                break
            found.append(each)
            sequence = each.sequence + 1
        return found

    async def next(self, pattern: str, sequence: int) -> Waiting | None:
        """Return the first message of a pattern in the work stream, from a sequence on."""
        request = msgspec.json.encode({"seq": sequence, "next_by_subj": pattern})
        answer = await self._broker.request(f"$JS.API.DIRECT.GET.{self._work}", request)
        headers = (answer.headers or {}) if answer is not None else {}
        if answer is None or "Nats-Subject" not in headers:
            return None
        address = topology.parse_task_subject(headers["Nats-Subject"])
        header = headers.get(topology.FLAGS_HEADER, "")
        return Waiting(address, int(headers["Nats-Sequence"]), answer.data, header)

    async def move(self, waiting: Waiting, *, permit: bool) -> None:
        """Store a task in its lane, then remove it from where it waits.

        A task that is too large for the broker in its lane becomes a dead letter.

        Raises:
            NoRoom: the queue's stream of tasks for later is full, or that of its dead letters.
        """
        try:
            flags = Flags.decode(waiting.header)
        except EnvelopeInvalid:
            flags = FIRST  # the worker that runs it reports the problem
        flags = replace(flags, republished=True, permit=permit)
        failpoint("turn.before_move")
        try:
            await self._ledger.admit(waiting.address, waiting.body, flags)
        except TooLarge as error:
            failure = Failure(TOO_LARGE, f"larger than the broker stores: {error}")
            await self._settler.end_unreadable(self._delivered(waiting), failure)
        failpoint("turn.before_remove")
        request = {"seq": waiting.sequence, "no_erase": True}
        try:
            await self._broker.api("remove a task that was moved", f"STREAM.MSG.DELETE.{self._work}", request)
        except BrokerRefused as error:
            # Another turn has removed it; if not, it is moved again, and its record ends it.
            log.debug("moved task not removed", extra={"task": waiting.address.id, "error": str(error)})

    def _delivered(self, waiting: Waiting) -> Delivery:
        """Return a waiting task as if it had been delivered. No consumer delivers it: it has no reply."""
        source = Source(self._work, waiting.address.lane)
        return Delivery(
            waiting.address, source, waiting.sequence, delivered=1, old=False, reply="", body=waiting.body,
            header=waiting.header,
        )  # fmt: skip

    async def put(self, turn: TaskAddress) -> bool:
        """Put the turn of a key at the end of its lane; returns False if there is no room."""
        try:
            await self.store(topology.task_subject(turn), b"", {topology.FLAGS_HEADER: FIRST.encode()})
        except BrokerRefused:
            return False
        return True

    async def ring_all(self, digest: str) -> None:
        """Have a turn of a key in each lane."""
        for lane in self.lanes:
            await self.ring(self.turn(digest, lane))

    async def ring(self, turn: TaskAddress) -> None:
        """Put a turn in its lane, unless it is there."""
        headers = {topology.EXPECTED_SEQUENCE: "0", topology.FLAGS_HEADER: FIRST.encode()}
        await self.store(topology.task_subject(turn), b"", headers)

    async def store(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        """Store a message, unless the headers expect none on its subject and there is one."""
        ack = await (await self._broker.pipeline.send(subject, body, header_block(headers)))
        if not ack.stored and ack.code != WRONG_SEQUENCE:
            raise BrokerRefused(f"store {subject}", ack.code, ack.problem)

    async def arm(self, turn: TaskAddress, seconds: float) -> None:
        """Have the key of a turn looked at once so many seconds have passed."""
        at = self._now() + timedelta(seconds=seconds)
        await self._ledger.again(turn, at)
