"""The server's directory of accounts, and the servers themselves: what the system account is for.

It is reached through the system account, on a connection of its own: a connection belongs to one account.
"""

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Final, Self

import msgspec
from msgspec import Struct
from nats.errors import Error as NatsError

from galley.broker.cancellation import cancellations, next_message, raise_if_cancelled
from galley.broker.encryption import tls_error
from galley.broker.errors import BrokerError, BrokerRefused, BrokerUnreachable
from galley.broker.identity import Identity, Source
from galley.broker.lean_client import LeanClient
from galley.tls import Tls, required_by
from galley.unreadable import UNREADABLE

log = logging.getLogger(__name__)

_REQUEST_SECONDS: Final = 5.0
_QUIET_SECONDS: Final = 0.5
"""How long after an answer of one server another one is waited for."""


class _Data(Struct, frozen=True):
    code: int = 0
    message: str = ""


class _Problem(Struct, frozen=True):
    code: int = 0
    description: str = ""


class _Reply(Struct, frozen=True):
    data: _Data = _Data()
    error: _Problem | None = None


class _ServerInfo(Struct, frozen=True):
    id: str
    tags: tuple[str, ...] = ()


class _ServerReply(Struct, frozen=True):
    server: _ServerInfo


_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_server = msgspec.json.Decoder(_ServerReply).decode


class AccountDirectory:
    """A connection to the system account. Use it as `async with`; it reconnects for as long as it is open."""

    def __init__(
        self, server: str, credentials: Source, connect_seconds: float = 5.0, tls: Tls | None = None
    ) -> None:
        """Describe the connection.

        Args:
            server: address of NATS.
            credentials: of a user of the system account.
            connect_seconds: how long to try at first.
            tls: how to encrypt the connection; as for a `Broker`.
        """
        self._server, self._connect_seconds = server, connect_seconds
        self._identity = Identity(credentials)
        self._tls = tls or required_by(server)
        self._nats = LeanClient(self._tls)
        self._tls_problem: BrokerError | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnreachable: if that does not succeed within `connect_seconds`.
            TlsFailed: if there is no encrypted connection.
        """
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._nats.connect(
                    self._server,
                    name="galley accounts",
                    tls_hostname=self._tls.server_name if self._tls else None,
                    signature_cb=self._identity.sign,
                    user_jwt_cb=self._identity.token,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=2,
                    error_cb=self._on_error,
                )
        except (TimeoutError, OSError, NatsError) as error:
            await self._close()
            raise self._tls_problem or BrokerUnreachable(self._server, f"system account: {error}") from error
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def read(self, account: str) -> str:
        """Return the claims of an account as a signed token; empty if the server has none.

        Raises:
            BrokerUnreachable: if no answer came in time.
        """
        return (await self._request(f"$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP", b"")).decode()

    async def store(self, token: str) -> None:
        """Store the claims of an account; live connections of the account are held to them at once.

        Raises:
            BrokerUnreachable: if no answer came in time.
            BrokerRefused: if the server does not accept the token.
        """
        self._check("store an account", await self._request("$SYS.REQ.CLAIMS.UPDATE", token.encode()))

    async def remove(self, token: str) -> None:
        """Remove the accounts that a token, signed by the operator, names.

        Raises:
            BrokerUnreachable: if no answer came in time.
            BrokerRefused: if the server does not accept the token.
        """
        self._check("remove an account", await self._request("$SYS.REQ.CLAIMS.DELETE", token.encode()))

    async def tags(self) -> dict[str, frozenset[str]]:
        """Return the tags in the configuration of each server, by its id.

        Raises:
            BrokerUnreachable: if no server answered in time.
        """
        found: dict[str, frozenset[str]] = {}
        inbox = self._nats.new_inbox()
        try:
            answers = await self._nats.subscribe(inbox)
            try:
                await self._nats.publish("$SYS.REQ.SERVER.PING.STATSZ", b"", inbox)
                while True:
                    # Nothing says how many servers there are; one that is late is asked again next time.
                    wait = _QUIET_SECONDS if found else _REQUEST_SECONDS
                    server = _decode_server((await next_message(answers, wait)).data).server
                    found[server.id] = frozenset(server.tags)
            finally:
                self._nats.end_subscription(answers)
        except (NatsError, OSError, TimeoutError, *UNREADABLE) as error:
            if found:
                return found
            problem = str(error) or type(error).__name__
            raise BrokerUnreachable(self._server, f"system account, servers: {problem}") from error

    async def reload(self, server: str) -> None:
        """Have a server read its configuration and its certificates again.

        Raises:
            BrokerUnreachable: if no answer came in time.
            BrokerRefused: if it keeps the old ones, because the new ones cannot be used.
        """
        self._check("load its configuration", await self._request(f"$SYS.REQ.SERVER.{server}.RELOAD", b""))

    def _check(self, action: str, answer: bytes) -> None:
        try:
            reply = _decode_reply(answer)
        except UNREADABLE as error:
            raise BrokerRefused(action, 0, f"unreadable answer: {error}") from error
        if reply.error is not None:
            raise BrokerRefused(action, reply.error.code, reply.error.description)

    async def _request(self, subject: str, body: bytes) -> bytes:
        try:
            cancelled = cancellations()
            answer = await self._nats.request(subject, body, timeout=_REQUEST_SECONDS)
            raise_if_cancelled(since=cancelled)
        except (NatsError, OSError, TimeoutError) as error:
            problem = str(error) or type(error).__name__
            raise BrokerUnreachable(self._server, f"system account, {subject}: {problem}") from error
        return answer.data

    async def _close(self) -> None:
        with contextlib.suppress(TimeoutError, NatsError, OSError):
            async with asyncio.timeout(_REQUEST_SECONDS):
                await self._nats.give_up()

    async def _on_error(self, error: Exception) -> None:
        if problem := tls_error(error, self._server, self._tls):
            self._tls_problem = problem
        log.warning("connection to the system account", extra={"error": str(error) or type(error).__name__})
