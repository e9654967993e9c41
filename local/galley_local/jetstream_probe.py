"""Asks a NATS server whether JetStream answers, in the few words of its protocol that takes.

A whole client would be out of proportion: only `galley.broker` has one, and it retries by itself
where a starting server needs one plain yes or no.
"""

import asyncio
from typing import Final

_QUESTION: Final = (
    b'CONNECT {"verbose":false,"pedantic":false,"no_responders":true,"headers":true}\r\n'
    b"SUB _INBOX.galley.probe 1\r\n"
    b"PUB $JS.API.INFO _INBOX.galley.probe 0\r\n\r\n"
)


async def jetstream_answers(port: int) -> bool:
    """Return whether JetStream of the server on this machine answers its first question.

    It waits as long as the server keeps the connection: the caller bounds it.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(_QUESTION)
        while line := await reader.readline():
            if line.startswith(b"MSG "):
                return b"jetstream_not_enabled" not in await reader.readline()
            if line.startswith((b"HMSG ", b"-ERR")):  # HMSG: nobody responds
                return False
    except OSError:
        return False
    finally:
        writer.transport.abort()
    return False
