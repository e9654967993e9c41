"""Publishing to JetStream without waiting for one acknowledgement after the other.

The library's `js.publish` costs a request each (70 us and one round trip); here all
acknowledgements come in on one inbox and are distinguished by a counter in its last token.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import msgspec
from nats.errors import MaxPayloadError

from galley.broker.errors import SubjectInvalid
from galley.broker.lean_client import LeanClient

log = logging.getLogger(__name__)

WINDOW: Final = 1024
"""Publishes under way at once; more wait. Enough to fill a connection, little enough to re-send."""

NO_RESPONDERS: Final = 503
UNANSWERED: Final = 0
DENIED: Final = 403
WRONG_SEQUENCE: Final = 10071
FULL: Final = 10077
TOO_LARGE: Final = 10054
WRONG_SUBJECT: Final = 400
NO_ROOM: Final = frozenset((10023, 10047, 10028, 10002))
"""The server's room, or the account's, is used up or reserved for others."""


class _Problem(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct, gc=False):
    seq: int = 0
    error: _Problem | None = None


class Ack(msgspec.Struct, frozen=True, gc=False):
    """The broker's answer to one publish: stored under a sequence, or why not."""

    sequence: int
    """Where it was stored; 0 if it was not."""
    code: int = 0
    """The server's `err_code`; `NO_RESPONDERS` if no stream takes the subject, `DENIED` if we may not publish
    there, `WRONG_SUBJECT` if no subject can be like that, `UNANSWERED` if it is not known whether it was
    stored."""
    problem: str = ""

    @property
    def stored(self) -> bool:
        """Whether it is safe in the broker."""
        return self.sequence > 0

    @property
    def unanswered(self) -> bool:
        """Whether it may or may not have been stored."""
        return self.sequence == 0 and self.code == UNANSWERED

    @property
    def last_sequence(self) -> int:
        """The sequence that stood in the way of a compare-and-set; 0 if the subject was empty."""
        digits = self.problem.rpartition(": ")[2]
        return int(digits) if digits.isdigit() else 0


_decode = msgspec.json.Decoder(_Answer).decode

Hear: TypeAlias = Callable[[Ack], None]
"""Takes the answer to one publish, in the middle of reading; it must be quick, and not raise."""


class _Waiting(msgspec.Struct, gc=False):
    hear: Hear
    deadline: float
    subject: str


class PublishPipeline:
    """Sends publishes one behind the other and tells the answer to each."""

    def __init__(self, connection: LeanClient, answer_seconds: float) -> None:
        self._nats = connection
        self._answer_seconds = answer_seconds
        self._prefix = ""
        self._count = 0
        self._waiting: dict[str, _Waiting] = {}
        self._held = False
        self._room: asyncio.Event = asyncio.Event()
        self._sweep: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Subscribe to the inbox of acknowledgements."""
        self._loop = asyncio.get_running_loop()
        self._prefix = self._nats.new_inbox() + "."
        await self._nats.subscribe_directly(self._prefix + "*", self._on_ack)
        self._sweep = self._loop.call_later(1.0, self._expire)

    def close(self) -> None:
        """Stop waiting: what is under way ends as unanswered."""
        if self._sweep is not None:
            self._sweep.cancel()
        self.abandon()

    def abandon(self) -> None:
        """End all waits as unanswered: the connection broke and no acknowledgement will come."""
        waiting, self._waiting = self._waiting, {}
        for waited in waiting.values():
            waited.hear(Ack(0, UNANSWERED, "the connection broke"))
        self._room.set()

    @property
    def busy(self) -> bool:
        """Whether some publish has not been answered yet."""
        return bool(self._waiting)

    def hold(self) -> None:
        """Let further publishes wait until `release`: a reconnect is about to begin."""
        self._held = True

    def release(self) -> None:
        """Let publishes go on."""
        self._held = False
        self._room.set()

    def deny(self, subject: str) -> None:
        """End the waits for a subject, given in lower case, that we may not publish to."""
        for reply, waited in list(self._waiting.items()):
            if waited.subject.lower() == subject:
                del self._waiting[reply]
                waited.hear(Ack(0, DENIED, f"no right to publish to {waited.subject}"))
        self._room.set()

    @property
    def has_room(self) -> bool:
        """Whether a message can be published without waiting."""
        return len(self._waiting) < WINDOW and not self._held and not self._nats.crowded

    async def send(self, subject: str, body: bytes, headers: bytes = b"") -> asyncio.Future[Ack]:
        """Publish as `put`, once there is room."""
        await self.room()
        return self.put(subject, body, headers)

    async def room(self) -> None:
        """Wait for room: fewer than `WINDOW` publishes under way, little unwritten."""
        while self._held or len(self._waiting) >= WINDOW:
            self._room.clear()
            await self._room.wait()
        if self._nats.crowded:
            await self._nats.written()

    def put(self, subject: str, body: bytes, headers: bytes) -> asyncio.Future[Ack]:
        """Publish now.

        The future never raises: what went wrong is in the `Ack`. A message sent while the connection
        is down is not kept for later, so that what is unanswered is decided by the caller.
        """
        assert self._loop is not None, "the broker connection is not open"
        future: asyncio.Future[Ack] = self._loop.create_future()
        self.put_heard(subject, body, headers, partial(_resolve, future))
        return future

    def put_heard(self, subject: str, body: bytes, headers: bytes, hear: Hear) -> None:
        """Publish now, and tell the answer without a turn of the event loop; perhaps before this returns."""
        assert self._loop is not None, "the broker connection is not open"
        if not self._nats.is_connected:
            hear(Ack(0, UNANSWERED, "there is no connection"))
            return
        self._count += 1
        reply = f"{self._prefix}{self._count}"
        try:
            self._nats.publish_directly(subject, body, reply, headers)
        except SubjectInvalid as error:
            hear(Ack(0, WRONG_SUBJECT, str(error)))
        except MaxPayloadError:
            limit = self._nats.max_payload
            hear(Ack(0, TOO_LARGE, f"{len(headers) + len(body)} bytes, the server takes {limit}"))
        else:
            # Only what was sent is waited for. Who gets another error from here must not get an answer, too.
            self._waiting[reply] = _Waiting(hear, self._loop.time() + self._answer_seconds, subject)

    def _on_ack(self, subject: str, _reply: str, data: bytes, _headers: bytes) -> None:
        waited = self._waiting.pop(subject, None)
        if waited is None:
            return
        if len(self._waiting) == WINDOW - 1:
            self._room.set()
        hear = waited.hear
        if not data:
            hear(Ack(0, NO_RESPONDERS, "no stream takes this subject"))
            return
        answer = _decode(data)
        if answer.error is None:
            hear(Ack(answer.seq))
        else:
            problem = answer.error
            hear(Ack(0, problem.err_code or problem.code, problem.description))

    def _expire(self) -> None:
        assert self._loop is not None
        self._sweep = self._loop.call_later(1.0, self._expire)
        now = self._loop.time()
        # Insertion order is the order of deadlines, so the first that is not due ends the search.
        late = []
        for reply, waited in self._waiting.items():
            if waited.deadline > now:
                break
            late.append(reply)
        for reply in late:
            self._waiting.pop(reply).hear(Ack(0, UNANSWERED, f"no answer in {self._answer_seconds:g} s"))
        if late:
            self._room.set()


def _resolve(future: asyncio.Future[Ack], ack: Ack) -> None:
    if not future.done():
        future.set_result(ack)
