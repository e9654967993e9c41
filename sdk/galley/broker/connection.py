"""The connection to NATS: opened once per process, checked, and made again whenever it breaks."""

import asyncio
import contextlib
import functools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from galley.broker import websocket
from galley.broker.cancellation import cancellations, next_message, raise_if_cancelled
from galley.broker.clock_watch import ClockWatch
from galley.broker.connection_errors import ConnectionErrors
from galley.broker.errors import (
    BrokerError,
    BrokerFull,
    BrokerRefused,
    BrokerUnreachable,
    SubjectInvalid,
)
from galley.broker.home import Home
from galley.broker.identity import Identity, Source
from galley.broker.lean_client import LeanClient
from galley.broker.lean_parser import React
from galley.broker.news import News
from galley.broker.permissions import INBOX
from galley.broker.pipeline import NO_ROOM, PublishPipeline
from galley.broker.questions import Questions
from galley.broker.renewal import Renewal
from galley.broker.server_address import check_server, shown_server
from galley.broker.server_check import NO_LEADER, check_jetstream
from galley.encryption.payloads import Payloads
from galley.errors import ClientClosed
from galley.tls import Tls, required_by

if TYPE_CHECKING:
    from galley.broker.live import Live
    from galley.objects.store import Objects

log = logging.getLogger(__name__)

DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"

REQUEST_SECONDS: Final = 5.0
"""How long one request to the broker may take; a leader election takes less."""

NOT_PICKLED: Final = (
    "what has a connection can be neither pickled nor copied: pass on the id of a task, "
    "and find it again with client.handle(queue, id)"
)

_CLOSE_SECONDS: Final = 1.0
_RECONNECT_SECONDS: Final = 1.0
"""Between two attempts to reconnect, give or take a half, which is drawn for each connection."""
_PING_SECONDS: Final = 5
"""A silent peer is noticed after two or three of these; the library's default takes minutes."""


class Broker:
    """One connection to NATS with a pipeline for publishing. Use it as `async with Broker(...)`.

    It reconnects for as long as it is open. What waits for an answer when the connection breaks
    learns so at once and decides for itself whether to try again.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        name: str,
        connect_seconds: float = 5.0,
        credentials: Source | None = None,
        tls: Tls | None = None,
        payloads: Payloads | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Describe the connection; it is made by `async with`.

        Args:
            server: address of NATS.
            name: what it is called there.
            connect_seconds: how long to try at first.
            credentials: file (or function) with credentials; read again for each connection.
            tls: how to encrypt the connection, which then never is plain text. None is the same for a `tls://`
                address, with the authorities of the system; else the server decides.
            payloads: encrypts and decrypts what tasks carry; None leaves it as it is.
            clock: seconds since 1970; the age of credentials and the server's clock are held against it.
        """
        self.server = shown_server(server)
        """Its address, for people: without the password."""
        self.objects_at: Mapping[str, str] = {}
        """The environment that names the bucket new objects go to; empty for the streams of the queues."""
        self.payloads = payloads or Payloads()
        """What tasks carry, encrypted where their queue has keys."""
        self._address = server
        self._tls = tls or required_by(server)
        self.nats = LeanClient(self._tls)
        self.pipeline = PublishPipeline(self.nats, REQUEST_SECONDS)
        self.connection = 1
        """Number of the present connection; what was learned on an earlier one may no longer be true."""
        self._name = name
        self._connect_seconds = connect_seconds
        self._reconnected: list[Callable[[], Awaitable[None]]] = []
        self._disconnected: list[Callable[[], Awaitable[None]]] = []
        self._identity = None if credentials is None else Identity(credentials)
        self._errors = ConnectionErrors(self.server, self._tls, self._identity)
        self._renewal: asyncio.Task[None] | None = None
        self._questions = Questions()
        self._home: Home | None = None
        self._opened = False
        self._closed = False
        self._on_close: list[Callable[[], None]] = []
        self._clock = clock
        self._clock_watch = ClockWatch(self.server)
        self._on_unheard: list[Callable[[str], None]] = []
        self.nats.denied = self._on_denied
        self.nats.unheard = self._tell_unheard

    async def __aenter__(self) -> Self:
        """Connect, and check that the server can do what Galley needs.

        Raises:
            ServerInvalid: if that is no address.
            BrokerUnreachable: if nothing answers within `connect_seconds`.
            CredentialsInvalid: if the credentials file cannot be read.
            TlsInvalid: if a file with certificates or a key cannot be used.
            CertificateRefused, ClientCertificateRefused, NotEncrypted, TlsFailed: if there is no encrypted
                connection.
            AccessRefused, CredentialsExpired: if authentication failed.
            BrokerTooOld: if the server has no message schedules or no JetStream.
            ClientClosed: if it was opened before.
        """
        if self._home is not None:
            raise ClientClosed(self.server)
        check_server(self._address)
        websocket.prepare(self._address)
        if self._tls is not None:
            self._tls.context()
        self._home = Home.here()
        inbox = INBOX if self._identity is None else self._identity.read().inbox
        cancelled = cancellations()

        def waits(said: str) -> None:
            self._errors.last = said
            raise_if_cancelled(since=cancelled)

        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._connect(inbox, cancelled)
                await check_jetstream(self.nats, self.server, waits)
                raise_if_cancelled(since=cancelled)
        except (TimeoutError, OSError, NatsError) as error:
            await self._abandon()
            problem = str(error) or self._errors.last or f"no answer in {self._connect_seconds:g} s"
            raise self._unreachable(problem) from error
        except BaseException:
            await self._abandon()
            raise
        self._errors.clear()
        self._opened = True
        await self.pipeline.open()
        if self._identity is not None:
            self._renewal = asyncio.create_task(
                Renewal(self, self._identity, self._questions, self._clock).run(), name="newer credentials"
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for react in tuple(self._on_close):
            react()
        self.pipeline.close()
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                if self.nats.is_connected:
                    await self.nats.flush()
                await self.nats.close()
        except (TimeoutError, NatsError, OSError) as problem:
            log.warning("broker connection not closed cleanly", extra={"error": str(problem)})

    def __reduce__(self) -> NoReturn:
        raise TypeError(NOT_PICKLED)

    @functools.cached_property
    def objects(self) -> "Objects":
        """The store of what is too large for a task."""
        from galley.objects.store import Objects  # noqa: PLC0415 - it uses this module

        return Objects.at(self, self.objects_at)

    @functools.cached_property
    def news(self) -> News:
        """What waiters hear of changed records."""
        return News(self)

    @functools.cached_property
    def live(self) -> "Live":
        """What listeners hear of the events of topics."""
        from galley.broker.live import Live  # noqa: PLC0415 - it uses this module

        return Live(self)

    @property
    def has_credentials(self) -> bool:
        """Whether it identifies itself to the server, and so may be limited to what its role may do."""
        return self._identity is not None

    @property
    def connected(self) -> bool:
        """Whether the server can be spoken to at this moment."""
        return self.nats.is_connected

    def on_reconnect(self, react: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Call `react` after each reconnection; returns what to call to end that."""
        self._reconnected.append(react)
        return lambda: self._reconnected.remove(react)

    def on_disconnect(self, react: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Call `react` when the connection is lost, before it is made again.

        Returns:
            What to call to end that.
        """
        self._disconnected.append(react)
        return lambda: self._disconnected.remove(react)

    def on_close(self, react: Callable[[], None]) -> Callable[[], None]:
        """Call `react` when the connection is closed for good; returns what to call to end that."""
        self._on_close.append(react)
        return lambda: self._on_close.remove(react)

    def on_unheard(self, react: Callable[[str], None]) -> Callable[[], None]:
        """Call `react` with each subject, in lower case, that our credentials do not let us hear.

        Returns:
            What to call to end that.
        """
        self._on_unheard.append(react)
        return lambda: self._on_unheard.remove(react)

    def check_usable(self) -> None:
        """Check that the connection is open, and was opened where this is called.

        Raises:
            ClientClosed: if it is closed, or not opened yet.
            ClientElsewhere: if it was opened in another process, thread or event loop.
        """
        if self._home is None:
            raise ClientClosed(self.server)
        self._home.check(self.server, closed=self._closed)

    def publish(self, subject: str, body: bytes = b"", reply: str = "") -> None:
        """Send without asking for an answer. A broken connection swallows it, and so does a wrong subject."""
        if not self.nats.is_connected:
            return
        try:
            self.nats.publish_directly(subject, body, reply)
        except MaxPayloadError:
            log.warning("not sent, too large", extra={"subject": subject, "bytes": len(body)})
        except SubjectInvalid as error:
            log.warning("not sent", extra={"error": str(error)})

    async def reached(self, within: float) -> bool:
        """Return whether all that was sent so far has reached the server, waiting `within` seconds."""
        connection, cancelled = self.connection, cancellations()
        try:
            await self.nats.flush(max(1, round(within)))
        except (NatsError, OSError, TimeoutError):
            return False
        raise_if_cancelled(since=cancelled)
        # While a connection is lost, the library says at once that all is well.
        return self.connected and self.connection == connection

    async def subscribe(self, subject: str, react: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Call `react` with each message on `subject`. What it raises is logged, and costs that message.

        Raises:
            ClientClosed, ClientElsewhere: if the connection cannot be used here.
            BrokerUnreachable: if the connection is closing.
        """

        async def heard(message: Msg) -> None:
            try:
                await react(message)
            except Exception:  # the library would tell it as an error of the connection, without a traceback
                log.exception("message not handled", extra={"subject": message.subject})

        return await self._subscribe(subject, lambda: self.nats.subscribe(subject, cb=heard))

    async def subscribe_directly(self, subject: str, react: React) -> Subscription:
        """Call `react` with each message on `subject` in the middle of reading; it must be quick.

        Raises:
            ClientClosed, ClientElsewhere, BrokerUnreachable: as `subscribe`.
        """
        return await self._subscribe(subject, lambda: self.nats.subscribe_directly(subject, react))

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription for good, whether or not the connection is lost or closed at present."""
        self.nats.end_subscription(subscription)

    async def _subscribe(
        self, subject: str, subscribe: Callable[[], Awaitable[Subscription]]
    ) -> Subscription:
        self.check_usable()
        try:
            return await subscribe()
        except NatsError as error:
            raise BrokerUnreachable(self.server, f"{subject}: {error}") from error

    async def request(self, subject: str, body: bytes, seconds: float = REQUEST_SECONDS) -> Msg | None:
        """Return the first answer, or None if there is no responder.

        Raises:
            NotAllowed: if our credentials are not good for that.
            BrokerUnreachable, AccessRefused, CredentialsExpired: if no answer came in time.
        """
        self.check_usable()
        await self._questions.turn()
        try:
            with self._questions.asking(subject) as allowed:
                async with allowed:
                    cancelled = cancellations()
                    answer = await self.nats.request(subject, body, timeout=seconds)
                    raise_if_cancelled(since=cancelled)
                    return answer
        except NoRespondersError:
            return None
        except (NatsTimeoutError, TimeoutError) as error:
            raise self._unreachable(f"no answer on {subject} in {seconds:g} s") from error
        except (NatsError, OSError) as error:
            raise self._unreachable(f"{subject}: {str(error) or type(error).__name__}") from error

    async def request_many(
        self, subject: str, body: bytes, seconds: float = REQUEST_SECONDS
    ) -> AsyncIterator[Msg]:
        """Yield one answer after the other until the caller has heard enough.

        Raises:
            NotAllowed: if our credentials are not good for that.
            BrokerUnreachable, AccessRefused, CredentialsExpired: if nothing came for `seconds`.
        """
        self.check_usable()
        await self._questions.turn()
        inbox = self.nats.new_inbox()
        subscription = await self._subscribe(inbox, lambda: self.nats.subscribe(inbox))
        try:
            with self._questions.asking(subject) as allowed:
                async with allowed:
                    await self.nats.publish(subject, body, inbox)
                    first = await next_message(subscription, seconds)
                yield first
                while True:
                    yield await next_message(subscription, seconds)
        except (NatsTimeoutError, TimeoutError) as error:
            raise self._unreachable(f"no answer on {subject} in {seconds:g} s") from error
        except NatsError as error:
            raise self._unreachable(f"{subject}: {error}") from error
        finally:
            self.unsubscribe(subscription)

    async def api(self, action: str, subject: str, request: object = None) -> dict[str, Any]:
        """Return the answer of the JetStream API.

        Args:
            action: what is being done, for the message of an error, such as "create stream GW_a_b".
            subject: the API's subject after `$JS.API.`.
            request: what to send, as JSON.

        Raises:
            BrokerRefused: if the answer is an error; its `code` is the server's `err_code`.
            BrokerFull: if that is for want of room.
            BrokerUnreachable: if no answer came in time, or the servers have no leader at present.
        """
        body = b"" if request is None else msgspec.json.encode(request)
        asked_at = self._clock()
        answer = await self.request(f"$JS.API.{subject}", body)
        if answer is None:
            raise BrokerUnreachable(self.server, "JetStream does not answer (not enabled, or no leader)")
        decoded: dict[str, Any] = msgspec.json.decode(answer.data)
        if error := decoded.get("error"):
            code, said = error.get("err_code", 0), error.get("description", "no description")
            if code == NO_LEADER:
                raise BrokerUnreachable(self.server, f"{said} (its servers have no leader)")
            raise (BrokerFull if code in NO_ROOM else BrokerRefused)(action, code, said)
        if told := decoded.get("ts"):
            self._clock_watch.compare(told, asked_at, self._clock())
        return decoded

    def _on_denied(self, subject: str) -> None:
        self.pipeline.deny(subject)
        self._questions.deny(subject)

    def _tell_unheard(self, subject: str) -> None:
        for react in tuple(self._on_unheard):
            react(subject)

    def _unreachable(self, problem: str) -> BrokerError:
        return self._errors.why(problem, connected=self.connected)

    async def _connect(self, inbox: str, cancelled: int) -> None:
        identity = self._identity

        async def failed(error: Exception) -> None:
            # An exception raised here would end the library's read loop for good (nats.py#914).
            self._errors.add(error, opened=self._opened, connected=self.connected)
            if not self._opened:
                # The library would try again, for good: who opens the connection was cancelled meanwhile.
                raise_if_cancelled(since=cancelled)

        # All who lose a server do so at the same moment; they need not return in one.
        wait = _RECONNECT_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load
        await self.nats.connect(
            self._address,
            inbox_prefix=inbox,
            signature_cb=identity.sign if identity else None,
            user_jwt_cb=identity.token if identity else None,
            tls_hostname=self._tls.server_name if self._tls else None,
            name=self._name,
            ping_interval=_PING_SECONDS,
            max_reconnect_attempts=-1,
            reconnect_time_wait=wait,  # type: ignore[arg-type]
            connect_timeout=2,
            skip_subject_validation=True,
            error_cb=failed,
            disconnected_cb=self._on_disconnect,
            reconnected_cb=self._on_reconnect,
        )

    async def _abandon(self) -> None:
        # Closing waits for a peer that never answers, longer than our callers wait.
        with contextlib.suppress(TimeoutError, NatsError, OSError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.nats.give_up()

    async def _on_disconnect(self) -> None:
        self.connection += 1
        self.pipeline.abandon()
        if not self.nats.is_closed:
            await self._tell(self._disconnected)

    async def _on_reconnect(self) -> None:
        self._errors.clear()
        log.info("broker connection is back", extra={"server": self.server})
        await self._tell(self._reconnected)

    async def _tell(self, parts: list[Callable[[], Awaitable[None]]]) -> None:
        for react in tuple(parts):
            try:
                await react()
            except Exception:
                # An exception raised here would end the library's read loop.
                log.exception("a part did not recover from a reconnection")
