"""Requests to the API server: how many at once, how long each may take, and when one is sent again."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import msgspec

from galley_operator.cluster.answer import error_of, retry_after_of
from galley_operator.cluster.config import ClusterConfig
from galley_operator.cluster.errors import ClusterUnreachable, CredentialsRefused, TooManyRequests
from galley_operator.cluster.write_pool import WritePool

REQUEST_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 5.0

SILENCE_SECONDS: Final = 150.0
"""A watch without a word for so long is broken: the server sends the first bookmark after two minutes, and
then one a minute. A peer that is gone without a word is noticed sooner, by TCP."""

MOST_AT_ONCE: Final = 32
"""Requests under way at once; four writers saturate an API server, more only fill its queues."""

TRIES: Final = 6
"""How often a request is sent before the server's "too many requests" is passed on."""

JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
STEPS: Final = "application/json-patch+json"

_WATCH: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
_REQUEST: Final = aiohttp.ClientTimeout(total=REQUEST_SECONDS, connect=CONNECT_SECONDS)


class Connection:
    """The connections to one API server, and our identity there."""

    def __init__(self, config: ClusterConfig, user_agent: str, most_at_once: int) -> None:
        self.answered = 0
        """Requests answered so far, watches not counted."""
        self.without_room = 0
        """Requests so far the server had no room for."""
        self._config = config
        self._user_agent = user_agent
        self._room = asyncio.Semaphore(most_at_once)
        self._pool = WritePool(config.server, config.tls, user_agent, REQUEST_SECONDS)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Be ready to connect; the first request does."""
        tls = self._config.tls
        self._session = aiohttp.ClientSession(
            self._config.server,
            connector=aiohttp.TCPConnector(limit=0, ssl=True if tls is None else tls),
            headers={"User-Agent": self._user_agent, "Accept": JSON},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()
        if self._session is not None:
            await self._session.close()

    async def write(self, path: str, about: tuple[str, str], body: object) -> bytes:
        """Send a JSON patch the short way, once, and return the body of the answer.

        Raises:
            ClusterUnreachable: if no answer came in time.
            ApiRefused: if the answer is an error, `TooManyRequests` included.
        """
        token = self._config.token
        data = msgspec.json.encode(body)
        try:
            async with self._room:
                reply = await self._pool.send("PATCH", path, STEPS, data, token.text() if token else "")
        except OSError as error:
            problem = str(error) or type(error).__name__
            raise ClusterUnreachable(self._config.server, " ".join(about), problem) from error
        self.answered += 1
        if reply.status < 400:
            return reply.body
        refusal = error_of(reply.status, reply.headers, reply.body, *about)
        if isinstance(refusal, CredentialsRefused) and token is not None:
            token.refused()
        self.without_room += isinstance(refusal, TooManyRequests)
        raise refusal

    async def send(
        self,
        method: str,
        path: str,
        about: tuple[str, str],
        query: dict[str, str] | None = None,
        *,
        body: object = None,
        content: str = JSON,
    ) -> bytes:
        """Return the body of the answer to one request.

        Args:
            method: of HTTP.
            path: what it is about.
            about: the verb of Kubernetes and the object, as people say them.
            query: parameters.
            body: sent as JSON.
            content: what kind of JSON that is.

        Raises:
            ClusterUnreachable: if no answer came in time.
            ApiRefused: if the answer is an error.
        """
        data = None if body is None else msgspec.json.encode(body)
        for left in reversed(range(TRIES)):
            async with (
                self._room,
                self._answer(method, path, about, query, _REQUEST, data, content) as answer,
            ):
                read = await answer.read()
            self.answered += 1
            if answer.status < 400:
                return read
            error = error_of(answer.status, answer.headers, read, *about)
            if isinstance(error, CredentialsRefused) and self._config.token is not None:
                # The token in hand may have been renewed in its file a moment ago.
                self._config.token.refused()
            elif isinstance(error, TooManyRequests):
                self.without_room += 1
            else:
                raise error
            if not left:
                raise error
            await asyncio.sleep(retry_after_of(error))
        raise AssertionError("unreachable")

    async def stream(
        self, path: str, about: tuple[str, str], query: dict[str, str]
    ) -> AsyncGenerator[bytes, None]:
        """Yield what the server sends as it comes.

        Raises:
            ClusterUnreachable: if the connection breaks, or is silent for `SILENCE_SECONDS`.
            ApiRefused, WatchExpired: if the answer is an error.
        """
        async with self._answer("GET", path, about, query, _WATCH) as answer:
            if answer.status >= 400:
                raise error_of(answer.status, answer.headers, await answer.read(), *about)
            async for chunk in answer.content.iter_any():
                yield chunk

    @asynccontextmanager
    async def _answer(  # noqa: PLR0917 - a request has so many parts
        self,
        method: str,
        path: str,
        about: tuple[str, str],
        query: dict[str, str] | None,
        patience: aiohttp.ClientTimeout,
        data: bytes | None = None,
        content: str = JSON,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None, "the cluster is not open: async with Cluster(...)"
        headers: dict[str, Any] = {} if data is None else {"Content-Type": content}
        if self._config.token is not None:
            headers["Authorization"] = f"Bearer {self._config.token.text()}"
        try:
            async with self._session.request(
                method, path, params=query, data=data, headers=headers, timeout=patience
            ) as answer:
                yield answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = str(error) or type(error).__name__
            raise ClusterUnreachable(self._config.server, " ".join(about), problem) from error
