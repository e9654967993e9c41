"""A reader of the NATS protocol that cuts messages out of what came and hands them on at once.

The library's parser tries regular expressions on the front of a buffer it shortens twice for each message.
Messages are all but a few of the lines a worker or producer reads; those few are still the library's.
"""

import logging
from collections.abc import Callable
from typing import Final, TypeAlias

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

log = logging.getLogger(__name__)

React: TypeAlias = Callable[[str, str, bytes, bytes], None]
"""Takes subject, reply subject, body and header block (empty if there is none)."""

_END: Final = b"\r\n"


class LeanParser(Parser):
    """Calls `direct[number of the subscription]` with its messages, and the library with all else."""

    def __init__(self, client: object, direct: dict[bytes, React]) -> None:
        super().__init__(client)
        self._direct = direct

    def reset(self) -> None:
        """Forget what was read: it came from a connection that is gone."""
        super().reset()
        self._pieces: list[bytes] = []
        self._missing = 0
        self._connection = object()

    async def parse(self, data: bytes = b"") -> None:
        """Take in what was read.

        Raises:
            ProtocolError: it is not what a server says.
        """
        if self._missing:
            # Joined only when there is enough: a long message comes in many pieces.
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._pieces)
        self._pieces, self._missing = [], 0
        try:
            await self._cut(data)
        except (ValueError, IndexError) as error:
            raise ProtocolError from error

    async def _cut(self, data: bytes) -> None:
        direct, connection = self._direct, self._connection
        start, length = 0, len(data)
        while start < length:
            line = data.find(_END, start)
            if line < 0:
                self._keep(data[start:], 1)
                return
            # By spaces alone, as the server writes it: a subject may contain other white space.
            words = data[start:line].split(b" ")
            body = line + 2
            if words[0] == b"HMSG":
                end = body + int(words[-1])
                block = body + int(words[-2])
                reply = words[3] if len(words) == 6 else b""
            elif words[0] == b"MSG":
                end = body + int(words[-1])
                block = body
                reply = words[3] if len(words) == 5 else b""
            else:
                await super().parse(data[start:body])
                if self._connection is not connection:
                    return
                start = body
                continue
            if end + 2 > length:
                self._keep(data[start:], end + 2 - length)
                return
            start = end + 2
            react = direct.get(words[2])
            try:
                if react is None:
                    # As the library's parser does.
                    await self.nc._process_msg(  # noqa: SLF001
                        int(words[2]), words[1], reply, data[block:end], data[body:block] or None
                    )
                    continue
                react(
                    words[1].decode(errors="surrogateescape"),
                    reply.decode(),
                    data[block:end],
                    data[body:block],
                )
            except UnicodeDecodeError as error:
                # A client that may publish to a pattern chooses the rest of the subject.
                log.debug("message dropped", extra={"subject": repr(words[1]), "error": str(error)})
            except Exception:
                # What is raised here would end the library's read loop for good (nats.py#914).
                log.exception("message not taken")

    def _keep(self, rest: bytes, missing: int) -> None:
        self._pieces, self._missing = [rest], missing
