"""All streams in one listing that many readers share, and what it tells of each queue."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg

from galley.backlog import Totals, Usage
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError, BrokerRefused, BrokerUnreachable
from galley.broker.listing import paged
from galley.lanes import HIGHEST_FIRST, Lane
from galley.unreadable import UNREADABLE

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 1.0
"""How long one question may take; what is silent for longer is asked again next time."""

LISTING_SECONDS: Final = 0.5
"""Readers that come within this time share a listing: all queues' sweeps cost about two a second."""


class Problem(Struct):
    """An error of the JetStream API."""

    err_code: int = 0
    description: str = ""


class Answer(Struct):
    """An answer of the JetStream API."""

    error: Problem | None = None


A = TypeVar("A", bound=Answer)


class _State(Struct):
    messages: int
    first_seq: int
    last_seq: int
    bytes: int = 0

    @property
    def fingerprint(self) -> tuple[int, int, int]:
        return self.messages, self.first_seq, self.last_seq


class _Config(Struct):
    name: str
    metadata: dict[str, str] = {}
    max_msgs: int = -1
    max_bytes: int = -1


class Stream(Struct):
    """A stream as it was when the streams were listed."""

    config: _Config
    state: _State

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes of the queue whose work stream it is."""
        words = self.config.metadata.get(topology.LANES_KEY, "").split(",")
        return tuple(lane for lane in HIGHEST_FIRST if lane in words)


class _Page(Answer):
    total: int = 0
    streams: list[Stream] | None = None
    missing: list[str] | None = None


_decode_page = msgspec.json.Decoder(_Page).decode


async def request(broker: Broker, subject: str, body: object) -> Msg:
    """Return the answer of the JetStream API to one question.

    Raises:
        BrokerUnreachable: none came within `ANSWER_SECONDS`.
        NotAllowed: our credentials are not good for that.
    """
    if not broker.connected:
        raise BrokerUnreachable(broker.server, "there is no connection")
    encoded = b"" if body is None else msgspec.json.encode(body)
    answer = await broker.request(f"$JS.API.{subject}", encoded, ANSWER_SECONDS)
    if answer is None:
        raise BrokerUnreachable(broker.server, f"no answer on {subject}")
    return answer


async def ask(broker: Broker, subject: str, body: object, decode: Callable[[bytes], A]) -> A:
    """Return the decoded answer of the JetStream API.

    Raises:
        BrokerUnreachable, NotAllowed: as `request`.
        BrokerRefused: the answer is an error, or cannot be read.
    """
    try:
        answer = decode((await request(broker, subject, body)).data)
    except UNREADABLE as error:
        raise BrokerRefused(f"answer {subject} as expected", 0, str(error)) from error
    if answer.error is not None:
        raise BrokerRefused(f"answer {subject}", answer.error.err_code, answer.error.description)
    return answer


class StreamListing:
    """The streams as they were when they were listed last."""

    def __init__(self, broker: Broker) -> None:
        """Args: broker: an open connection."""
        self._broker = broker
        self._turn = asyncio.Lock()
        self._listed_at = float("-inf")
        self._streams: dict[str, Stream] = {}
        self._missing: set[str] = set()
        self.problem = "not asked yet"
        """Why there is no listing; empty if there is one."""
        self._error: BrokerError | None = None

    async def refresh(self) -> None:
        """Have a listing that is not older than `LISTING_SECONDS`, or know why there is none."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if loop.time() - self._listed_at < LISTING_SECONDS:
                return
            self._listed_at = loop.time()
            self._missing.clear()
            try:
                self._streams = {stream.config.name: stream async for stream in self._all()}
                self.problem, self._error = "", None
            except BrokerError as error:
                # A listing is gathered from all servers and fails with one of them; lanes still answer.
                self._streams, self.problem, self._error = {}, str(error), error
                log.warning("streams not listed", extra={"error": str(error)})

    def get(self, stream: str) -> Stream | None:
        """Return a stream, or None if it is not in the listing."""
        return self._streams.get(stream)

    def queues(self, namespace: str) -> list[str]:
        """Return the names of the queues of a namespace.

        Raises:
            BrokerUnreachable, BrokerRefused: why there is no listing.
        """
        if self._error is not None:
            raise self._error
        found = []
        for name, stream in self._streams.items():
            queue = stream.config.metadata.get(topology.QUEUE_KEY, "")
            if stream.config.metadata.get(
                topology.NAMESPACE_KEY
            ) == namespace and name == topology.work_stream(namespace, queue):
                found.append(queue)
        return sorted(found)

    def lacks(self, stream: str) -> bool:
        """Return whether the listing is complete and a stream is not in it."""
        return not self.problem and stream not in self._streams and stream not in self._missing

    def totals(self, namespace: str, queue: str) -> Totals | None:
        """Return how many messages a queue has had; None if its streams were not listed."""
        work = self.get(topology.work_stream(namespace, queue))
        dead = self.get(topology.dead_stream(namespace, queue))
        counts = self.get(topology.counts_stream(namespace, queue))
        if work is None or dead is None:
            return None
        changes = counts.state.last_seq if counts is not None else 0
        return Totals(work.state.last_seq, dead.state.last_seq, dead.state.messages, changes)

    def usage(self, namespace: str, queue: str) -> Iterator[Usage]:
        """Yield how much of each limit of a queue is used."""
        name = namespace, queue
        work = self.get(topology.work_stream(*name))
        if work is not None and work.config.max_msgs > 0:
            yield Usage("backlog", work.state.messages, work.config.max_msgs)
        for quota, stream, share in (
            ("backlogBytes", work, 1.0),
            ("laterBytes", self.get(topology.later_stream(*name)), topology.RETRY_SHARE),
            ("deadLetterBytes", self.get(topology.dead_stream(*name)), 1.0),
            ("objectBytes", self.get(topology.object_stream(*name)), 1.0),
            ("workflowBytes", self.get(topology.flow_stream(*name)), topology.FLOW_SHARE),
        ):
            if stream is not None and stream.config.max_bytes > 0:
                yield Usage(quota, stream.state.bytes, int(stream.config.max_bytes * share))

    async def _all(self) -> AsyncIterator[Stream]:
        async def page(offset: int) -> tuple[list[Stream], int]:
            listed = await ask(self._broker, "STREAM.LIST", {"offset": offset}, _decode_page)
            self._missing.update(listed.missing or ())
            return listed.streams or [], listed.total

        async for stream in paged(page):
            yield stream
