"""Webhooks: handlers behind a URL. A task is POSTed there, signed, and the answer is its ending."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Raw
from yarl import URL

from galley.history import MESSAGE_LIMIT
from galley.objects.node_cache import spooled_bytes
from galley.record import Failure
from galley.reference import INLINE_LIMIT, LARGEST
from galley.retry import LONGEST_BACKOFF_SECONDS
from galley_worker.ending import CutOff, Finish, Raised, Returned, ReturnedLarge, Snoozed, Spool
from galley_worker.runners.execution import Execution
from galley_worker.runners.in_turn import InTurn
from galley_worker.runners.reach import AddressRefused, Resolver, check_address
from galley_worker.runners.settings import HttpHandler, RunnerSettings
from galley_worker.runners.signing import SigningKeys, signature
from galley_worker.work import Work

CONNECT_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 4.0
"""How long a connection is kept for the next request: less than servers usually keep theirs, so that a
request is not lost on one that is being closed."""

EVENT: Final = "galley.task"
"""The `type` of what is sent."""

HTTP_STATUS: Final = "HttpStatus"
HTTP_UNREACHABLE: Final = "HttpUnreachable"
ADDRESS_REFUSED: Final = "AddressRefused"

_TOLD_BYTES: Final = 8 * 1024
"""Bytes of an answer that is no success that are kept for people."""
_TRY_AGAIN: Final = (408, 425, 429)
"""Statuses of the 4xx after which a task is tried again."""


class _Withdrawn(Exception):
    """A work was stopped before its request was sent."""


class Webhooks(InTurn):
    """POSTs tasks to the URLs of their handlers, at most `concurrency` at a time."""

    def __init__(self, settings: RunnerSettings, clock: Callable[[], float]) -> None:
        """Describe it.

        Raises:
            SigningKeysInvalid: if the keys of a handler cannot be used.
        """
        super().__init__("request", settings.concurrency, clock)
        self._settings = settings
        self._known = {handler.name: handler for handler in settings.http}
        self._keys = {source: SigningKeys(source) for source in {each.keys for each in settings.http}}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS, resolver=Resolver()),
            cookie_jar=aiohttp.DummyCookieJar(),
            # An attempt has its own timeout.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            headers={"User-Agent": "galley", "Accept": "application/json", "Accept-Encoding": "identity"},
            trace_configs=[self._looks()],
        )

    def _looks(self) -> aiohttp.TraceConfig:
        """Return what has each request looked at once it has a connection, just before it is written."""

        async def look(_: aiohttp.ClientSession, context: SimpleNamespace, _event: object) -> None:
            # This process may have been frozen since the work was given to it: that may withdraw it.
            self._settings.before_orders()
            if context.trace_request_ctx.because is not None:
                raise _Withdrawn

        looks = aiohttp.TraceConfig()
        looks.on_connection_create_end.append(look)
        looks.on_connection_reuseconn.append(look)
        return looks

    def _interrupt(self, execution: Execution, *, at_once: bool) -> None:
        """Close the connection: that is how the other side notices."""
        del at_once
        # Cancelled before its first step, `_execute` would not end it; the look before its request does.
        if execution.started_at is not None:
            self._running[execution].cancel()

    async def close(self, why: str) -> None:
        """End what is left as cut off, and close all connections."""
        await super().close(why)
        await self._session.close()

    async def _execute(self, execution: Execution) -> Finish:
        handler = self._known[execution.work.handler]
        execution.started_at = self._clock()
        try:
            return await self._post(handler, execution)
        except (asyncio.CancelledError, _Withdrawn):
            return execution.because or CutOff("its request was ended")
        except AddressRefused as error:
            return _failure(ADDRESS_REFUSED, f"no request is sent to {handler.url}: {error}", final=True)
        except aiohttp.InvalidURL as error:
            return _failure(ADDRESS_REFUSED, f"no request is sent to {handler.url}: {error}", final=True)
        except (aiohttp.ClientError, OSError) as error:
            cause = error.__cause__
            if isinstance(cause, AddressRefused):
                return _failure(ADDRESS_REFUSED, f"no request is sent to {handler.url}: {cause}", final=True)
            told = str(error) or type(error).__name__
            return _failure(HTTP_UNREACHABLE, f"no answer from {handler.url}: {told}", kinds=("http",))

    async def _post(self, handler: HttpHandler, execution: Execution) -> Finish:
        work, url = execution.work, URL(handler.url)
        _check_literal(url.host or "")
        body = await _body(self._settings, work)
        sent_at, message = int(time.time()), f"{self._settings.namespace}/{work.queue}/{work.task_id}"
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message,
            "webhook-timestamp": str(sent_at),
            "webhook-signature": signature(self._keys[handler.keys].now(), message, sent_at, body),
        }
        if work.trace:
            headers["traceparent"] = work.trace
        async with self._session.post(
            url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=execution
        ) as response:
            if 200 <= response.status < 300:
                return await _success(response, self._settings)
            return await _no_success(response, datetime.now(UTC))


def _check_literal(host: str) -> None:
    """Check the address that a URL has in place of a name: no resolver is asked for it."""
    try:
        check_address(host, host)
    except ValueError:  # a name
        return


async def _body(settings: RunnerSettings, work: Work) -> bytes:
    """Return what is sent of a task."""
    about: dict[str, Any] = {
        "id": work.task_id,
        "namespace": settings.namespace,
        "queue": work.queue,
        "lane": work.lane,
        "handler": work.handler,
        "attempt": work.attempt,
        "submittedAt": work.submitted_at,
        "timeoutSeconds": work.timeout,
        "input": Raw(await asyncio.to_thread(Path(work.large).read_bytes)) if work.large else work.input,
    }
    if work.deadline is not None:
        about["deadline"] = work.deadline
    if work.last_error:
        about["lastError"] = work.last_error
    return msgspec.json.encode({"type": EVENT, "timestamp": datetime.now(UTC), "data": about})


async def _success(response: aiohttp.ClientResponse, settings: RunnerSettings) -> Finish:
    """Return the ending by an answer whose body is the result."""
    data = await _read(response, LARGEST + 1)
    if len(data) > LARGEST:
        return _failure("ResultTooLarge", f"the answer has more than {LARGEST} bytes", final=True)
    if not data.strip():
        return Returned(Raw(b"null"))
    large = len(data) > INLINE_LIMIT
    try:
        if large:
            await asyncio.to_thread(msgspec.json.decode, data)
        else:
            msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = f"the answer is not JSON: {error}; it has status {response.status} and is "
        kind = response.headers.get("Content-Type", "of no declared type")
        return _failure("ResultInvalid", problem + kind, _told(data), final=True)
    if not large:
        return Returned(Raw(data))
    try:
        path, digest, size = await asyncio.to_thread(spooled_bytes, Path(settings.spool), data)
    except OSError as error:  # the receiver has answered, and what is wrong is on this machine
        return _failure("ResultNotStored", f"the URL answered, and its result could not be stored: {error}")
    return ReturnedLarge(Raw(b"null"), (), Spool(str(path), digest, size))


async def _no_success(response: aiohttp.ClientResponse, now: datetime) -> Finish:
    """Return the ending by an answer that is no success."""
    status = response.status
    text = _told(await _read(response, _TOLD_BYTES))
    first = text.strip().partition("\n")[0]
    message = f"status {status}" + (f": {first}" if first else "")
    if 300 <= status < 400:
        target = response.headers.get("Location", "")[:200]
        moved = f"{message}; redirects are not followed (to {target!r}); name that URL in the queue"
        return _failure(HTTP_STATUS, moved, text, final=True)
    pause = retry_after(response.headers.get("Retry-After", ""), now)
    if status == 429 and pause is not None:
        # It was not looked at: the receiver says when it has room.
        return Snoozed(pause, Failure(HTTP_STATUS, message[:MESSAGE_LIMIT], text))
    final = status < 500 and status not in _TRY_AGAIN
    kinds = ("http", f"http {status}")
    return _failure(HTTP_STATUS, message, text, final=final, pause=pause, kinds=kinds)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the body of an answer, but of one that is longer not more than `most`."""
    found = bytearray()
    async for block in response.content.iter_any():
        found += block
        if len(found) >= most:
            # What is left is not read, so the connection cannot be used again.
            response.close()
            break
    return bytes(found[:most])


def retry_after(header: str, now: datetime) -> float | None:
    """Return the seconds to wait that a header `Retry-After` asks for; None if it is missing or wrong."""
    text = header.strip()
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return min(float(text), LONGEST_BACKOFF_SECONDS)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    seconds = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - now
    return min(max(seconds.total_seconds(), 0.0), LONGEST_BACKOFF_SECONDS)


def _told(data: bytes) -> str:
    return data[:_TOLD_BYTES].decode(errors="replace")


def _failure(
    reason: str, message: str, trace: str = "", *, final: bool = False, pause: float | None = None,
    kinds: tuple[str, ...] = (),
) -> Raised:  # fmt: skip
    failure = Failure(reason, message[:MESSAGE_LIMIT], trace)
    return Raised(failure, retryable=not final, pause=None if final else pause, kinds=kinds)
