"""Calls of the client that are cut short: what was sent is not lost, and what is not known is said so."""

import asyncio
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec import Raw

from galley import AsyncClient, File, FileUnreadable, ResultMismatch, call
from galley.batch import SubmitIncomplete, SubmitInterrupted
from galley.broker import pause, topology
from galley.broker.errors import BrokerRefused, NotAllowed
from galley.broker.objects import Place
from galley.broker.stream_listing import ask
from galley.cli.errors import Misuse
from galley.cli.schedule import _input
from galley.dead_letter import NO_TASK, DeadLetter, encode
from galley.encryption import DecryptionKeyMissing
from galley.errors import DrainTimeout, RedriveIncomplete
from galley.handle import AsyncHandle
from galley.objects.bucket import BucketObjects
from galley.objects.content import _filled
from galley.objects.errors import ObjectStoreUnavailable
from galley.objects.transfer import download
from galley.record import Failure
from galley.reference import Reference
from galley.testing.clients import _in_own_loop
from galley.timetable import Timetable
from galley.typed import Typed
from tests.support.builders import an_address, an_envelope
from tests.support.port import free_port
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.encryption.keys import TWO, payloads
from tests.unit.galley_worker.bench import Bench, a_bench

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def client_of(bench: Bench) -> AsyncClient:
    return AsyncClient.over(bench.producer, "default")


@in_virtual_time
async def test_a_submission_that_is_cancelled_tells_the_handle_of_what_may_be_there() -> None:
    async with a_bench() as bench:
        bench.producer.line.lose(to_client=lambda _subject: True)
        submitting = asyncio.create_task(client_of(bench).submit(call("images", "resize")))
        await asyncio.sleep(1)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await submitting
        cause = cancelled.value.__cause__
        assert isinstance(cause, SubmitInterrupted)
        assert set(cause.unknown) == {0}


@in_virtual_time
async def test_tasks_whose_answers_do_not_come_are_told_as_not_known() -> None:
    async with a_bench() as bench:
        bench.producer.line.lose(to_server=lambda subject: subject.startswith("galley.task."))
        with pytest.raises(SubmitIncomplete) as raised:
            await client_of(bench).submit_many([call("images", "resize"), call("images", "resize")])
        assert not raised.value.submitted


@in_virtual_time
async def test_a_queue_whose_tasks_do_not_end_in_time_stays_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def held(*_: Any) -> int:
        return 1

    monkeypatch.setattr(pause, "held_by_workers", held)
    async with a_bench() as bench:
        with pytest.raises(DrainTimeout, match="images"):
            await client_of(bench).queues.drain("images", within=5)


@in_virtual_time
async def test_letters_that_hold_no_task_are_passed_over_and_told() -> None:
    async with a_bench() as bench:
        client = client_of(bench)
        failure = Failure("ValueError", "broken")
        for name, envelope in (("none", NO_TASK), ("odd", Raw(b"[1]"))):
            letter = DeadLetter(failure, NOON, "w1", 1, "normal", envelope=envelope)
            subject = topology.dead_subject(an_address(id=name))
            await (await bench.producer.pipeline.send(subject, encode(letter), b""))
        assert (await client.dead_letters.get("images", "odd")).body == b"[1]"
        with pytest.raises(RedriveIncomplete):
            await client.dead_letters.redrive_all("images")


async def test_a_bucket_that_does_not_answer_is_told_for_each_thing_asked_of_it() -> None:
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "c",
    }  # fmt: skip
    bucket, place = BucketObjects("s3://a", environment, retry_seconds=0.1), Place("default", "images")

    async def pieces() -> Any:
        yield b"one"

    for asked in (
        bucket.put(place, "name", pieces()),
        anext(bucket.get(place, "name", 3, "a file")),
        bucket.remove(place, "name"),
    ):
        with pytest.raises(ObjectStoreUnavailable):
            await cast("Any", asked)


async def test_a_file_is_not_downloaded_where_nothing_can_be_written(tmp_path: Path) -> None:
    file = File.stored(Reference("a" * 64, 3, name="a"))
    file.home = "default", "images"
    with pytest.raises(FileUnreadable, match="none"):
        await download(cast("Any", None), file, tmp_path / "none" / "a")
    with (tmp_path / "written").open("wb") as written, pytest.raises(FileUnreadable):
        _filled(cast("Any", written), 3, "written")


@in_virtual_time
async def test_what_cannot_be_read_is_told_by_what_it_is() -> None:
    with pytest.raises(ResultMismatch):
        AsyncHandle(cast("Any", None), an_address(), None, Typed(int))._in_type(b'"a"')
    with pytest.raises(Misuse, match="not JSON"):
        _input(Namespace(input="{", handler="resize"))
    with pytest.raises(KeyError):
        _in_own_loop(_broken())
    async with a_bench() as bench:
        with pytest.raises(BrokerRefused, match="as expected"):
            await ask(bench.producer, "STREAM.LIST", {}, cast("Any", msgspec.json.Decoder(int).decode))


async def _broken() -> None:
    raise KeyError("broken")


async def test_a_task_that_cannot_be_decrypted_here_keeps_its_seal_where_it_is_looked_at() -> None:
    here, there, address = payloads(), payloads(k2=TWO), an_address(id="one")
    await here.prepare(address)
    body = await here.task_bytes(address, an_envelope("charge", input={"card": 1}))
    with pytest.raises(DecryptionKeyMissing):
        await there.read_task(address, body)
    assert (await there.look_at_task(address, body)).sealed


def test_a_timetable_ends_with_the_calendar() -> None:
    last = datetime(9999, 12, 30, tzinfo=UTC)
    for line in ("@every 24h", "0 0 * * *"):
        assert len(list(Timetable(line).after(last))) <= 2


@in_virtual_time
async def test_what_topics_ask_of_queues_they_may_not_look_at_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_bench() as bench:
        topics = client_of(bench).topics
        assert await topics._pending("images") == 0

        async def refuse(*_: Any, **__: Any) -> Any:
            raise NotAllowed("$JS.API")

        monkeypatch.setattr(bench.producer, "api", refuse)
        assert not await topics._is_full("images")
