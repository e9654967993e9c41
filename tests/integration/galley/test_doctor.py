"""`galley doctor` on a real server: what it finds, its exit code, and that it needs nothing else."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from galley import AsyncClient, call
from galley.broker import checkup, topology
from galley.broker.control import Heartbeat, Supply, answering_supply, send_heartbeat
from galley.broker.ensure import ensure, stream_info
from galley.broker.layout import layout_of
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.cli.main import main
from galley.topic import Subscription, Topic
from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue
from tests.unit.galley.cli.a_terminal import a_terminal, err, out


def doctor(*words: str, interactive: bool = False) -> tuple[int, str, str]:
    terminal = a_terminal(interactive=interactive)
    return main(["doctor", *words], terminal), out(terminal), err(terminal)


async def test_what_is_wrong_is_found_and_named(nats_server: NatsServer, namespace: str) -> None:
    place = "--server", nats_server.url, "-n", namespace

    async def found(*words: str) -> tuple[int, dict[str, Any]]:
        code, told, _ = await asyncio.to_thread(doctor, *words, *place, "-o", "json")
        return code, {each["check"]: each for each in json.loads(told)}

    code, checks = await found()
    assert (code, checks["queues"]["level"]) == (0, "warn")
    assert {"server", "tls", "credentials", "jetstream"} <= checks.keys()
    async with AsyncClient(nats_server.url, namespace) as client:
        await ensure(client.broker, layout_of(a_task_queue(namespace, "images"), "tests"))
        await client.submit(call("images", "resize"))
        code, checks = await found()
        assert code == 1
        assert checks["queue images: workers"]["level"] == "fail"
        assert "no operator that leads serves it" in checks["queue images: workers"]["message"]
        assert checks["clock"]["message"] == "agrees with the server's"

        async with answering_supply(client.broker, namespace, "images", lambda *_: Supply()):
            beating = asyncio.create_task(_beat(client, namespace, "images"))

            async def heard_in_time() -> bool:
                code, checks = await found()
                message = checks["queue images: workers"]["message"]
                return (code, message) == (0, "1 there; 1 task waits or runs")

            await eventually(heard_in_time, within=60)
            await client.queues.pause("images")
            notes = topology.notes_stream(namespace, "images")
            await client.broker.api("delete", f"STREAM.DELETE.{notes}")
            work = topology.work_stream(namespace, "images")
            await client.broker.api("delete", f"CONSUMER.DELETE.{work}.high")
            code, checks = await found("images")
            assert code == 1
            assert checks["queue images: streams"]["message"] == (
                f"stream {notes}, consumer high of {work} missing"
            )
            assert checks["queue images: paused"]["hint"] == "galley resume images"
            await ensure(client.broker, layout_of(a_task_queue(namespace, "images"), "tests"))
            objects = topology.object_stream(namespace, "images")
            info = await client.broker.api("look", f"STREAM.INFO.{objects}")
            await client.broker.api(
                "change", f"STREAM.UPDATE.{objects}", {**info["config"], "discard_new_per_subject": False}
            )
            await ensure(client.broker, layout_of(a_task_queue(namespace, "texts"), "tests"))
            code, checks = await found()
            assert checks["queue texts: streams"]["level"] == "ok"
            assert checks["queue images: streams"]["message"] == (
                f"made by another version, or changed by hand: {objects} (discard_new_per_subject)"
            )
            beating.cancel()
        stranger = asyncio.create_task(_beat(client, namespace, "gone"))

        async def heard() -> bool:
            return await checkup.workers_heard(client.broker, namespace) == {"gone": {"w1": ""}}

        await eventually(heard, within=60)
        stranger.cancel()
    code, checks = await found("never")
    assert (code, checks["queue never"]["level"]) == (1, "fail")


async def _beat(client: AsyncClient, namespace: str, queue: str) -> None:
    while True:
        send_heartbeat(client.broker, namespace, queue, Heartbeat("w1", 1, 0, False, True))
        await asyncio.sleep(0.2)


def test_a_server_that_is_away_is_one_line_with_advice(nats_server: NatsServer) -> None:
    port = nats_server.url.rpartition(":")[2]
    away = nats_server.url.replace(port, "1")
    code, told, _ = doctor("--server", away)
    assert code == 1
    assert told.startswith("fail connection: ")
    assert "; " in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("interactive", [False, True])
def test_each_check_is_one_line(nats_server: NatsServer, namespace: str, interactive: bool) -> None:
    code, told, _ = doctor("--server", nats_server.url, "-n", namespace, interactive=interactive)
    assert code == 0
    assert [line[:5].strip() for line in told.splitlines()] == ["ok"] * 5 + ["warn"]


def test_credentials_that_cannot_be_read_are_told(nats_server: NatsServer, tmp_path: Path) -> None:
    code, told, _ = doctor("--server", nats_server.url, "--credentials", str(tmp_path / "none"))
    assert code == 1
    assert told.startswith("fail connection: ")


async def test_topics_without_a_consumer_for_a_subscriber_are_found(
    nats_server: NatsServer, namespace: str
) -> None:
    async with AsyncClient(nats_server.url, namespace) as client:
        broker = client.broker
        assert await checkup.topic_facts(broker, namespace) is None
        subscription = Subscription("all", "images", "resize")
        keeper = TopicKeeper(broker, namespace, "tests")
        await keeper.keep([Declared(Topic("orders"), (subscription,))])
        await client.publish("orders", 1)
        facts = await checkup.topic_facts(broker, namespace)
        assert facts is not None
        assert (facts.waiting, facts.missing, facts.differing, facts.silent) == (
            (("images", 1),),
            (),
            (),
            False,
        )
        name = topology.topics_stream(namespace)
        await broker.api("delete", f"CONSUMER.DELETE.{name}.images")
        info = await stream_info(broker, name)
        assert info is not None
        await broker.api("change", f"STREAM.UPDATE.{name}", {**info["config"], "discard": "old"})
        facts = await checkup.topic_facts(broker, namespace)
        assert facts is not None
        assert (facts.missing, facts.differing) == (("images",), ("discard",))
        code, told, _ = await asyncio.to_thread(doctor, "--server", nats_server.url, "-n", namespace)
        assert code == 1
        assert "topics: subscribers: images subscribe" in told
