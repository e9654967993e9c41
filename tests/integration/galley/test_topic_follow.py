"""`galley topic follow`, as a person runs it: until Ctrl-C, through a broker that dies."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from galley.broker.connection import Broker
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.client import AsyncClient
from galley.topic import Topic
from galley_local.nats_server import NatsServer
from tests.support.command import run_command


@asynccontextmanager
async def command(server: NatsServer, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "galley.cli.main", "topic", *words, "--server", server.url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(120):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    return (await stream.readline()).decode()


async def lines_up_to(stream: asyncio.StreamReader | None, words: str) -> list[str]:
    lines: list[str] = []
    while not lines or words not in lines[-1]:
        lines.append(await line(stream))
        assert lines[-1], lines
    return lines


async def test_events_are_printed_until_ctrl_c(own_nats_server: NatsServer) -> None:
    server = own_nats_server
    async with Broker(server.url, name="operator") as operator:
        await TopicKeeper(operator, "default", "tests").keep([Declared(Topic("orders"))])
        client = AsyncClient.over(operator, "default")
        async with command(server, "follow", "orders", "--filter", "attributes.paid") as process:
            assert await line(process.stderr) == "listening to topic orders, until Ctrl-C\n"
            await client.publish("orders", {"note": "\x1b[2J\u202e"}, {"paid": True}, source="shop")
            await client.publish("orders", 2)
            first = await line(process.stdout)
            assert first.endswith(' galley.event shop paid=true {"note": "\\u001b[2J\\u202e"}\n')
            server.kill()
            said = await lines_up_to(process.stderr, "connection is lost")
            await server.start()
            said += await lines_up_to(process.stderr, "connection is back")
            await client.publish("orders", 3, {"paid": True})
            assert (await line(process.stdout)).endswith(" paid=true 3\n")
            process.send_signal(signal.SIGINT)
            said += await lines_up_to(process.stderr, "interrupted")
            assert said.count("events may be missing here\n") == 1
            assert ["cannot be applied to 1 events" in each for each in said].count(True) == 1
            assert await process.wait() == 130


async def test_what_cannot_be_followed_is_an_error_of_two_lines(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    for words, code, says in (
        (("follow", "none"), 1, "has no topic 'none'"),
        (("follow", "orders", "--filter", "region =="), 2, "filter: 'region =='"),
        (("follow", "orders", "-o", "yaml"), 2, "follow prints lines, or JSON"),
        (("show", "orders", "--filter", "true"), 2, "--filter is for follow"),
    ):
        said = await run_command(("topic", *words, "--server", nats_server.url), tmp_path, {})
        assert (said.code, said.out) == (code, ""), said
        assert says in said.err
        assert said.err.count("\n") == 2
