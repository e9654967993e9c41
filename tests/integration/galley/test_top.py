"""`galley top` on a real server: figures, rates, a pipe, a terminal, and a broker that goes away."""

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime

import pytest
from rich.console import Group
from rich.text import Text

from galley import AsyncClient, call
from galley.broker import counts
from galley.broker.control import Answer, Request, Supply, Verb, answering, answering_supply
from galley.broker.counts import Outbox
from galley.broker.ensure import ensure
from galley.broker.errors import BrokerUnreachable
from galley.broker.layout import layout_of
from galley.broker.overview import Overview
from galley.broker.pull import Pulls
from galley.cli import top
from galley.cli.main import main
from galley_local.nats_server import NatsServer
from tests.support.workers import a_task_queue
from tests.unit.galley.cli.a_terminal import a_terminal, err, out


class Hands:
    """Takes tasks, and does nothing with them."""

    def delivered(self, delivery: object) -> None: ...

    def changed(self) -> None: ...

    def reconnected(self) -> None: ...


async def test_it_shows_what_waits_and_runs_and_how_fast_tasks_end(
    nats_server: NatsServer, namespace: str
) -> None:
    place = "--server", nats_server.url, "-n", namespace

    def run(*words: str) -> tuple[int, str, str]:
        terminal = a_terminal()
        return main(["top", *words, *place], terminal), out(terminal), err(terminal)

    async with AsyncClient(nats_server.url, namespace) as client:
        layout = layout_of(a_task_queue(namespace, "images"), "tests")
        await ensure(client.broker, layout)
        for _ in range(3):
            await client.submit(call("images", "resize"))

        async def runs(_verb: Verb, _request: Request) -> Answer:
            return Answer("w7", datetime.now(UTC))

        async with (
            Pulls(client.broker, layout, Hands()) as pulls,
            answering(client.broker, namespace, "images", runs),
            answering_supply(
                client.broker, namespace, "images", lambda *_: Supply(workers={"ready": 1, "desired": 2})
            ),
        ):
            await pulls.orient()
            [source] = [
                each for pair in pulls.sources.values() for each in pair
                if each.stream.startswith("GW") and each.lane == "normal"
            ]  # fmt: skip
            assert await pulls.sweep(source, 1) == 1
            code, told, _ = await asyncio.to_thread(run, "-o", "json")
            [figures] = json.loads(told)
            assert code == 0
            assert (figures["waiting"], figures["running"], figures["later"]) == (2, 1, 0)
            assert figures["workers"] == {"ready": 1, "desired": 2}
            code, told, _ = await asyncio.to_thread(run, "images")
            assert (code, told) == (0, "images\t2\t1\t0\t1/2\t0.0\t0.0\t0.0\t\t\n")

            overview = Overview(client.broker, namespace, None, iter((0.0, 2.0)).__next__)
            await overview.look()
            outbox = Outbox(client.broker, (namespace, "images"), "w1", time.monotonic)
            await outbox.hand_over(
                Counter(
                    {
                        ("high", counts.SUCCEEDED): 4,
                        ("normal", counts.SUCCEEDED): 6,
                        ("normal", counts.FAILED): 1,
                    }
                )
            )
            [one] = await overview.look()
            assert one.succeeded_per_second == 5.0
            assert (one.failed_per_second, one.retried_per_second) == (0.5, 0.0)
            frame = await top.frame(
                client, Overview(client.broker, namespace, None, time.monotonic), a_terminal()
            )
            terminal = a_terminal()
            terminal.console(120).print(frame)
            for word in ("QUEUE", "images", "1/2", "HANDLER", "resize", "w7"):
                assert word in out(terminal)
        code, told, said = await asyncio.to_thread(run, "missing")
        assert (code != 0, told) == (True, "")
        assert "missing" in said


async def test_the_last_frame_stays_while_the_broker_is_away_and_says_of_when_it_is() -> None:
    frames = iter((None, BrokerUnreachable("nats://elsewhere", "gone"), None))

    async def frame() -> Group:
        if (error := next(frames)) is not None:
            raise error
        return Group(Text("images 3"))

    class Over(Exception):
        pass

    looks = 0

    async def pause() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise Over

    terminal = a_terminal(interactive=True)
    with pytest.raises(Over):
        await top.follow(frame, terminal, pause)
    told = out(terminal)
    assert "the broker does not answer; this is of 12:00:00 UTC" in told
    assert told.count("images 3") >= 2
