"""Pulls: requests for tasks to the consumers of one queue, their deliveries and their statuses.

The library's `fetch` costs an asyncio task and several turns of the loop per message; here all consumers
of a queue deliver to one inbox. A source has at most one open pull, since messages do not name the pull
they answer.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import REQUEST_SECONDS, Broker
from galley.broker.lean_client import header_in, status_in
from galley.broker.mark import forgotten_until
from galley.lanes import Lane

log = logging.getLogger(__name__)

PARK_SECONDS: Final = 30.0
"""Seconds after which a parked pull expires; the server answers it then."""

_HEARTBEAT_SECONDS: Final = 5.0
_SILENT_SECONDS: Final = 2 * _HEARTBEAT_SECONDS
"""A parked pull that was not heard of for so long counts as lost. The connection loses nothing, so it is
enough to allow for one heartbeat that is late by its whole time."""
_LOOK_SECONDS: Final = 1.0
"""Least time between two looks for lost pulls."""
_SWEEP_SECONDS: Final = 2.0
"""A sweep without an answer counts as lost after this; its server may have died."""

NAK: Final = b"-NAK"
"""Sent to `Delivery.reply`: deliver the task again at once, to whichever worker."""


def nak_after(seconds: float) -> bytes:
    """Return what is sent to `Delivery.reply` to have the task delivered again after so many seconds."""
    return b'-NAK {"delay":%d}' % int(seconds * 1e9)


RENEW: Final = b"+WPI"
"""Sent to `Delivery.reply`: the attempt still runs; restarts the lease."""

# A schedule that is due has these words where a task has its kind and lane.
_KINDS: Final = {kind.value: kind for kind in Kind} | {topology.SCHEDULED: Kind.DIRECT}
_LANES: Final = {lane.value: lane for lane in Lane} | {topology.TIMER: Lane.NORMAL}

_EVENT_WORDS: Final = 4
"""Words of the subject of an event; in its address the topic stands where a task has its queue."""


_PATTERNS: Final = ("*", ">")
_NO_ID: Final = re.compile(r"[\x00-\x20\x7f]|^[*>]$")


def _shown(task_id: str) -> str:
    """Return an id as it can stand in a subject: one that is a pattern would mean all tasks of the queue."""
    text = task_id.encode("utf-8", "backslashreplace").decode()
    return _NO_ID.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class Source(NamedTuple):
    """One consumer: of a lane of the work or the later stream, of tasks to be planned, or of schedules."""

    stream: str
    lane: Lane
    other: str = ""
    """Name of the consumer, if it is not that of the lane."""

    @property
    def consumer(self) -> str:
        """Name of the consumer."""
        return self.other or self.lane.value


class Delivery(NamedTuple):
    """A task as the broker delivered it, not decoded yet."""

    address: TaskAddress
    source: Source
    sequence: int
    """Its sequence in the stream; stream and sequence together identify the message permanently."""
    delivered: int
    """How often it was delivered, this time included. Not a count of crashes: it includes give-backs."""
    old: bool
    """Whether the server may have forgotten that it delivered it before: a server that was killed forgets
    some deliveries, and counts the next one as the first (`galley.broker.mark`)."""
    reply: str
    """Subject of its acknowledgement."""
    body: bytes
    header: str | None
    problem: str = ""
    """Why it cannot be a task, whatever its body says; empty for nearly all."""
    stored_at: float = 0.0
    """Since when it could run, by the server's clock, in seconds since 1970."""


class _Open:
    """An open pull: the number of tasks still to come, and when the server was last heard."""

    __slots__ = ("ended", "heard", "left", "token")

    def __init__(self, token: str, batch: int, heard: float, ended: asyncio.Future[None] | None) -> None:
        self.token, self.left, self.heard, self.ended = token, batch, heard, ended

    def end(self) -> None:
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)


class Listener(Protocol):
    """Receives the deliveries of pulls."""

    def delivered(self, delivery: Delivery) -> None:
        """Take a task."""

    def changed(self) -> None:
        """Pull again: a parked pull ended, with its last task or without one."""

    def reconnected(self) -> None:
        """Give back deliveries that have not begun: they were made on the old connection."""


class Pulls:
    """The pulls of one worker on one queue. Use it as `async with`."""

    def __init__(
        self,
        broker: Broker,
        layout: topology.QueueLayout,
        listener: Listener,
        only: Sequence[Source] = (),
    ) -> None:
        """Args: only: the sources, if they are not those of all lanes."""
        self._broker = broker
        self._listener = listener
        self._work = topology.work_stream(layout.namespace, layout.queue)
        self._old_until: int | None = None
        self._oriented_on = 0
        self.sources = {
            lane: (
                Source(topology.later_stream(layout.namespace, layout.queue), lane),
                Source(topology.work_stream(layout.namespace, layout.queue), lane),
            )
            for lane in layout.lanes
        }
        every = only or [source for pair in self.sources.values() for source in pair]
        self._by_name = {(source.stream, source.consumer): source for source in every}
        self._open: dict[Source, _Open] = {}
        self._by_token: dict[str, Source] = {}
        self._count = 0
        self._prefix = ""
        self._subscription: Subscription | None = None
        self._hooks = ExitStack()
        self.heard_at = 0.0
        """Loop time of the last answer of a consumer, from which liveness is derived."""
        self.refusals = 0
        """Pulls refused since this was last set to 0."""

    async def __aenter__(self) -> Self:
        self._subscription = await self._subscribe()
        self._hooks.callback(self._broker.on_disconnect(self._on_disconnect))
        self._hooks.callback(self._broker.on_reconnect(self._on_reconnect))
        self.heard_at = asyncio.get_running_loop().time()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    async def end(self) -> None:
        """End all pulls; deliveries that were already sent still arrive before this returns."""
        subscription, self._subscription = self._subscription, None
        self._hooks.close()
        if subscription is not None:
            try:
                if self._broker.connected:
                    # The inbox stays until the server has confirmed that nothing more comes.
                    async with asyncio.timeout(REQUEST_SECONDS):
                        await subscription.drain()  # type: ignore[no-untyped-call]
            except (TimeoutError, NatsError, OSError) as error:
                # Tasks that are still delivered to it come back when their leases end.
                log.warning("pulls ended without an answer", extra={"error": str(error)})
            finally:
                self._broker.unsubscribe(subscription)
        self._forget_pulls()

    async def orient(self) -> None:
        """Find out which deliveries may have been forgotten; needed once per connection, before pulls.

        Raises:
            BrokerError: the broker does not answer yet, or the queue has no streams.
        """
        # Not "since this pulling began": a worker that paused on the same connection has missed nothing.
        while self._oriented_on != (connection := self._broker.connection):
            self._old_until = None
            life, action = self._broker.nats.life, f"look at stream {self._work}"
            info = await self._broker.api(action, f"STREAM.INFO.{self._work}")
            # What was asked before a reconnection may be answered after it, by a later life of the server.
            if life == self._broker.nats.life:
                self._old_until = forgotten_until(info, life)
                self._oriented_on = connection

    def is_open(self, source: Source) -> bool:
        """Whether a pull waits at that source, so that it is known to be empty."""
        return source in self._open

    async def sweep(self, source: Source, batch: int) -> int:
        """Ask for up to `batch` tasks that are ready now; return how many arrived."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        pull = await self._ask(source, batch, f'{{"batch":{batch},"no_wait":true}}', ended)
        timer = loop.call_later(_SWEEP_SECONDS, self._give_up, source, ended)
        try:
            await ended
        finally:
            timer.cancel()
        return batch - pull.left

    async def park(self, source: Source, batch: int = 1) -> None:
        """Leave a pull open for the next tasks of a source that is empty now."""
        numbers = batch, int(PARK_SECONDS * 1e9), int(_HEARTBEAT_SECONDS * 1e9)
        body = '{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % numbers  # noqa: UP031 - braces
        await self._ask(source, batch, body, None)

    def drop_silent(self) -> float:
        """Forget parked pulls whose heartbeats stopped: their server died.

        Returns:
            The loop time of the next look: when another may have been silent for too long, or in a second.
        """
        now = asyncio.get_running_loop().time()
        heard = now
        for source, pull in list(self._open.items()):
            if pull.ended is not None:
                continue
            if pull.heard + _SILENT_SECONDS <= now:
                log.warning("parked pull lost", extra={"lane": source.lane, "stream": source.stream})
                self._close(source)
                self._listener.changed()
            else:
                heard = min(heard, pull.heard)
        # Not at once again, which the rounding of times could ask for: who waits for it would never wait.
        return max(heard + _SILENT_SECONDS, now + _LOOK_SECONDS)

    async def _ask(self, source: Source, batch: int, body: str, ended: asyncio.Future[None] | None) -> _Open:
        self._count += 1
        token = f"{self._prefix}{self._count}"
        now = asyncio.get_running_loop().time()
        pull = self._open[source] = _Open(token, batch, now, ended)
        self._by_token[token] = source
        self._broker.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{source.stream}.{source.consumer}", body.encode(), token
        )
        return pull

    def _on_message(self, subject: str, reply: str, body: bytes, headers: bytes) -> None:
        if subject.startswith(self._prefix):
            self._on_status(subject, headers)
            return
        stream, consumer, delivered, at, _, nanoseconds, *_ = topology.parse_ack_subject(reply)
        source = self._by_name[stream, consumer]
        names = subject.split(".")
        if len(names) == _EVENT_WORDS:
            names += (Lane.NORMAL, Kind.DIRECT, "-")
        task_id, problem = names[6], ""
        if not (task_id.isascii() and task_id.isprintable()) or task_id in _PATTERNS:
            task_id = _shown(task_id)
            problem = "" if task_id == names[6] else f"no task can have its id: {task_id}"
        address = TaskAddress(names[2], names[3], _LANES[names[4]], _KINDS[names[5]], task_id)
        sequence = int(at)
        pull = self._open.get(source)
        filled = False
        if pull is not None:
            pull.left -= 1
            if pull.left == 0:
                filled = pull.ended is None
                self.heard_at = asyncio.get_running_loop().time()
                self._close(source)
        self._listener.delivered(
            Delivery(
                address,
                source,
                sequence,
                int(delivered),
                self._old_until is None or (source.stream == self._work and sequence <= self._old_until),
                reply,
                body,
                header_in(headers, topology.FLAGS_HEADER),
                problem,
                int(nanoseconds) / 1e9,
            )
        )
        if filled:
            # More may wait behind it, and slots may be free for them: no pull is left at this source.
            self._listener.changed()

    def _on_status(self, subject: str, headers: bytes) -> None:
        source = self._by_token.get(subject)
        pull = self._open.get(source) if source is not None else None
        now = asyncio.get_running_loop().time()
        status, description = status_in(headers)
        if status in ("100", "404", "408"):
            self.heard_at = now
        if source is None or pull is None or pull.token != subject:
            return
        if status == "100":
            pull.heard = now
            return
        if status not in ("404", "408"):
            # 409 and 503: the consumer is gone, its server is leaving, or there is no leader just now.
            self.refusals += 1
            self._oriented_on = 0  # a consumer that is made again counts from one
            log.info("pull refused", extra={
                "lane": source.lane, "status": status, "error": description})  # fmt: skip
        parked = pull.ended is None
        self._close(source)
        if parked:
            self._listener.changed()

    def _give_up(self, source: Source, ended: asyncio.Future[None]) -> None:
        pull = self._open.get(source)
        if pull is not None and pull.ended is ended:
            self._close(source)

    def _close(self, source: Source) -> None:
        pull = self._open.pop(source)
        self._by_token.pop(pull.token, None)
        pull.end()

    async def _subscribe(self) -> Subscription:
        self._prefix = self._broker.nats.new_inbox() + "."
        return await self._broker.nats.subscribe_directly(self._prefix + "*", self._on_message)

    async def _on_disconnect(self) -> None:
        """Take another inbox: the server goes on with a pull as long as its inbox has a subscription.

        A parked pull of the lost connection would get tasks. Their way back to us, through another account,
        is gone, and they would come again only when their lease ends.
        """
        if (lost := self._subscription) is None:
            return
        self._broker.unsubscribe(lost)
        subscription = await self._subscribe()
        if self._subscription is lost:
            self._subscription = subscription
        else:  # these pulls were ended meanwhile
            self._broker.unsubscribe(subscription)

    async def _on_reconnect(self) -> None:
        self._old_until = None
        self._oriented_on = 0
        self.heard_at = asyncio.get_running_loop().time()
        self._forget_pulls()
        self._listener.reconnected()

    def _forget_pulls(self) -> None:
        """Forget all pulls: they are not answered any more."""
        for source in list(self._open):
            self._close(source)
        self._listener.changed()
