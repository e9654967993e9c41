"""Counters: the server adds, knows a repeated increment, and takes nothing else."""

import json
from typing import Any

import pytest

from galley.broker.stream_config import counts_definition
from galley.broker.topology import QueueLayout, count_subject, counts_stream
from galley_local.nats_server import NatsServer
from tests.facts.jetstream import JetStream


@pytest.fixture
def subject(queue: QueueLayout) -> str:
    return count_subject(queue.namespace, queue.queue, "normal", "succeeded")


async def add(jetstream: JetStream, subject: str, **headers: str) -> dict[str, Any]:
    named = {f"Nats-{name.replace('_', '-')}": value for name, value in headers.items()}
    answer = await jetstream.client.request(subject, b"", headers=named)
    said: dict[str, Any] = json.loads(answer.data)
    return said


async def test_increments_are_added_up(jetstream: JetStream, subject: str) -> None:
    assert (await add(jetstream, subject, Incr="+5"))["val"] == "5"
    assert (await add(jetstream, subject, Incr="+37"))["val"] == "42"


async def test_an_increment_with_the_same_id_counts_once(jetstream: JetStream, subject: str) -> None:
    await add(jetstream, subject, Incr="+5", Msg_Id="a")
    assert (await add(jetstream, subject, Incr="+5", Msg_Id="a"))["duplicate"]
    assert (await add(jetstream, subject, Incr="+1"))["val"] == "6"


async def test_the_id_is_known_after_the_server_was_killed(own_nats_server: NatsServer) -> None:
    layout = QueueLayout("default", "images", (), 10, 2**20, 10, "tests")
    subject = count_subject("default", "images", "normal", "succeeded")
    async with await JetStream.connect(own_nats_server.url) as jetstream:
        await jetstream.ok(
            f"STREAM.CREATE.{counts_stream('default', 'images')}", counts_definition(layout, 1)
        )
        await add(jetstream, subject, Incr="+5", Msg_Id="a")
    own_nats_server.kill()
    await own_nats_server.start()
    async with await JetStream.connect(own_nats_server.url) as jetstream:
        assert (await add(jetstream, subject, Incr="+5", Msg_Id="a"))["duplicate"]


@pytest.mark.parametrize(("headers", "code"), [({}, 10169), ({"Incr": "x"}, 10171)])
async def test_what_is_no_increment_is_refused(
    jetstream: JetStream, subject: str, headers: dict[str, str], code: int
) -> None:
    assert (await add(jetstream, subject, **headers))["error"]["err_code"] == code
