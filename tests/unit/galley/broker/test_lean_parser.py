"""Cutting messages out of what a server sends, however the network has cut it."""

import pytest
from nats.errors import ProtocolError

from galley.broker.lean_client import LeanClient
from galley.broker.lean_parser import LeanParser

SAID = (
    b"MSG plain 7 4\r\nbody\r\n"
    b"PONG\r\n"
    b"MSG answered 7 inbox.1 0\r\n\r\n"
    b"HMSG headed 7 18 22\r\nNATS/1.0\r\nA: b\r\n\r\nbody\r\n"
    b"MSG for.another 8 2\r\nno\r\n"
    b"HMSG full 7 inbox.2 12 21\r\nNATS/1.0\r\n\r\n\r\nMSG x\r\n\r\n"
)
MESSAGES = [
    ("plain", "", b"body", b""),
    ("answered", "inbox.1", b"", b""),
    ("headed", "", b"body", b"NATS/1.0\r\nA: b\r\n\r\n"),
    ("full", "inbox.2", b"\r\nMSG x\r\n", b"NATS/1.0\r\n\r\n"),
]


class Reader:
    """A parser, and what it handed on."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, bytes, bytes]] = []
        self.parser = LeanParser(LeanClient(), {b"7": lambda *parts: self.heard.append(parts)})


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 1000])
async def test_messages_are_the_same_however_they_come_in(size: int) -> None:
    reader = Reader()
    for start in range(0, len(SAID), size):
        await reader.parser.parse(SAID[start : start + size])
    assert reader.heard == MESSAGES


async def test_what_a_lost_connection_left_behind_is_forgotten() -> None:
    reader = Reader()
    await reader.parser.parse(b"MSG plain 7 4\r\nbo")
    reader.parser.reset()
    await reader.parser.parse(SAID)
    assert reader.heard == MESSAGES


@pytest.mark.parametrize("line", [b"MSG\r\n", b"MSG plain 7 four\r\n", b"\r\n", b"HELLO\r\n"])
async def test_what_no_server_says_is_an_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        await Reader().parser.parse(line)
