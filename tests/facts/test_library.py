"""What `galley.broker.lean_client` relies on inside nats-py: each new version has to pass here first."""

from collections.abc import AsyncIterator

import pytest
from nats.aio.msg import Msg
from nats.errors import MaxPayloadError

from galley.broker.lean_client import LeanClient, header_block, header_in, status_in
from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually

HEADERS = {"Galley": "v=1;a=2;f=41;r", "Nats-TTL": "3600"}


class Heard:
    """What came in by a direct subscription."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.replies: list[str] = []
        self.bodies: list[bytes] = []
        self.headers: list[bytes] = []

    def take(self, subject: str, reply: str, body: bytes, headers: bytes) -> None:
        self.subjects.append(subject)
        self.replies.append(reply)
        self.bodies.append(body)
        self.headers.append(headers)


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[LeanClient]:
    client = LeanClient()
    await client.connect(nats_server.url, skip_subject_validation=True)
    yield client
    await client.close()


@pytest.fixture
def heard() -> Heard:
    return Heard()


async def test_a_direct_subscription_hears_all_parts_of_a_message(client: LeanClient, heard: Heard) -> None:
    await client.subscribe_directly("facts.direct.*", heard.take)
    await client.publish("facts.direct.plain", b"body")
    await client.publish("facts.direct.full", b"with\r\nlines", "facts.reply", HEADERS)
    await client.flush()
    assert heard.subjects == ["facts.direct.plain", "facts.direct.full"]
    assert heard.replies == ["", "facts.reply"]
    assert heard.bodies == [b"body", b"with\r\nlines"]
    assert [header_in(block, "Galley") for block in heard.headers] == [None, HEADERS["Galley"]]
    assert [header_in(block, "Nats-TTL") for block in heard.headers] == [None, "3600"]


async def test_what_is_published_directly_arrives_as_what_the_library_publishes(client: LeanClient) -> None:
    came: list[Msg] = []

    async def take(message: Msg) -> None:
        came.append(message)

    await client.subscribe("facts.published", cb=take)
    await client.publish("facts.published", b"with\r\nlines", "facts.reply", HEADERS)
    await client.publish("facts.published", b"", "facts.reply")
    await client.publish("facts.published", b"body")
    client.publish_directly("facts.published", b"with\r\nlines", "facts.reply", header_block(HEADERS))
    client.publish_directly("facts.published", b"", "facts.reply")
    client.publish_directly("facts.published", b"body")
    await eventually(lambda: len(came) == 6, within=30)
    told = [(one.subject, one.reply, one.data, one.headers) for one in came]
    assert told[3:] == told[:3]
    assert told[0] == ("facts.published", "facts.reply", b"with\r\nlines", HEADERS)


async def test_a_flush_comes_back_behind_all_that_was_published(client: LeanClient, heard: Heard) -> None:
    await client.subscribe_directly("facts.flood", heard.take)
    body = b"x" * 100_000
    for _ in range(100):  # five times what may wait before it is flushed
        client.publish_directly("facts.flood", body)
    assert client.crowded
    await client.written()
    assert not client.crowded
    await client.flush()
    assert heard.bodies == [body] * 100


async def test_a_body_the_server_does_not_take_is_refused_before_it_is_sent(client: LeanClient) -> None:
    with pytest.raises(MaxPayloadError):
        client.publish_directly("facts.large", b"x" * (client.max_payload + 1))
    await client.flush()


async def test_the_status_of_a_publish_without_subscribers_stands_in_its_first_line(
    client: LeanClient, heard: Heard
) -> None:
    await client.subscribe_directly("facts.inbox", heard.take)
    client.publish_directly("facts.unheard", b"", "facts.inbox")
    await client.flush()
    assert [status_in(block) for block in heard.headers] == [("503", "")]


def test_a_status_with_a_description_is_told_apart() -> None:
    assert status_in(b"NATS/1.0 409 Consumer Deleted\r\nNats-Pending: 3\r\n\r\n") == (
        "409",
        "Consumer Deleted",
    )
    assert status_in(b"NATS/1.0\r\nGalley: v=1\r\n\r\n") == ("", "")
    assert status_in(b"") == ("", "")


async def test_what_a_reader_raises_does_not_end_the_reading(
    client: LeanClient, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("not understood")

    await client.subscribe_directly("facts.failing", fail)
    await client.subscribe_directly("facts.sound", heard.take)
    await client.publish("facts.failing", b"")
    await client.publish("facts.sound", b"after")
    await client.flush()
    assert heard.bodies == [b"after"]
    assert caplog.messages == ["message not taken"]


async def test_a_drained_direct_subscription_hears_what_was_under_way_and_nothing_later(
    client: LeanClient, heard: Heard
) -> None:
    subscription = await client.subscribe_directly("facts.drained", heard.take)
    await client.publish("facts.drained", b"before")
    await subscription.drain()  # type: ignore[no-untyped-call]
    await client.publish("facts.drained", b"after")
    await client.flush()
    assert heard.bodies == [b"before"]
    assert not client._direct


async def test_a_flush_given_up_does_not_end_the_reading_when_its_answer_comes(
    own_nats_server: NatsServer,
) -> None:
    client = LeanClient()
    await client.connect(own_nats_server.url)
    own_nats_server.freeze()
    with pytest.raises(TimeoutError):
        await client.flush(timeout=1)
    own_nats_server.thaw()
    await client.flush(timeout=5)
    assert client._reading_task is not None
    assert not client._reading_task.done()
    await client.close()


async def test_a_direct_subscription_goes_on_after_a_reconnection(own_nats_server: NatsServer) -> None:
    heard = Heard()
    client = LeanClient()
    await client.connect(own_nats_server.url, max_reconnect_attempts=-1)
    await client.subscribe_directly("facts.again", heard.take)
    own_nats_server.kill()
    await eventually(lambda: not client.is_connected, within=30)
    await own_nats_server.start()
    await eventually(lambda: client.is_connected, within=30)
    client.publish_directly("facts.again", b"back")
    await client.flush()
    assert heard.bodies == [b"back"]
    await client.close()
