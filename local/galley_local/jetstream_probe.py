"""Checks whether JetStream of a NATS server answers, with a few lines of its protocol.

Only `galley.broker` may use a NATS client, and that retries by itself; a server that is starting needs a
single check.
"""

import asyncio
from typing import Final

_REQUEST: Final = (
    b'CONNECT {"verbose":false,"pedantic":false,"no_responders":true,"headers":true}\r\n'
    b"SUB _INBOX.galley.probe 1\r\n"
    b"PUB $JS.API.INFO _INBOX.galley.probe 0\r\n\r\n"
)


async def jetstream_answers(port: int) -> bool:
    """Return whether JetStream of the server on this machine answers.

    It waits as long as the server keeps the connection; the caller sets a timeout.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(_REQUEST)
            while line := await reader.readline():
                if line.startswith(b"MSG "):
                    return b"jetstream_not_enabled" not in await reader.readline()
                if line.startswith((b"HMSG ", b"-ERR")):  # HMSG: no responders
                    return False
        finally:
            writer.transport.abort()
    except OSError:
        return False
    return False
