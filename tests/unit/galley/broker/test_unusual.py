"""Connections and addresses that cannot be: each error is typed, and says what was tried where."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from nats.errors import ConnectionClosedError
from nats.errors import Error as NatsError

from galley import Tls
from galley.broker import checkup
from galley.broker.account_directory import AccountDirectory
from galley.broker.doorbell import Doorbell
from galley.broker.encryption import context_of
from galley.broker.errors import BrokerRefused, BrokerUnreachable, NotAllowed
from galley.broker.identity import Identity
from galley.broker.lean_client import LeanClient, header_block
from galley.broker.lean_parser import LeanParser
from galley.broker.namespace_streams import topics_definition
from galley.broker.pipeline import TOO_LARGE, WRONG_SUBJECT, Ack
from galley.broker.room import LaterRoom
from galley.broker.server_address import check_server
from galley.broker.websocket import prepare
from galley.errors import ServerInvalid
from galley_operator.credentials.account import Account
from galley_operator.credentials.trust import made_keys
from tests.support.builders import an_address
from tests.support.port import free_port
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench

CLOSED = r"a\.subject: nats: connection closed"


def credentials() -> str:
    return Account.read(made_keys(time.time()), "keys").credentials("tests", None)


def closed(*_: Any, **__: Any) -> Any:
    raise ConnectionClosedError


def test_an_address_whose_port_is_none_is_refused() -> None:
    with pytest.raises(ServerInvalid, match="Port"):
        check_server("nats://host:99999")


def test_web_sockets_say_which_package_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ServerInvalid, match="pip install aiohttp"):
        prepare("wss://host")


def test_files_that_cannot_be_used_are_an_error_the_library_tries_again_after(tmp_path: Path) -> None:
    with pytest.raises(NatsError, match=str(tmp_path)):
        context_of(Tls(tmp_path / "ca.crt"))
    with pytest.raises(NatsError, match="creds"):
        Identity(tmp_path / "nats.creds").sign("nonce")


def test_a_key_that_is_none_is_an_error_of_the_credentials() -> None:
    text = credentials()
    seed = text.split("SEED-----\n")[1].split("\n")[0]
    with pytest.raises(NatsError, match="the key is malformed"):
        Identity(lambda: text.replace(seed, "SU!!")).sign("nonce")


async def test_the_directory_of_accounts_tells_that_nothing_answers() -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    directory = AccountDirectory(url, credentials, connect_seconds=0.3)
    with pytest.raises(BrokerUnreachable, match="system account"):
        await directory.__aenter__()
    with pytest.raises(BrokerUnreachable, match="LOOKUP"):
        await directory.read("A")
    with pytest.raises(BrokerUnreachable, match="servers"):
        await directory.tags()
    with pytest.raises(BrokerRefused, match="unreadable answer"):
        directory._check("store an account", b"\xff")


@in_virtual_time
async def test_what_cannot_be_sent_is_logged_and_nothing_else_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_bench() as bench:
        broker, line = bench.producer, bench.producer.line
        line.publish_directly = LeanClient.publish_directly.__get__(line)  # type: ignore[method-assign]
        broker.publish("galley.hb.a b", b"")
        broker.publish("galley.hb.a", b"x" * (line.max_payload + 1))
        assert caplog.messages == ["not sent", "not sent, too large"]
        heard: list[Ack] = []
        broker.pipeline.put_heard("galley.hb.a b", b"", b"", heard.append)
        # For these the server would close the connection.
        broker.pipeline.put_heard(f"galley.hb.{'a' * 4090}", b"", b"", heard.append)
        broker.pipeline.put_heard("galley.hb.a", b"x" * line.max_payload, header_block({}), heard.append)
        assert [ack.code for ack in heard] == [WRONG_SUBJECT, WRONG_SUBJECT, TOO_LARGE]


@in_virtual_time
async def test_a_connection_that_closes_within_a_call_is_told_as_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_bench() as bench:
        broker = bench.producer
        for name in ("subscribe", "request"):
            monkeypatch.setattr(broker.line, name, closed)
        with pytest.raises(BrokerUnreachable, match=CLOSED):
            await broker.subscribe("a.subject", closed)
        with pytest.raises(BrokerUnreachable, match=CLOSED):
            await broker.request("a.subject", b"")
        async with Doorbell(broker, "default", "images") as bell:
            await bell.arm()
            assert not bell.armed, "the sweep finds the work, and arms it again"
        monkeypatch.undo()
        monkeypatch.setattr(broker.line, "publish", closed)
        with pytest.raises(BrokerUnreachable, match=CLOSED):
            await anext(broker.request_many("a.subject", b""))


async def test_a_message_that_cannot_be_taken_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[bytes] = []

    def take(_subject: str, _reply: str, body: bytes, _headers: bytes) -> None:
        if body == b"no":
            raise ValueError("broken")
        heard.append(body)

    parser = LeanParser(LeanClient(), {b"7": take})
    with caplog.at_level(logging.DEBUG):
        await parser.parse(b"MSG a 7 2\r\nno\r\nMSG a 7 b\xff 2\r\nno\r\nMSG a 7 3\r\nyes\r\n")
    assert heard == [b"yes"]
    assert caplog.messages == ["message not taken", "message dropped"]


@in_virtual_time
async def test_the_doctor_tells_topics_that_are_silent_missing_or_not_to_be_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_bench() as bench:
        broker = bench.producer
        config = topics_definition("default", "tests", 1, 1_000_000, ("images",))
        await broker.api("make", f"STREAM.CREATE.{config['name']}", config)
        facts = await checkup.topic_facts(broker, "default")
        assert facts is not None
        assert facts.missing == ("images",)
        broker.line.lose(to_server=lambda _subject: True)
        facts = await checkup.topic_facts(broker, "default")
        assert facts is not None
        assert facts.silent
        assert await checkup._supply(broker, "default", "images") == (None, "", "")

        def refuse(*_: Any, **__: Any) -> Any:
            raise NotAllowed("a.subject")

        monkeypatch.setattr(broker, "api", refuse)
        assert await checkup.topic_facts(broker, "default") is None
        async with LaterRoom(broker).taking(an_address(of=bench.layout), 1, 1.0) as problem:
            assert problem == "", "credentials of an earlier release may not look, and may store"
