"""What handlers say is gathered, written once a second, and bounded; nothing waits for it in vain."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec import Raw

from galley.address import TaskAddress
from galley.broker import notes, topology
from galley.encryption import DecryptionKeyMissing, KeyServiceUnavailable, PayloadAltered, PlaintextRefused
from galley.encryption.payloads import Payloads
from galley.faults import Faults
from galley.note import Progress
from galley_worker.notebook import KEPT_BYTES, SILENT_SECONDS, Notebook
from galley_worker.runners.frames import Progressed, Saved
from galley_worker.runners.settings import Line
from galley_worker.work import Work
from tests.support.builders import an_address
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.encryption.keys import payloads
from tests.unit.galley_worker.bench import Bench, Worker, a_bench


class Desk(NamedTuple):
    bench: Bench
    worker: Worker
    notebook: Notebook
    address: TaskAddress
    work: Work

    @property
    def written(self) -> list[str]:
        """Return the names of the notes that were stored, in order."""
        return [each.subject.split(".")[6] for each in self.bench.seen("stored", "note")]


@asynccontextmanager
async def a_desk(attempt: int = 1) -> AsyncIterator[Desk]:
    async with a_bench() as bench, bench.worker() as worker:
        notebook, address = Notebook("default", worker.who, bench.server.now), an_address()
        work = Work(address.id, "images", "normal", "resize", attempt, Raw(b"{}"), 9.0, datetime.now(UTC))
        async with notebook.writing(worker.broker, Faults()):
            yield Desk(bench, worker, notebook, address, work)


def said(work: Work | None, text: str) -> Line:
    return Line(work, "stdout", text)


@in_virtual_time
async def test_of_many_values_one_a_second_is_written_and_always_the_last() -> None:
    async with a_desk() as desk:
        for number in range(25):
            for _ in range(100):
                desk.notebook.report(desk.work, Progressed(1, number / 100, f"{number}"))
            await desk.bench.pass_time(0.1)
        assert desk.written == ["progress"] * 2
        desk.notebook.report(desk.work, Progressed(1, 0.99, "last"))
        await desk.notebook.finish(desk.work)
        assert desk.written == ["progress"] * 3
        found = await notes.progress_of(desk.bench.producer, desk.address)
        assert found is not None
        assert (found.fraction, found.text, found.attempt) == (0.99, "last", 1)
        assert desk.notebook.empty


@in_virtual_time
async def test_what_was_written_is_not_written_again_with_what_follows() -> None:
    async with a_desk() as desk:
        desk.notebook.report(desk.work, Saved(1, b"1"))
        await desk.bench.pass_time(2)
        desk.notebook.report(desk.work, Progressed(1, 0.5, "half"))
        await desk.bench.pass_time(2)
        await desk.notebook.finish(desk.work)
        assert desk.written == ["checkpoint", "progress"]


@in_virtual_time
async def test_an_attempt_that_says_nothing_writes_nothing() -> None:
    async with a_desk() as desk:
        desk.notebook.line(said(None, "of the worker itself"))
        await desk.bench.pass_time(5)
        await desk.notebook.finish(desk.work)
        assert desk.notebook.empty
        assert desk.written == []


@in_virtual_time
async def test_lines_come_in_order_each_once_and_later_ones_do_not_replace_earlier_ones() -> None:
    async with a_desk(attempt=3) as desk:
        for number in range(30):
            desk.notebook.line(said(desk.work, f"line {number}"))
            await desk.bench.pass_time(0.2)
        await desk.notebook.finish(desk.work)
        desk.notebook.line(said(desk.work, "from a thread, after the end"))
        await desk.bench.pass_time(2)
        parts = await notes.output_of(desk.bench.producer, desk.address)
        lines = [line.text for _, part in parts for line in notes.lines_of(part)]
        assert lines == [*(f"line {number}" for number in range(30)), "from a thread, after the end"]
        assert {part.attempt for _, part in parts} == {3}
        assert 5 <= len(parts) <= 8
        assert await notes.output_of(desk.bench.producer, desk.address, attempt=2) == []
        desk.notebook.line(said(desk.work, "again"))
        await desk.bench.pass_time(SILENT_SECONDS + 3)
        other = msgspec.structs.replace(desk.work, attempt=4)
        desk.notebook.line(said(other, "of another attempt"))
        await desk.bench.pass_time(2)
        await desk.notebook.finish(other)
        assert desk.notebook.empty


@in_virtual_time
async def test_what_is_kept_of_one_attempt_is_bounded_however_short_its_lines() -> None:
    async with a_desk() as desk:
        for _ in range(100_000):
            desk.notebook.line(said(desk.work, ""))
        await desk.notebook.finish(desk.work)
        parts = await notes.output_of(desk.bench.producer, desk.address)
        lines = [line for _, part in parts for line in part.lines]
        assert lines[-1].text == "output limit reached: what follows is not kept here"
        assert lines[-1].stream == "galley"
        stream = desk.bench.server.streams[topology.notes_stream("default", "images")]
        assert stream.bytes < 2 * KEPT_BYTES
        assert max(len(each.body) for each in stream.messages.values()) < 512 * 1024


@in_virtual_time
async def test_a_checkpoint_is_the_last_one_and_none_is_no_error() -> None:
    async with a_desk() as desk:
        assert await desk.notebook.checkpoint(desk.address) == b""
        for number in range(3):
            desk.notebook.report(desk.work, Saved(1, b"[%d]" % number))
        await desk.notebook.finish(desk.work)
        assert await desk.notebook.checkpoint(desk.address) == b"[2]"
        assert desk.written == ["checkpoint"]


@in_virtual_time
async def test_a_queue_without_a_stream_of_notes_only_loses_them() -> None:
    async with a_desk() as desk:
        del desk.bench.server.streams[topology.notes_stream("default", "images")]
        dropped: list[int] = []
        desk.notebook.dropped = lambda: dropped.append(1)
        desk.notebook.line(said(desk.work, "a"))
        await desk.notebook.finish(desk.work)
        assert dropped == [1]
        assert await desk.notebook.checkpoint(desk.address) == b""
        assert await notes.output_of(desk.bench.producer, desk.address) == []


@in_virtual_time
async def test_notes_that_cannot_be_written_for_whatever_reason_are_lost_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_desk() as desk:
        dropped: list[int] = []
        desk.notebook.dropped = lambda: dropped.append(1)
        other = msgspec.structs.replace(desk.work, task_id="other")
        send = Notebook._send

        async def fail(notebook: Notebook, key: Any, page: Any) -> Any:
            if key.task == "other":
                raise RuntimeError("raised by a test")
            return await send(notebook, key, page)

        monkeypatch.setattr(Notebook, "_send", fail)
        desk.notebook.line(said(other, "a"))
        desk.notebook.line(said(desk.work, "b"))
        await desk.bench.pass_time(2)
        assert (dropped, desk.written) == ([1], ["log"])
    assert [one.message for one in caplog.records if one.exc_info] == ["notes not written"]


@in_virtual_time
async def test_an_attempt_does_not_wait_for_a_broker_that_is_silent() -> None:
    async with a_desk() as desk:
        desk.bench.server.freeze()
        desk.notebook.line(said(desk.work, "a"))
        before = desk.bench.server.now()
        await desk.notebook.finish(desk.work)
        assert (desk.bench.server.now() - before).total_seconds() <= 2.1
        assert await desk.notebook.checkpoint(desk.address) == b""
        desk.bench.server.thaw()


@in_virtual_time
async def test_notes_of_an_encrypted_queue_are_encrypted_and_bound_to_their_place() -> None:
    async with a_desk() as desk:
        for broker in (desk.worker.broker, desk.bench.producer):
            broker.payloads = payloads()
        desk.notebook.line(said(desk.work, "a secret"))
        desk.notebook.report(desk.work, Saved(1, b'"a secret"'))
        desk.notebook.report(desk.work, Progressed(1, 0.5, "a secret"))
        await desk.notebook.finish(desk.work)
        stream = desk.bench.server.streams[topology.notes_stream("default", "images")]
        bodies = {each.subject.split(".")[6]: each.body for each in stream.messages.values()}
        assert set(bodies) == {"log", "checkpoint", "progress"}
        assert not any(b"secret" in body for body in bodies.values())
        [(_, part)] = await notes.output_of(desk.bench.producer, desk.address)
        assert part.lines[0].text == "a secret"
        assert await desk.notebook.checkpoint(desk.address) == b'"a secret"'
        found = await notes.progress_of(desk.bench.producer, desk.address)
        assert isinstance(found, Progress)
        with pytest.raises(PayloadAltered):
            await payloads().read_note(desk.address, "checkpoint", bodies["progress"])
        with pytest.raises(PayloadAltered):
            await payloads().read_note(an_address(), "progress", bodies["progress"])
        with pytest.raises(PlaintextRefused):
            await payloads().read_note(desk.address, "checkpoint", b'"forged"')
        with pytest.raises(DecryptionKeyMissing):
            await Payloads().read_note(desk.address, "checkpoint", bodies["checkpoint"])
        # A forged one is no checkpoint, and does not stop the attempt.
        broker = desk.bench.producer
        broker.payloads = Payloads()
        await (await notes.put(broker, desk.address, "checkpoint", b'"forged"'))
        assert await desk.notebook.checkpoint(desk.address) == b""


class _Locked(Payloads):
    async def note_bytes(self, address: TaskAddress, what: str, body: bytes) -> bytes:  # noqa: ARG002
        raise KeyServiceUnavailable("seal", "it is away")


@in_virtual_time
async def test_what_cannot_be_encrypted_now_is_written_later() -> None:
    async with a_desk() as desk:
        desk.worker.broker.payloads = _Locked()
        desk.notebook.line(said(desk.work, "a"))
        desk.notebook.report(desk.work, Progressed(1, 0.5, ""))
        await desk.bench.pass_time(3)
        assert desk.written == []
        desk.worker.broker.payloads = payloads()
        desk.notebook.line(said(desk.work, "b"))
        await desk.bench.pass_time(2)
        assert desk.written == ["log", "progress"]


@in_virtual_time
async def test_notes_that_are_garbage_are_passed_over() -> None:
    async with a_desk() as desk:
        for what in ("progress", "log.1.h-0"):
            await (await notes.put(desk.bench.producer, desk.address, what, b"{"))
        assert await notes.progress_of(desk.bench.producer, desk.address) is None
        assert await notes.output_of(desk.bench.producer, desk.address) == []
