"""Values of workflows on the broker, changed by compare-and-set.

Many workers write the same value at a time. Those of one process take turns: while one write is under way,
the next changes gather, and go into one message. So a join of 10,000 costs far fewer writes than that.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerRefused, BrokerUnreachable
from galley.broker.last_message import last_message
from galley.broker.lean_client import header_block
from galley.broker.pipeline import FULL, NO_RESPONDERS, WRONG_SEQUENCE
from galley.lanes import Lane
from galley.workflow.state import PREFIX, step_id

log = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSE_SECONDS: Final = 0.25
_KNOWN: Final = 2048
"""Values a process remembers, to write without a read."""
_TRIES: Final = 10


class FlowGone(Exception):
    """A workflow is not there: it has expired, or its end was written and its parts removed."""


class FlowsFull(Exception):
    """The stream of workflows has no room for a value."""


class Place(NamedTuple):
    """The queue that has a workflow, and its id."""

    namespace: str
    queue: str
    flow: str

    @property
    def stream(self) -> str:
        """The stream it is in."""
        return topology.flow_stream(self.namespace, self.queue)

    @property
    def root(self) -> str:
        """Where its root is."""
        return topology.flow_subject(*self)

    def part(self, part: str) -> str:
        """Return where a part of it is."""
        return topology.flow_part_subject(*self, part)

    def address(self, number: int, queue: str = "", lane: Lane = Lane.NORMAL) -> TaskAddress:
        """Return the task of a step, or what a join is encrypted for."""
        return TaskAddress(self.namespace, queue or self.queue, lane, Kind.DIRECT, step_id(self.flow, number))

    def plan(self, index: int) -> TaskAddress:
        """Return what a message of the plan is encrypted for; no task has that id."""
        return replace(self.address(0), id=f"{PREFIX}{self.flow}_plan{index}")


class Codec(NamedTuple, Generic[T]):
    """How a state is stored."""

    encode: Callable[[T], Awaitable[bytes]]
    decode: Callable[[bytes | None], Awaitable[T]]
    """None: there is no such message yet."""


class _Turn(Generic[T]):
    """The changes of one state that wait for the write under way."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[T], T], asyncio.Future[T | None]]] = []
        self.busy = False


class FlowValues:
    """Reads and changes them for one process."""

    def __init__(self, broker: Broker) -> None:
        """Args: broker: an open connection."""
        self._broker = broker
        self._known: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._turns: dict[str, _Turn[Any]] = {}

    async def change(
        self, place: Place, subject: str, keep_seconds: int, codec: Codec[T], change: Callable[[T], T]
    ) -> T:
        """Change a value, and return it.

        Args:
            place: the workflow it is of.
            subject: where it is.
            keep_seconds: how long it is kept from now on.
            codec: how it is stored.
            change: returns the new value; it may be called several times, and must come to the same if
                its change was made before.

        Raises:
            FlowsFull: there is no room.
        """
        while True:
            turn = self._turns.setdefault(subject, _Turn())
            if turn.busy:
                mine: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
                turn.waiting.append((change, mine))
                written: T | None = await mine
                if written is not None:
                    return written
                continue
            turn.busy = True
            try:
                # Those that are ready in this moment go into this write, too.
                await asyncio.sleep(0)
                some, turn.waiting = turn.waiting, []
                try:
                    changes = [change, *(each for each, _ in some)]
                    result: T = await self._write(place, subject, keep_seconds, codec, changes)
                except BaseException:
                    _tell(some, None)
                    raise
                _tell(some, result)
                return result
            finally:
                turn.busy = False
                _tell(turn.waiting, None)  # the first of them writes next
                turn.waiting = []
                if self._turns.get(subject) is turn:
                    del self._turns[subject]

    async def read(self, stream: str, subject: str) -> tuple[bytes, int] | None:
        """Return a message and its sequence, or None if there is none.

        Raises:
            BrokerUnreachable, BrokerRefused: no answer came.
        """
        found = await last_message(self._broker, stream, subject)
        return None if found is None else (found.body, found.sequence)

    async def insist_on_read(self, stream: str, subject: str, at_least: int = 0) -> tuple[bytes, int] | None:
        """Return a message as `read`, asking again while no answer comes.

        Args:
            stream: where it is.
            subject: what it is.
            at_least: a sequence that was there; older copies do not count. None does, the second time: the
                message may have been removed since.
        """
        tries, missing = 0, not at_least
        while True:
            try:
                found = await self.read(stream, subject)
                if missing if found is None else found[1] >= at_least:
                    return found
                missing = found is None
                problem = "only an older copy is to be had"
            except (BrokerUnreachable, BrokerRefused) as error:
                problem = str(error)
            if tries % 40 == 0 and tries:
                log.warning("workflow not read yet", extra={"subject": subject, "error": problem})
            tries += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    async def create(self, place: Place, subject: str, body: bytes, keep_seconds: int) -> bool:
        """Store a message where there is none; returns False if there is one.

        Raises:
            FlowsFull: there is no room.
            BrokerUnreachable, BrokerRefused: it could not be stored.
        """
        headers = header_block({topology.EXPECTED_SEQUENCE: "0", topology.TTL: str(keep_seconds)})
        for _ in range(_TRIES):
            ack = await (await self._broker.pipeline.send(subject, body, headers))
            if ack.stored:
                return True
            if ack.code == WRONG_SEQUENCE:
                return False
            if ack.code == FULL:
                raise FlowsFull(ack.problem)
            if not ack.unanswered and ack.code != NO_RESPONDERS:
                raise BrokerRefused(f"store workflow {place.flow}", ack.code, ack.problem)
            await asyncio.sleep(_PAUSE_SECONDS)
        raise BrokerUnreachable(self._broker.server, f"workflow {place.flow} was not stored")

    def known(self, subject: str) -> Any:
        """Return a value as this process saw it last, or None."""
        known = self._known.get(subject)
        return None if known is None else known[0]

    def remember(self, subject: str, value: Any, sequence: int) -> None:
        """Keep what was read, so that the next change of it needs no read."""
        self._known[subject] = value, sequence
        self._known.move_to_end(subject)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    def forget(self, subject: str) -> None:
        """Forget a value, so that the next change of it reads it."""
        self._known.pop(subject, None)

    def forget_below(self, beginning: str) -> None:
        """Forget all values whose subjects begin so."""
        for subject in [each for each in self._known if each.startswith(beginning)]:
            del self._known[subject]

    async def _write(
        self, place: Place, subject: str, keep_seconds: int, codec: Codec[T], changes: list[Callable[[T], T]]
    ) -> T:
        known = self._known.get(subject)
        tries, at_least = 0, 0
        while True:
            if known is None:
                found = await self.insist_on_read(place.stream, subject, at_least)
                known = (
                    (await codec.decode(None), 0)
                    if found is None
                    else (await codec.decode(found[0]), found[1])
                )
            value, fence = known
            new = value
            for change in changes:
                new = change(new)
            if new == value and fence:
                self.remember(subject, value, fence)
                return new
            headers = header_block({topology.EXPECTED_SEQUENCE: str(fence), topology.TTL: str(keep_seconds)})
            ack = await (await self._broker.pipeline.send(subject, await codec.encode(new), headers))
            if ack.stored:
                self.remember(subject, new, ack.sequence)
                return new
            self.forget(subject)
            known = None
            if ack.code == WRONG_SEQUENCE:
                at_least = ack.last_sequence
                continue
            if ack.code == FULL:
                raise FlowsFull(ack.problem)
            if tries % 40 == 0:
                log.warning("workflow not written yet", extra={"subject": subject, "error": ack.problem})
            tries += 1
            await asyncio.sleep(_PAUSE_SECONDS)


def _tell(waiting: list[tuple[Any, asyncio.Future[Any]]], value: Any) -> None:
    for _, future in waiting:
        if not future.done():
            future.set_result(value)
