"""The audit over HTTP, for those who look again and again."""

from typing import Any

from galley.audit import Action, Entry, Writer
from galley.broker import audit
from galley.broker.ensure import ensure
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.gateways import Served, served

LINES = 300


async def lines_of(api: Served, query: str = "") -> tuple[list[dict[str, Any]], int]:
    """Return the newest lines, and how many messages the broker sent for them."""
    received = api.gateway.broker.nats.stats["in_msgs"]
    url = f"{api.address}/api/v1/namespaces/{api.namespace}/audit{query}"
    lines = (await api.ask("GET", url)).body["lines"]
    return lines, api.gateway.broker.nats.stats["in_msgs"] - received


async def test_who_looks_again_has_only_new_lines_read(nats_server: NatsServer, namespace: str) -> None:
    async with served(nats_server.url, namespace) as api:
        broker = api.gateway.broker
        for queue in ("images", "texts"):
            await ensure(broker, a_queue(queue, namespace=namespace))
        for number in range(LINES):
            entry = Entry(Action.EDIT, task=str(number))
            await audit.store(broker, namespace, "images", Writer.OPERATOR, entry)
        first, sent = await lines_of(api)
        assert first[0]["task"] == str(LINES - 1)
        assert sent > LINES
        again, sent = await lines_of(api)
        assert again == first
        assert sent < 10
        # What cannot be read is passed over each time.
        subject = f"galley.audit.{namespace}.images.client"
        assert (await (await broker.pipeline.send(subject, b"{", b""))).stored
        await audit.store(broker, namespace, "texts", Writer.OPERATOR, Entry(Action.EDIT, task="new"))
        third, sent = await lines_of(api)
        assert [each["task"] for each in third][:2] == ["new", str(LINES - 1)]
        assert sent < 10
        assert [each["task"] for each in (await lines_of(api, "?queue=texts"))[0]] == ["new"]
        assert [each["task"] for each in (await lines_of(api, "?task=7"))[0]] == ["7"]
        assert (await lines_of(api, "?hours=0"))[0] == []
