"""HTTP handlers: what a receiver is sent, and what its answers come to."""

import asyncio
import base64
import errno
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from msgspec import Raw
from standardwebhooks.webhooks import Webhook

from galley.errors import HandlerExists
from galley.reference import INLINE_LIMIT
from galley_worker.ending import (
    Cancelled,
    CutOff,
    Finish,
    NotBegun,
    Raised,
    Returned,
    ReturnedLarge,
    Snoozed,
    TimedOut,
)
from galley_worker.errors import SigningKeysInvalid
from galley_worker.runners.execution import Execution
from galley_worker.runners.reach import AddressRefused, check_address
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import CommandHandler, HttpHandler, RunnerSettings
from galley_worker.runners.signing import LOOK_SECONDS, SigningKeys, signature
from galley_worker.runners.webhooks import retry_after
from galley_worker.work import Work

SECRET: Final = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER: Final = "whsec_" + base64.b64encode(b"o" * 24).decode()
NOW: Final = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """A server on loopback that takes notes, and what runs handlers behind it."""

    def __init__(self, runners: Runners, url: str, taken: list[tuple[dict[str, str], bytes]]) -> None:
        self.runners, self.url, self.taken = runners, url, taken

    def start(self, data: bytes = b'{"n":1}', **others: Any) -> Execution:
        given = {"timeout": 30.0, "submitted_at": NOW, **others}
        return self.runners.start(Work("T1", "thumbs", "normal", "resize", 2, Raw(data), **given))

    async def run(self, data: bytes = b'{"n":1}', **others: Any) -> Finish:
        return await asyncio.wait_for(self.start(data, **others).ending, 10)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "hooks"
    folder.mkdir()
    (folder / "key").write_text(SECRET + "\n")
    return folder


@asynccontextmanager
async def receiving(
    answer: Answer, keys: Path, *, url: str = "", concurrency: int = 2, **others: Any
) -> AsyncIterator[Receiver]:
    taken: list[tuple[dict[str, str], bytes]] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        taken.append((dict(request.headers), await request.read()))
        return await answer(request)

    app = web.Application(client_max_size=2**27)
    app.router.add_post("/tasks", serve)
    served = web.AppRunner(app, handler_cancellation=True)
    await served.setup()
    site = web.TCPSite(served, "127.0.0.1", 0)
    await site.start()
    port = served.addresses[0][1]
    url = url or f"http://127.0.0.1:{port}/tasks"
    settings = RunnerSettings(
        "thumbs", http=(HttpHandler("resize", url, keys),), namespace="demo", concurrency=concurrency,
        spool=str(keys.parent), **others,
    )  # fmt: skip
    try:
        async with Runners(settings) as runners:
            yield Receiver(runners, url, taken)
    finally:
        await served.cleanup()


def answers(status: int = 200, body: str = '{"ok": true}', **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body.encode(), headers=named)

    return answer


async def test_a_task_is_posted_signed_and_the_answer_is_its_result(keys: Path) -> None:
    (keys / "old").write_text(OTHER)
    async with receiving(answers(), keys) as receiver:
        ending = await receiver.run(
            '{"to":"grüße"}'.encode(), last_error="HttpStatus: status 503", trace="00-ab-cd-01", deadline=NOW
        )
    assert ending == Returned(Raw(b'{"ok": true}'))
    [(headers, body)] = receiver.taken
    for secret in (SECRET, OTHER):
        # As a receiver does it: the library refuses what is not signed, or is old.
        told = Webhook(secret).verify(body.decode(), {name.lower(): value for name, value in headers.items()})
        assert told["type"] == "galley.task"
    assert json.loads(body)["data"] == {
        "id": "T1", "namespace": "demo", "queue": "thumbs", "lane": "normal", "handler": "resize",
        "attempt": 2, "submittedAt": "2026-03-04T05:06:07Z", "timeoutSeconds": 30.0,
        "input": {"to": "grüße"}, "deadline": "2026-03-04T05:06:07Z", "lastError": "HttpStatus: status 503",
    }  # fmt: skip
    assert headers["webhook-id"] == "demo/thumbs/T1"
    assert headers["traceparent"] == "00-ab-cd-01"
    assert headers["Content-Type"] == "application/json"


def test_signatures_are_those_of_the_standard() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


RETRIED = ("HttpStatus", True)
FINAL = ("HttpStatus", False)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (500, RETRIED), (501, RETRIED), (503, RETRIED), (599, RETRIED), (408, RETRIED), (425, RETRIED),
        (429, RETRIED), (400, FINAL), (401, FINAL), (404, FINAL), (409, FINAL), (410, FINAL), (422, FINAL),
        (301, FINAL), (304, FINAL), (307, FINAL),
    ],
)  # fmt: skip
async def test_the_status_decides_whether_a_task_is_tried_again(
    keys: Path, status: int, expected: tuple[str, bool]
) -> None:
    async with receiving(answers(status, "no room\nmore of it"), keys) as receiver:
        ending = await receiver.run()
    assert isinstance(ending, Raised)
    assert (ending.failure.reason, ending.retryable, ending.pause) == (*expected, None)
    assert f"status {status}" in ending.failure.message
    if status != 304:  # has no body
        assert ending.failure.traceback == "no room\nmore of it"
    if status >= 400:
        assert ending.kinds == ("http", f"http {status}")
    assert len(receiver.taken) == 1


async def test_retry_after_is_waited_for_and_429_with_it_costs_no_attempt(keys: Path) -> None:
    async with receiving(answers(503, Retry_After="7"), keys) as receiver:
        ending = await receiver.run()
    assert isinstance(ending, Raised)
    assert ending.pause == 7
    async with receiving(answers(429, "busy", Retry_After="8"), keys) as receiver:
        snoozed = await receiver.run()
    assert isinstance(snoozed, Snoozed)
    assert (snoozed.pause, snoozed.failure.message) == (8, "status 429: busy")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0), ("12", 12), ("999999999", 86_400), ("Wed, 04 Mar 2026 05:07:07 GMT", 60),
        ("Wed, 04 Mar 2026 05:07:07 -0000", 60), ("Wed, 04 Mar 2020 05:07:07 GMT", 0), ("", None),
        ("-3", None), ("soon", None), ("1e9", None), ("٣", None), ("9" * 400, None),
        ("Wed, 99 Mar 2026 05:07:07 GMT", None),
        ("Mon, 01 Jan 99999999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +9999999999999999999", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_an_empty_answer_is_a_result_of_null(keys: Path, status: int) -> None:
    async with receiving(answers(status, ""), keys) as receiver:
        assert await receiver.run() == Returned(Raw(b"null"))


@pytest.mark.parametrize("body", ["<p>ok</p>", "{", "[" * 100_000 + "]" * 100_000, '"\udcff"', "NaN"])
async def test_an_answer_that_is_not_json_fails_for_good_and_names_its_type(keys: Path, body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body.encode(errors="surrogateescape"), content_type="text/html")

    async with receiving(answer, keys) as receiver:
        ending = await receiver.run()
    assert isinstance(ending, Raised)
    assert (ending.failure.reason, ending.retryable) == ("ResultInvalid", False)
    assert "text/html" in ending.failure.message or len(ending.failure.message) == 1000


async def test_a_large_answer_is_spooled_and_one_without_end_is_given_up(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("galley_worker.runners.webhooks.LARGEST", 2 * INLINE_LIMIT)
    text = json.dumps("x" * INLINE_LIMIT)
    async with receiving(answers(200, text), keys) as receiver:
        large = await receiver.run()
    assert isinstance(large, ReturnedLarge)
    assert large.large is not None
    assert large.large.size == len(text)
    large.discard()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65_536)

    async with receiving(endless, keys) as receiver:
        ending = await receiver.run()
    assert isinstance(ending, Raised)
    assert (ending.failure.reason, ending.retryable) == ("ResultTooLarge", False)


async def test_a_large_input_is_sent_whole(keys: Path) -> None:
    file = keys.parent / "input"
    file.write_text(json.dumps(["y" * 1_000_000]))
    async with receiving(answers(), keys) as receiver:
        assert isinstance(await receiver.run(b"", large=str(file)), Returned)
    assert json.loads(receiver.taken[0][1])["data"]["input"] == ["y" * 1_000_000]


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_cancelled_task_and_one_out_of_time_close_their_connection(keys: Path) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.put_nowait("begun")
        try:
            return await hangs(request)
        finally:
            seen.put_nowait("gone")

    async with receiving(answer, keys) as receiver:
        cancelled = receiver.start()
        assert await seen.get() == "begun"
        cancelled.stop(Cancelled())
        assert await asyncio.wait_for(cancelled.ending, 5) == Cancelled()
        assert await asyncio.wait_for(seen.get(), 5) == "gone"
        assert await receiver.run(timeout=0.2) == TimedOut(0.2)
        left = receiver.start()
    assert await left.ending == CutOff("the worker stops")


async def test_what_is_stopped_before_its_request_is_written_is_never_sent(keys: Path) -> None:
    """On a new connection and on one that is used again: the worker finds that it was frozen meanwhile."""
    why, lost = CutOff("its lease was lost in a freeze"), list[Execution]()

    def look() -> None:
        while lost:
            lost.pop().stop(why)

    async with receiving(answers(), keys, concurrency=1, before_orders=look) as receiver:
        for sent in (0, 1):
            work = receiver.start()
            lost.append(work)
            assert await asyncio.wait_for(work.ending, 10) == why
            assert len(receiver.taken) == sent
            assert isinstance(await receiver.run(), Returned)


async def test_what_is_stopped_at_once_ends_and_gives_its_slot_back(keys: Path) -> None:
    async with receiving(answers(), keys, concurrency=1) as receiver:
        work = receiver.start()
        work.stop(Cancelled())
        assert await asyncio.wait_for(work.ending, 10) == Cancelled()
        assert isinstance(await receiver.run(), Returned)
        assert len(receiver.taken) == 1


async def test_what_waits_behind_slow_requests_is_given_back_or_stopped(keys: Path) -> None:
    async with receiving(hangs, keys, concurrency=1) as receiver:
        receiver.start()
        stopped = receiver.start()
        stopped.stop(Cancelled())
        assert await stopped.ending == Cancelled()
        assert isinstance(await asyncio.wait_for(receiver.start().ending, 5), NotBegun)


async def test_connections_are_used_again_and_nothing_is_kept_between_tasks(keys: Path) -> None:
    ports = set()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        assert "cookie" not in request.headers
        return web.Response(text="1", headers={"Set-Cookie": "a=b; Path=/"})

    async with receiving(answer, keys) as receiver:
        for _ in range(5):
            assert await receiver.run() == Returned(Raw(b"1"))
    assert len(ports) == 1


async def test_a_server_that_is_not_there_is_tried_again(keys: Path) -> None:
    for url in ("http://127.0.0.1:1/x", "http://no-such-host.invalid/", "https://127.0.0.1:1/"):
        async with receiving(hangs, keys, url=url) as receiver:
            ending = await receiver.run()
        assert isinstance(ending, Raised)
        assert (ending.failure.reason, ending.retryable) == ("HttpUnreachable", True), ending
        assert url in ending.failure.message


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/", "http://2852039166/", "http://0xa9fea9fe/", "http://0.0.0.0/",
        "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1::a9fe:a9fe]/", "http://[2002:a9fe:a9fe::1]/",
    ],
)  # fmt: skip
async def test_no_request_is_sent_to_a_metadata_service(keys: Path, url: str) -> None:
    async with receiving(hangs, keys, url=url) as receiver:
        ending = await receiver.run()
    assert isinstance(ending, Raised)
    assert (ending.failure.reason, ending.retryable) == ("AddressRefused", False), ending


def test_addresses_of_the_network_of_pods_are_admitted() -> None:
    for text in ("127.0.0.1", "10.0.0.1", "192.168.1.1", "8.8.8.8", "::1", "fd00::1", "64:ff9b::808:808"):
        check_address("host", text)
    for text in ("168.63.129.16", "::ffff:168.63.129.16", "fd20:ce::254", "fd00:ec2::23", "100.100.100.200"):
        with pytest.raises(AddressRefused, match="metadata"):
            check_address("host", text)
    with pytest.raises(AddressRefused, match="224"):
        check_address("host", "224.0.0.1")


def test_keys_are_read_again_and_a_broken_change_keeps_those_of_before(keys: Path) -> None:
    now = 0.0
    read = SigningKeys(keys, lambda: now)
    (keys / "key").write_text(OTHER)
    assert read.now() == (b"k" * 32,)
    now += LOOK_SECONDS
    assert read.now() == (b"o" * 24,)
    (keys / "key").write_text("whsec_!")
    now += LOOK_SECONDS
    assert read.now() == (b"o" * 24,)


@pytest.mark.parametrize("text", ["whsec_", "whsec_!!!", "whsec_" + "QUJD", "é", "whsec_" + "QUJD" * 40])
def test_keys_that_cannot_sign_are_refused(keys: Path, text: str) -> None:
    (keys / "key").write_text(text)
    with pytest.raises(SigningKeysInvalid, match="key"):
        SigningKeys(keys)


def test_a_place_without_keys_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SigningKeysInvalid):
            SigningKeys(place)


async def test_two_handlers_of_one_name_are_refused(keys: Path) -> None:
    settings = RunnerSettings(
        "thumbs", commands=(CommandHandler("resize", ("true",)),),
        http=(HttpHandler("resize", "http://127.0.0.1:1/", keys),),
    )  # fmt: skip
    with pytest.raises(HandlerExists, match="an HTTP handler"):
        async with Runners(settings):
            pass


async def test_a_disk_without_room_is_not_said_to_be_a_receiver_that_does_not_answer(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fills(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:1024])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fills)
    async with receiving(answers(200, json.dumps("x" * INLINE_LIMIT)), keys) as receiver:
        ending = await receiver.run()
    assert isinstance(ending, Raised)
    assert (ending.failure.reason, ending.retryable, ending.kinds) == ("ResultNotStored", True, ())
    assert "No space left" in ending.failure.message
    assert [each.name for each in keys.parent.iterdir()] == [keys.name]
