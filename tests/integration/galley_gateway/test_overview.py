"""The list of queues says what each has to do, and which of them need attention."""

import asyncio
import re

import pytest
from msgspec.structs import replace

from galley import AsyncClient, call
from galley.broker.connection import Broker
from galley.broker.control import Pause, Supply, answering_supply
from galley.broker.ensure import ensure
from galley_gateway.gateway import Gateway
from galley_gateway.pages import content, overview
from galley_gateway.pages.overview import Glance
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.gateways import Served, served

SUPPLIES = {
    "idle": Supply(workers={"ready": 0}),
    "stuck": Supply(problem="the image `<img src=x>` cannot be pulled", workers={"ready": 0}),
    "scaled": Supply(scaling_problem="another client sets its replicas", workers={"ready": 3}),
    "held": Supply(problem="it is paused", paused_by={Pause.MANIFEST: "spec.paused"}),
}


def what(_: str, queue: str) -> Supply | None:
    return SUPPLIES.get(queue)


async def the_page(api: Served) -> str:
    # What was found is kept for a moment, for others who look.
    api.gateway.glanced._known.clear()
    page = await api.ask("GET", f"{api.address}/ui/{api.namespace}/queues")
    assert page.status == 200
    return str(page.body)


def line_of(page: str, queue: str) -> dict[str, str]:
    rows = page.partition("<tbody>")[2].split("<tr>")
    row = next(each for each in rows if f'/queues/{queue}">{queue}</a>' in each)
    cells = re.findall(r'data-label="([^"]+)"[^>]*>(.*?)</t[hd]>', row, re.DOTALL)
    return {label: re.sub(r"<[^>]*>", "", text).strip() for label, text in cells}


async def test_each_line_says_what_there_is_to_do_and_those_with_a_problem_stand_above(
    nats_server: NatsServer, namespace: str
) -> None:
    async with (
        served(nats_server.url, namespace) as api,
        Broker(nats_server.url, name="operator") as operator,
    ):
        for queue in (*SUPPLIES, "silent"):
            await ensure(api.gateway.broker, a_queue(queue, namespace=namespace))
        client = AsyncClient.over(api.gateway.broker, namespace)
        for number in range(3):
            await client.submit(call("stuck", "echo", value=number))
        async with answering_supply(operator, namespace, "*", what):
            page = await the_page(api)

    stuck = line_of(page, "stuck")
    assert "UTC" in stuck.pop("Oldest waits since")
    assert stuck == {
        "Queue": "stuck", "Waiting": "3", "Running": "0", "Later": "0", "Dead letters": "0",
        "Workers ready": "0", "State": "problem",
    }  # fmt: skip
    states = {queue: line_of(page, queue)["State"] for queue in (*SUPPLIES, "silent")}
    assert states == {
        "idle": "open", "stuck": "problem", "scaled": "problem", "held": "paused", "silent": "open",
    }  # fmt: skip
    assert (line_of(page, "scaled")["Workers ready"], line_of(page, "silent")["Workers ready"]) == ("3", "?")
    assert "2 of 5 queues need attention" in page
    assert "the image <code>&lt;img src=x&gt;</code> cannot be pulled" in page
    assert "another client sets its replicas" in page


async def test_a_command_that_pauses_an_idle_queue_is_seen_though_its_lanes_were_asked_before(
    nats_server: NatsServer, namespace: str
) -> None:
    said = {"idle": Supply(workers={"desired": 0, "ready": 0})}
    async with (
        served(nats_server.url, namespace) as api,
        Broker(nats_server.url, name="operator") as operator,
        answering_supply(operator, namespace, "*", lambda _, queue: said[queue]),
    ):
        await ensure(api.gateway.broker, a_queue("idle", namespace=namespace))
        assert line_of(await the_page(api), "idle")["State"] == "open"
        client = AsyncClient.over(api.gateway.broker, namespace)
        await client.queues.pause("idle")
        said["idle"] = replace(said["idle"], paused_by={Pause.COMMAND: "`galley pause` holds it"})
        assert line_of(await the_page(api), "idle")["State"] == "paused"
        await client.queues.resume("idle")
        said["idle"] = replace(said["idle"], paused_by={})
        assert line_of(await the_page(api), "idle")["State"] == "open"


async def test_the_page_waits_but_a_moment_for_one_who_does_not_answer(
    nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "SUPPLY_SECONDS", 0.01)
    waiting = asyncio.Event()

    async def never(_: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async with (
        served(nats_server.url, namespace) as api,
        Broker(nats_server.url, name="operator") as operator,
    ):
        await ensure(api.gateway.broker, a_queue("quiet", namespace=namespace))
        await operator.subscribe(f"galley.workers.{namespace}.quiet", never)
        page = await the_page(api)
    assert line_of(page, "quiet")["Workers ready"] == "?"


async def test_all_who_look_at_once_ask_the_broker_once(
    nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    read = overview.glances

    async def counted(gateway: Gateway, name: str) -> list[Glance]:
        nonlocal asked
        asked += 1
        return await read(gateway, name)

    async with served(nats_server.url, namespace) as api:
        await ensure(api.gateway.broker, a_queue("shared", namespace=namespace))
        monkeypatch.setattr(content, "glances", counted)
        pages = [api.ask("GET", f"{api.address}/ui/{namespace}/queues") for _ in range(8)]
        assert {page.status for page in await asyncio.gather(*pages)} == {200}
    assert 1 <= asked < 8


def test_a_queue_of_which_nothing_is_known_needs_attention() -> None:
    glance = Glance("images", None, None)
    assert (glance.dead, glance.ready, glance.problem) == (None, None, "the broker does not tell what waits")
