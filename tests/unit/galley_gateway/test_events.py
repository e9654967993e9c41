"""Server-sent events: what stands in their data stays data."""

import pytest

from galley_gateway.api.events import event


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one", [b"one"]),
        (b"one\ntwo", [b"one", b"two"]),
        (b"one\n\nevent: login", [b"one", b"", b"event: login"]),
        (b"one\r\revent: login\r\rdata: x\r\n", [b"oneevent: logindata: x", b""]),
    ],
)
def test_no_data_begins_an_event_of_its_own(data: bytes, lines: list[bytes]) -> None:
    said = event("task", data)
    assert said == b"event: task\n" + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
