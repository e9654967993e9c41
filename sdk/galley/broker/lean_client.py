"""nats-py's client, with a short way through it for what comes and goes by the thousand.

The library gives each message a dataclass, a dictionary of headers, a place in a queue and a turn of a
task; each publish checks its headers with regular expressions. That is half of what the library costs, and
a worker needs none of it. The long way stays for all else, connecting and reconnecting included.
"""

import asyncio
import re
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from nats.aio.client import PING_PROTO, Srv
from nats.aio.client import Client as Nats
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from galley.broker.encryption import Transport, context_of, insist
from galley.broker.errors import SubjectInvalid
from galley.broker.lean_parser import LeanParser, React
from galley.tls import Tls

_VERSION: Final = "NATS/1.0"
_LONGEST_LINE: Final = 4096
"""Bytes of a command, its subjects included; for a longer one the server closes the connection."""
_STORED: Final = "Nats-Stream"
"""Header that the server adds to a message it reads from a stream."""
_NO_PERMISSION: Final = "permissions violation"
_DENIED: Final = re.compile(rf"{_NO_PERMISSION} for publish[^\"]*\"([^\"]+)\"")
_UNHEARD: Final = re.compile(rf"{_NO_PERMISSION} for subscription[^\"]*\"([^\"]+)\"")


class LeanClient(Nats):
    """A client some of whose subscriptions are served while reading, and which publishes without detours.

    It relies on private parts of the library; `tests/facts/test_library.py` tries each of them.
    """

    def __init__(self, tls: Tls | None = None) -> None:
        """Args: tls: how to encrypt each connection; None leaves it to the server."""
        super().__init__()
        self._tls = tls
        self._direct: dict[bytes, React] = {}
        self._ps = LeanParser(self, self._direct)
        self.denied: Callable[[str], None] = lambda _subject: None
        """Called with a subject, in lower case, that we may not publish to and did."""
        self.unheard: Callable[[str], None] = lambda _subject: None
        """Called with a subject, in lower case, that we may not subscribe to and did."""

    @property
    def encrypted(self) -> bool:
        """Whether the present connection is encrypted."""
        writer = getattr(self._transport, "_io_writer", None)
        return writer is not None and writer.get_extra_info("ssl_object") is not None

    async def subscribe_directly(self, subject: str, react: React) -> Subscription:
        """Call `react` with each message on `subject`, in the middle of reading; it must be quick."""
        subscription = await self.subscribe(subject, cb=_never_called)
        self._direct[b"%d" % subscription._id] = react  # noqa: SLF001 - what messages for it carry
        return subscription

    def publish_directly(self, subject: str, body: bytes, reply: str = "", headers: bytes = b"") -> None:
        """Publish on an open connection what is written when the event loop comes to it.

        Headers, of which `header_block` makes a block, are trusted to be well formed.

        Raises:
            SubjectInvalid: a word of the subject came from elsewhere, and would be read as a command.
            MaxPayloadError: the server takes no headers and body of that size: it would close the connection.
        """
        _check_subject(subject)
        if reply:
            _check_subject(reply)
        size = len(body)
        if len(headers) + size > self._max_payload:
            raise MaxPayloadError
        if headers:
            first = f"HPUB {subject} {reply} {len(headers)} {len(headers) + size}\r\n".encode()
        else:
            first = f"PUB {subject} {reply} {size}\r\n".encode()
        if len(first) > _LONGEST_LINE:
            raise SubjectInvalid(subject)
        self._pending += first, headers, body, b"\r\n"
        self._pending_data_size += len(first) + len(headers) + size + 2
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += size
        if self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.Future())

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        _check_subject(subject)
        _check_subject(reply)
        await super()._send_publish(subject, reply, payload, payload_size, headers)

    async def subscribe(self, subject: str, *args: Any, **options: Any) -> Subscription:
        """Subscribe, as the library does.

        Raises:
            SubjectInvalid: as `publish_directly`.
        """
        _check_subject(subject)
        return await super().subscribe(subject, *args, **options)

    @property
    def crowded(self) -> bool:
        """Whether more waits to be written than should be kept."""
        return self._pending_data_size > self._max_pending_size

    async def written(self) -> None:
        """Wait until what was published is written, or for so long that it may never be."""
        await self._flush_pending(force_flush=True)

    def end_subscription(self, subscription: Subscription) -> None:
        """End a subscription for good: a connection that is lost at present does not renew it."""
        number = subscription._id  # noqa: SLF001 - the way of the library waits, and raises if it ended before
        subscription._stop_processing()  # noqa: SLF001 - its task would wait until it is collected as garbage
        self._remove_sub(number)
        # Also while the connection is lost: the command that began it may be sent on the next one.
        command = b"UNSUB %d\r\n" % number
        self._pending.append(command)
        self._pending_data_size += len(command)
        if self.is_connected and self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.Future())

    @property
    def life(self) -> str:
        """Id that the server took when it started; empty if it is one of a cluster, or has no JetStream."""
        told = self._server_info
        return "" if told.get("cluster") or not told.get("jetstream") else str(told.get("server_id", ""))

    async def drop(self) -> None:
        """Break the connection, so that the client reconnects."""
        await self._process_op_err(NatsError("nats: dropped by ourselves"))

    async def give_up(self) -> None:
        """Close, in whatever state of connecting it is."""
        await self.close()
        # Between two tries it counts as closed already, and may yet have a socket.
        self._close_socket()
        await asyncio.sleep(0)

    async def _connect_to_server(self, s: Srv) -> None:
        # The library forgets the socket of a try that the server refused.
        self._close_socket()
        if s.uri.scheme not in ("ws", "wss"):
            self._transport = Transport()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """What the next connection is encrypted with, from the files as they are now."""
        return context_of(self._tls)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # Of the first line of a connection: what it says of TLS is acted on right after this.
        if initial_connection and self._tls is not None:
            insist(info)
        await super()._process_info(info, initial_connection)

    def _close_socket(self) -> None:
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]

    async def _process_err(self, err_msg: str) -> None:
        # The library closes for good on whatever it does not know, credentials that have ended included. A
        # lasting connection reconnects; the server then reports the problem again.
        if denied := _DENIED.search(err_msg):
            self.denied(denied[1])
        elif unheard := _UNHEARD.search(err_msg):
            self.unheard(unheard[1])
        elif _NO_PERMISSION not in err_msg:
            error = NatsError(f"nats: {err_msg.strip(chr(39))}")
            await self._error_cb(error)
            await self._process_op_err(error)
            return
        await super()._process_err(err_msg)

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        # The library's own raises for blocks that any client can send, which ends the connection, and takes a
        # header `Status` of a stored message for a status of the server's.
        return headers_in(headers) if headers else None

    async def _send_ping(self, future: "asyncio.Future[bool] | None" = None) -> None:
        # The library writes a ping at once, ahead of what was published and is not written yet, so that its
        # answer says nothing about that. And an answer to an abandoned request ends its read loop.
        pong: asyncio.Future[bool] = asyncio.Future()
        pong.add_done_callback(lambda _pong: _answer(future))
        self._pongs.append(pong)
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self._direct.pop(b"%d" % sid, None)


def _check_subject(subject: str) -> None:
    # The protocol is text: what follows a blank or the end of a line would be another argument, or a command
    # with all our rights. The library looks for it by a slower way, which is turned off.
    if " " in subject or "\n" in subject or "\r" in subject or "\t" in subject:
        raise SubjectInvalid(subject)


def header_block(headers: Mapping[str, str]) -> bytes:
    """Return headers as they travel.

    Raises:
        SubjectInvalid: a value has the end of a line, behind which would be another header.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise SubjectInvalid(lines)
    return f"{_VERSION}\r\n{lines}\r\n".encode()


@lru_cache(maxsize=64)
def header_in(block: bytes, name: str) -> str | None:
    """Return the value of a header, or None if the block has none of that name."""
    start = block.find(f"\r\n{name}:".encode())
    if start < 0:
        return None
    start += len(name) + 3
    return block[start : block.find(b"\r\n", start)].decode(errors="replace").strip()


def headers_in(block: bytes) -> dict[str, str] | None:
    """Return all headers, and the server's status as `Status` and `Description`; None if there are none.

    Clients choose what stands in a block: what is no header is left out. Of several of one name the last
    counts, which is the server's where it adds one. What was stored has no status, whatever its headers say.
    """
    found: dict[str, str] = {}
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon and name.isascii() and len(name.split()) == 1:
            found[name.strip().decode()] = value.strip(b" \t").decode(errors="replace")
    status, description = status_in(block)
    found.pop("Status", None)
    found.pop("Description", None)
    if status.isascii() and status.isdecimal() and _STORED not in found:
        found |= {"Status": status, "Description": description}
    return found or None


def status_in(block: bytes) -> tuple[str, str]:
    """Return status and description of what the server itself says, such as 404 and No Messages."""
    first = block.partition(b"\r\n")[0].decode(errors="replace")
    status, _, description = first.removeprefix(_VERSION).strip().partition(" ")
    return status, description


def _answer(waiting: "asyncio.Future[bool] | None") -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(True)


async def _never_called(_message: object) -> None:
    """Stand where the library wants a callback."""
