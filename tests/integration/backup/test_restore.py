"""What was backed up is restored: every message, once, and nothing else is touched."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest

from galley import AsyncClient, call
from galley import envelope as envelopes
from galley.address import TaskAddress
from galley.backup import take
from galley.backup.catalogue import entries
from galley.backup.destination import Folder, destination_at
from galley.backup.errors import (
    ArchiveDamaged,
    ArchiveKeyWrong,
    DestinationFailed,
    NamespaceBound,
    RestoreIncomplete,
    RestoreRefused,
    StreamUnknown,
    StreamUnstable,
)
from galley.backup.restore import Plan, Restore
from galley.backup.sealing import Key
from galley.backup.take import Retention, take_backup
from galley.backup.verify import verify_archive
from galley.broker import topology
from galley.broker.audit import lines_of
from galley.broker.connection import Broker
from galley.broker.dead_letters import bury
from galley.broker.ensure import ensure, remove, stream_info
from galley.broker.later import Door, send_later
from galley.broker.layout import layout_of
from galley.broker.lean_client import header_block
from galley.broker.objects import Place, StreamObjects
from galley.broker.publish import Publisher
from galley.broker.records import Records
from galley.broker.refill import ORIGIN, RESTORED
from galley.broker.snapshot import OwnedStream, messages_from, owned_streams
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.dead_letter import DeadLetter
from galley.envelope import FIRST, Flags, encode
from galley.record import Claim, Failure, Outcome, Record, State
from galley.record import encode as encode_record
from galley.reference import INLINE_LIMIT
from galley.topic import Subscription, Topic
from galley_local.nats_server import NatsServer
from galley_worker.fanout import Fanout
from galley_worker.ledger import Ledger
from galley_worker.measures import Measures
from tests.support.backups import KEY, FailingReads, subjects_in
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.s3 import BUCKET, s3_server
from tests.support.workers import a_task_queue, workers


async def filled(
    broker: Broker, namespace: str, queue: str = "images", tasks: int = 3000
) -> list[TaskAddress]:
    """Make a queue with tasks that wait, are scheduled, have ended, and are dead; return the addresses."""
    layout = a_queue(queue, namespace=namespace, backlog=100_000)
    await ensure(broker, layout)
    publisher, sent = Publisher(broker), []
    later = datetime.now(UTC) + timedelta(hours=1)
    for number in range(tasks):
        envelope, address = an_envelope(), an_address(of=layout)
        if number % 4 == 0:
            answer = await send_later(broker, address, encode(envelope), FIRST, later, Door.FIRST)
        else:
            answer = await publisher.send(address, envelope)
        sent.append((address, envelope, answer))
    for address, envelope, answer in sent:
        await publisher.settle(address, envelope, FIRST, answer)
    records = Records(broker)
    ended = [an_address(of=layout) for _ in range(20)]
    for number, address in enumerate(ended):
        outcome = Outcome.FAILED if number % 2 else Outcome.SUCCEEDED
        await records.write(address, Record(State.DONE, 1, outcome=outcome, uid="u"), 0, 3600)
        if outcome is Outcome.FAILED:
            letter = DeadLetter(Failure("Odd", "it failed"), datetime.now(UTC), "w1", 1, "normal")
            await bury(broker, address, letter)
    return [address for address, _, _ in sent]


def in_namespace(found: dict[str, list[str]], old: str, new: str) -> dict[str, list[str]]:
    return {
        name.replace(f"_{old}", f"_{new}"): sorted(each.replace(f".{old}.", f".{new}.") for each in subjects)
        for name, subjects in found.items()
    }


async def restored(broker: Broker, folder: Folder, name: str, **options: object) -> Restore:
    restore = Restore(broker, folder, name, [KEY], **options)  # type: ignore[arg-type]
    await restore.run(await restore.outline())
    return restore


async def test_every_message_is_restored_into_another_namespace(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    await filled(broker, namespace)
    await filled(broker, namespace, "texts", tasks=50)
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    manifest = await verify_archive(folder, summary.name, [KEY])
    assert sum(each.messages for each in manifest.streams) == summary.messages == 3000 + 50 + 2 * 20 + 2 * 10
    await restored(other, folder, summary.name, namespaces={namespace: "elsewhere"})
    before = await subjects_in(broker, namespace)
    assert await subjects_in(other, "elsewhere") == in_namespace(before, namespace, "elsewhere")
    info = await stream_info(other, "GW_elsewhere_images")
    assert info is not None
    assert info["state"]["consumer_count"] == 4
    assert topology.RESTORING_KEY not in info["config"]["metadata"]
    assert info["config"]["metadata"][RESTORED] == summary.id
    # The operator takes over what was restored, and finds nothing to change.
    await ensure(other, a_queue("images", namespace="elsewhere", backlog=100_000))


async def test_a_record_with_an_odd_subject_does_not_end_a_restore(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    """Workers may write to any subject of their queue's records, and an archive has those of all queues."""
    sent = await filled(broker, namespace, tasks=4)
    flags = header_block({topology.FLAGS_HEADER: "v=1;a=2;f=5"})
    for verb, body in (("result", encode_record(Record(State.RUN, 1))), ("dead", b"{}")):
        for tail in ("odd", "sdk.a.b.c.d", "x.y", "k8s.>"):
            answer = await broker.pipeline.send(f"galley.{verb}.{namespace}.images.{tail}", body, flags)
            assert (await answer).stored
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    await restored(other, folder, summary.name, namespaces={namespace: "after-odd"})
    found = await subjects_in(other, "after-odd")
    restored_ids = {subject.rpartition(".")[2] for subjects in found.values() for subject in subjects}
    assert {each.id for each in sent} <= restored_ids


async def test_no_message_of_a_client_ends_a_backup_or_a_restore(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    """An archive has those of all queues, so one of them kept all namespaces from being restored."""
    sent = await filled(broker, namespace, tasks=4)
    task = f"galley.task.{namespace}.images.normal.sdk".encode()
    largest = b"x" * (broker.nats.max_payload - len(header_block({})))
    digits = "1" * 5000  # Python reads no number of so many
    cannot = [(b"a" * (4096 - len(task) - 15), b"{}", ""), (b"record", largest, "")]
    hostile = [
        *cannot, (b"\xff", b"{}", ""), (b"vertical\x0b", b"{}", ""), (b"next\x85", b"{}", ""),
        (b"ttl", b"{}", f"nats-ttl: {digits}"), (b"over", b"{}", "nats-ttl: 0"),
        (b"origin", b"{}", f"{ORIGIN}: {digits}\r\nGalley: v=1;a=2;f=3"), (b"bytes", b"{}", "\udcff: \udcfe"),
    ]  # fmt: skip
    for word, body, header in hostile:
        subject = (
            f"galley.result.{namespace}.images.sdk.x".encode() if body == largest else task + b"." + word
        )
        lines = "\r\n".join(filter(None, ("NATS/1.0", header)))
        block = f"{lines}\r\n\r\n".encode(errors="surrogateescape")
        line = f" {len(block)} {len(block) + len(body)}\r\n".encode()
        broker.nats._transport.write(  # type: ignore[union-attr]
            b"HPUB " + subject + line + block + body + b"\r\n"
        )
    assert await broker.reached(10)
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    restore = Restore(other, folder, summary.name, [KEY])
    report = await restore.run(await restore.outline())
    assert report.left_out == len(cannot)
    found = (await subjects_in(other, namespace)).values()
    words = [subject.rpartition(".")[2] for subjects in found for subject in subjects]
    assert {each.id for each in sent} | {"ttl", "over", "origin", "bytes", "vertical\x0b"} <= set(words)


async def test_what_filled_a_stream_fits_into_it_after_a_restore(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    """Each message is longer then. The first restore makes the streams, the second one finds them."""
    layout = a_queue(namespace=namespace, backlog_bytes=16 * 1024)
    await ensure(broker, layout)
    body, block = encode(an_envelope()), header_block({"Galley": FIRST.encode()})
    stored = 0
    while (
        await (await broker.pipeline.send(topology.task_subject(an_address(of=layout)), body, block))
    ).stored:
        stored += 1
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    await ensure(other, a_queue(namespace="there", backlog_bytes=16 * 1024))
    for name in (namespace, "there"):
        await restored(other, folder, summary.name, namespaces={namespace: name})
        assert len((await subjects_in(other, name))[f"GW_{name}_images"]) == stored > 50
        # The operator sets the limit again, and what is there stays.
        await ensure(other, a_queue(namespace=name, backlog_bytes=16 * 1024))
        assert len((await subjects_in(other, name))[f"GW_{name}_images"]) == stored


async def test_no_text_of_a_task_is_in_an_archive(
    broker: Broker, namespace: str, folder: Folder, tmp_path: Path
) -> None:
    layout = a_queue(namespace=namespace)
    await ensure(broker, layout)
    address = an_address(of=layout)
    await Publisher(broker).publish(address, an_envelope(handler="s3cret_handler"))
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    content = (tmp_path / "archives" / summary.name).read_bytes()
    for text in (b"s3cret_handler", address.id.encode(), namespace.encode(), b"GW_"):
        assert text not in content


async def test_a_restore_refuses_to_write_into_what_exists(
    broker: Broker, namespace: str, folder: Folder
) -> None:
    await filled(broker, namespace, tasks=10)
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    with pytest.raises(RestoreRefused, match=f"stream GW_{namespace}_images holds . messages; nothing was"):
        await Restore(broker, folder, summary.name, [KEY]).outline()


async def test_what_is_missing_is_added_and_what_is_there_is_kept(
    broker: Broker, namespace: str, folder: Folder
) -> None:
    first, *_ = addresses = await filled(broker, namespace, tasks=10)
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    before = await subjects_in(broker, namespace)
    for address in addresses[1:]:
        for stream in (topology.work_stream(namespace, "images"), topology.later_stream(namespace, "images")):
            pattern = f"galley.*.{namespace}.images.*.{address.kind}.{address.id}"
            await broker.api("purge", f"STREAM.PURGE.{stream}", {"filter": pattern})
    newer = Record(State.DONE, 7, outcome=Outcome.CANCELLED)
    await Records(broker).write(first, newer, 0)
    restore = Restore(broker, folder, summary.name, [KEY], keep_existing=True)
    outline = await restore.outline()
    assert {each.plan for each in outline.streams} == {Plan.ADD, Plan.FILL}
    report = await restore.run(outline)
    assert (report.written, report.kept) == (9, 1 + 20 + 10)
    after = await subjects_in(broker, namespace)
    assert after.pop(f"GR_{namespace}_images") == sorted(
        [*before.pop(f"GR_{namespace}_images"), topology.record_subject(first)]
    )
    assert after == before
    stored = await Records(broker).read(first)
    assert stored is not None
    assert stored.record == newer


@pytest.mark.parametrize("place", [0.05, 0.5, 0.99])
@pytest.mark.parametrize("reading", [1, 2])
async def test_an_interrupted_restore_says_so_and_continues(  # noqa: PLR0917 - fixtures
    broker: Broker, other: Broker, namespace: str, folder: Folder, place: float, reading: int
) -> None:
    await filled(broker, namespace, tasks=200)
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    failing = FailingReads(folder)
    restore = Restore(other, failing, summary.name, [KEY])
    outline = await restore.outline()
    failing.bytes_left = [10**12] * (reading - 1) + [int(summary.size * place)]
    with pytest.raises(RestoreIncomplete, match=r"only partly restored .*Input/output error"):
        await restore.run(outline)
    info = await stream_info(other, f"GW_{namespace}_images")
    assert info is not None
    assert info["config"]["metadata"][topology.RESTORING_KEY] == summary.id
    assert info["state"]["consumer_count"] == 0  # no worker can take a task before it is complete
    again = Restore(other, folder, summary.name, [KEY])
    outline = await again.outline()
    assert {each.plan for each in outline.streams} == {Plan.CONTINUE}
    await again.run(outline)
    assert await subjects_in(other, namespace) == await subjects_in(broker, namespace)


async def test_encrypted_payloads_do_not_move_to_a_namespace_where_no_key_opens_them(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    await ensure(broker, a_queue("images", namespace=namespace, encrypted=True))
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    with pytest.raises(NamespaceBound, match=f"bound to namespace '{namespace}'"):
        await Restore(other, folder, summary.name, [KEY], namespaces={namespace: "elsewhere"}).outline()
    await restored(other, folder, summary.name)
    assert await owned_streams(other, (namespace,))


async def test_an_unfinished_restore_of_another_archive_is_not_continued(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    await filled(broker, namespace, tasks=10)
    now = datetime.now(UTC)
    first, _ = await take_backup(broker, folder, KEY, namespaces=[namespace], now=lambda: now)
    second, _ = await take_backup(
        broker, folder, KEY, namespaces=[namespace], now=lambda: now + timedelta(seconds=1)
    )
    failing = FailingReads(folder)
    restore = Restore(other, failing, first.name, [KEY])
    outline = await restore.outline()
    failing.bytes_left = [0]
    with pytest.raises(RestoreIncomplete):
        await restore.run(outline)
    with pytest.raises(RestoreRefused, match=f"is being restored from another archive .id {first.id}"):
        await Restore(other, folder, second.name, [KEY]).outline()


async def test_an_attempt_that_ran_is_due_again_and_its_message_is_there(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    layout = a_queue(namespace=namespace)
    await ensure(broker, layout)
    address = an_address(of=layout)
    await Publisher(broker).publish(address, an_envelope())
    claim = Claim(topology.work_stream(namespace, layout.queue), 1, "holder")
    await Records(broker).write(address, Record(State.RUN, 1, claim=claim), 0)
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    await restored(other, folder, summary.name)
    stored = await Records(other).read(address)
    assert stored is not None
    assert stored.record.state is State.RETRY
    [[message]] = [
        batch
        for stream in await owned_streams(other, (namespace,))
        if stream.kind == "work"
        async for batch in messages_from(other, stream, 1)
    ]
    assert dict(message.headers)["Galley"] == "v=1;a=1;f=0;r"


async def test_a_redriven_task_still_replaces_the_record_of_its_failure(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    layout = a_queue(namespace=namespace)
    await ensure(broker, layout)
    address, records = an_address(of=layout), Records(broker)
    for _ in range(3):  # so that sequences differ from those after the restore
        await records.write(an_address(of=layout), Record(State.RUN, 1), 0)
    stream = topology.records_stream(namespace, layout.queue)
    await broker.api("make a gap", f"STREAM.PURGE.{stream}", {})
    failed = await records.write(address, Record(State.DONE, 1, outcome=Outcome.FAILED), 0)
    flags = header_block({"Galley": Flags(2, failed.sequence).encode()})
    await (await broker.pipeline.send(topology.task_subject(address), encode(an_envelope()), flags))
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    await restored(other, folder, summary.name)
    stored = await Records(other).read(address)
    assert stored is not None
    assert stored.sequence != failed.sequence
    [found] = [
        Flags.decode(dict(message.headers)["Galley"])
        for each in await owned_streams(other, (namespace,))
        if each.kind == "work"
        async for batch in messages_from(other, each, 1)
        for message in batch
    ]
    assert found == Flags(2, stored.sequence, republished=True)
    again = await Records(other).write(address, Record(State.RUN, 2), found.fence)
    assert again.stored


async def test_a_stream_of_a_newer_version_is_not_left_out_silently(
    broker: Broker, namespace: str, folder: Folder
) -> None:
    await ensure(broker, a_queue(namespace=namespace))
    metadata = {topology.OWNER_KEY: "tests", topology.NAMESPACE_KEY: namespace}
    newer = {"name": f"GX_{namespace}", "subjects": [f"galley.new.{namespace}.>"], "metadata": metadata}
    await broker.api("create", f"STREAM.CREATE.GX_{namespace}", newer)
    with pytest.raises(StreamUnknown, match=f"stream GX_{namespace} is of a kind"):
        await take_backup(broker, folder, KEY, namespaces=[namespace])
    assert await folder.files() == []


async def test_a_record_whose_message_is_not_in_the_archive_is_left_out(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    layout = a_queue(namespace=namespace)
    await ensure(broker, layout)
    begun, waiting, keyed, ended = (an_address(of=layout) for _ in range(4))
    await Publisher(broker).publish(waiting, an_envelope())
    under_key = topology.wait_subject(keyed, "k")
    assert (await (await broker.pipeline.send(under_key, encode(an_envelope()), b""))).stored
    await Records(broker).write(begun, Record(State.RUN, 1), 0)
    for each in (waiting, keyed):
        await Records(broker).write(each, Record(State.RETRY, 2, due_at=datetime.now(UTC)), 0)
    await Records(broker).write(ended, Record(State.DONE, 1, outcome=Outcome.SUCCEEDED), 0)
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    failing = FailingReads(folder)
    restore = Restore(other, failing, summary.name, [KEY])
    outline = await restore.outline()
    failing.bytes_left = [10**12, 10**12, summary.size // 2]
    with pytest.raises(RestoreIncomplete):
        await restore.run(outline)
    records = Records(other)
    assert await records.read(begun) is not None
    report = await restore.run(await restore.outline())
    assert report.stranded == 1
    assert await records.read(begun) is None
    for each in (waiting, keyed, ended):
        assert await records.read(each) is not None


async def test_a_record_that_was_there_before_a_restore_stays(
    broker: Broker, namespace: str, folder: Folder
) -> None:
    """Its task went on after the backup, and may have ended: so it has no message any more."""
    layout, records = a_queue(namespace=namespace), Records(broker)
    await ensure(broker, layout)
    ended, running = (an_address(of=layout) for _ in range(2))
    for each in (ended, running):
        await records.write(each, Record(State.RUN, 1), 0)
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    begun = await records.read(ended)
    assert begun is not None
    done = Record(State.DONE, 1, outcome=Outcome.SUCCEEDED)
    await records.write(ended, done, begun.sequence)
    restore = Restore(broker, folder, summary.name, [KEY], keep_existing=True)
    report = await restore.run(await restore.outline())
    assert (report.written, report.kept, report.stranded) == (0, 2, 0)
    found = [await records.read(each) for each in (ended, running)]
    assert [each and each.record for each in found] == [done, Record(State.RUN, 1)]


async def test_headers_a_producer_wrote_do_not_pass_for_the_servers(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    layout = a_queue(namespace=namespace)
    await ensure(broker, layout)
    address = an_address(of=layout)
    forged = {
        "Nats-Subject": "galley.task.victim.images.normal.sdk.x", "Nats-Sequence": "999",
        "Nats-Time-Stamp": "2000-01-01T00:00:00Z", "Nats-Num-Pending": "5", "Galley": FIRST.encode(),
    }  # fmt: skip
    body = envelopes.encode(an_envelope())
    await (await broker.pipeline.send(topology.task_subject(address), body, header_block(forged)))
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    manifest = await verify_archive(folder, summary.name, [KEY])
    assert [each.last_sequence for each in manifest.streams if each.messages] == [1]
    await restored(other, folder, summary.name)
    assert (await subjects_in(other, namespace))[f"GW_{namespace}_images"] == [topology.task_subject(address)]


async def test_an_archive_that_is_damaged_restores_nothing(
    broker: Broker, other: Broker, namespace: str, folder: Folder, tmp_path: Path
) -> None:
    await filled(broker, namespace, tasks=100)
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    file = tmp_path / "archives" / summary.name
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:100], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]):
        file.write_bytes(damaged)
        with pytest.raises(ArchiveDamaged):
            await Restore(other, folder, summary.name, [KEY]).outline()
    file.write_bytes(whole)
    with pytest.raises(ArchiveKeyWrong):
        await Restore(other, folder, summary.name, [Key(b"x" * 32)]).outline()
    assert await owned_streams(other) == []


def in_second_round(
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: Callable[[], Awaitable[None]] | None = None,
    after: Callable[[], Awaitable[None]] | None = None,
) -> list[int]:
    """Have something happen before or after the streams of the second round are listed."""
    rounds: list[int] = []

    async def listed(broker: Broker, namespaces: tuple[str, ...]) -> list[OwnedStream]:
        rounds.append(len(rounds) + 1)
        if len(rounds) == 2 and before is not None:
            await before()
        found = await owned_streams(broker, namespaces)
        if len(rounds) == 2 and after is not None:
            await after()
        return found

    monkeypatch.setattr(take, "owned_streams", listed)
    return rounds


async def test_a_stream_that_is_deleted_while_it_is_read_is_marked_as_gone(
    broker: Broker, namespace: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(broker, namespace, tasks=10)
    rounds = in_second_round(monkeypatch, after=lambda: remove(broker, namespace, "images"))
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    assert rounds == [1, 2]
    manifest = await verify_archive(folder, summary.name, [KEY])
    gone = {f"GW_{namespace}_images", f"GS_{namespace}_images"}
    assert {each.name for each in manifest.streams if each.gone} == gone


async def test_a_stream_that_is_made_again_while_it_is_read_ends_the_backup(
    broker: Broker, namespace: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(broker, namespace, tasks=10)
    await take_backup(broker, folder, KEY, namespaces=[namespace])
    archives = await folder.files()

    async def make_again() -> None:
        await remove(broker, namespace, "images")
        await ensure(broker, a_queue(namespace=namespace))

    in_second_round(monkeypatch, before=make_again)
    with pytest.raises(StreamUnstable, match="deleted and made again"):
        await take_backup(broker, folder, KEY, namespaces=[namespace])
    assert await folder.files() == archives


def always(moment: datetime) -> Callable[[], datetime]:
    return lambda: moment


async def test_only_the_newest_archives_stay(broker: Broker, namespace: str, folder: Folder) -> None:
    await filled(broker, namespace, tasks=1)
    start = datetime.now(UTC)
    taken: list[str] = []
    for number in range(4):
        summary, gone = await take_backup(
            broker, folder, KEY, namespaces=[namespace], retention=Retention(2),
            now=always(start + timedelta(hours=number)),
        )  # fmt: skip
        assert gone == taken[-2:-1]
        taken.append(summary.name)
    assert [each.name for each in await entries(folder)] == taken[:1:-1]


async def test_archives_are_kept_in_an_object_store(broker: Broker, other: Broker, namespace: str) -> None:
    await filled(broker, namespace, tasks=500)
    with s3_server() as server:
        server.make_bucket()
        bucket = destination_at(f"s3://{BUCKET}/{namespace}", server.environment)
        server.refusals = 2  # it is asked again
        summary, _ = await take_backup(broker, bucket, KEY, namespaces=[namespace])
        assert [each.good for each in await entries(bucket)] == [True]
        restore = Restore(other, bucket, summary.name, [KEY])
        await restore.run(await restore.outline())
        assert await subjects_in(other, namespace) == await subjects_in(broker, namespace)


async def test_an_object_store_that_refuses_is_told_and_has_no_archive(
    broker: Broker, namespace: str
) -> None:
    await filled(broker, namespace, tasks=5)
    with s3_server() as server:
        server.make_bucket()
        bucket = destination_at(f"s3://{BUCKET}/{namespace}", server.environment, retry_seconds=0.5)
        server.refusals = 10**6
        with pytest.raises(DestinationFailed, match="503 Service Unavailable") as error:
            await take_backup(broker, bucket, KEY, namespaces=[namespace])
        assert "when the object store answers" in error.value.hint
        server.refusals = 0
        assert await bucket.files() == []
        nowhere = destination_at("s3://nowhere/galley", server.environment)
        with pytest.raises(DestinationFailed, match="404 Not Found"):
            await take_backup(broker, nowhere, KEY, namespaces=[namespace])


async def test_large_results_and_schedules_are_there_after_a_restore(  # noqa: PLR0917 - fixtures
    broker: Broker, other: Broker, namespace: str, folder: Folder, nats_server: NatsServer,
    other_server: NatsServer, tmp_path: Path,
) -> None:  # fmt: skip
    queue = a_task_queue(namespace)
    await ensure(broker, layout_of(queue, "tests"))
    client, text = AsyncClient.over(broker, namespace), secrets.token_hex(INLINE_LIMIT)
    with workers(nats_server.url, queue, tmp_path):
        handle = await client.submit(call("drills", "turn", text=text), task_id="large")
        assert await handle.result(within=30) == text[::-1]
        await client.schedules.create(
            "beat", call("drills", "echo"), "@every 1s", overlap="allow", catch_up="all", catch_up_limit=100
        )
        await eventually(partial(fired, client, 2), within=30)
    waits = await client.submit(call("drills", "turn", text=text + "!"), task_id="waits")
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    fired_before = (await client.schedules.get("drills", "beat")).fired
    await asyncio.sleep(2)  # ticks that pass: the ones that may have run elsewhere
    begun = datetime.now(UTC)
    await restored(other, folder, summary.name, namespaces={namespace: "elsewhere"})
    queue = a_task_queue("elsewhere")
    there = AsyncClient.over(other, "elsewhere")
    assert await there.handle("drills", "large").result(within=20) == text[::-1]
    with workers(other_server.url, queue, tmp_path, ["w2"]):
        assert await there.handle("drills", waits.id).result(within=30) == f"!{text[::-1]}"
        await eventually(partial(fired, there, fired_before + 2), within=30)
    ticks = sorted(each.address.id for each in await there.tasks("drills") if "beat-" in each.address.id)
    of_the_restored = [int(each.rpartition("-")[2]) for each in ticks][fired_before:]
    assert of_the_restored[0] >= begun.timestamp() - 1
    assert of_the_restored == list(range(of_the_restored[0], of_the_restored[-1] + 1))


async def test_tasks_that_wait_under_their_keys_run_in_order_after_a_restore(  # noqa: PLR0917 - fixtures
    broker: Broker, other: Broker, namespace: str, folder: Folder, other_server: NatsServer, tmp_path: Path
) -> None:
    limits = {"perKey": {"ordered": True}}
    await ensure(broker, layout_of(a_task_queue(namespace, limits=limits), "tests"))
    client = AsyncClient.over(broker, namespace)
    calls = [call("drills", "note", word=f"{key}-{n}").options(key=key) for n in range(3) for key in "ab"]
    waiting = await client.submit_many(calls)
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    await restored(other, folder, summary.name, namespaces={namespace: "elsewhere"})
    there = AsyncClient.over(other, "elsewhere")
    with workers(other_server.url, a_task_queue("elsewhere", limits=limits), tmp_path, ["w2"]):
        for each in waiting:
            await there.handle("drills", each.id).result(within=30)
    words = [line.split()[-1] for line in (tmp_path / "drills.log").read_text().splitlines()]
    assert [word for word in words if word.startswith("a")] == ["a-0", "a-1", "a-2"]
    assert sorted(words) == ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]


async def fired(client: AsyncClient, ticks: int) -> bool:
    return (await client.schedules.get("drills", "beat")).fired >= ticks


async def test_a_restore_names_the_buckets_it_cannot_bring_back(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    layout = a_queue(namespace=namespace)
    await ensure(broker, layout)
    place, streams = Place(namespace, layout.queue), StreamObjects(broker)
    await streams.finish(place, "a" * 64, 5)
    await streams.finish(place, "b" * 64, 5, "s3://bucket/prefix")
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])
    restore = Restore(other, folder, summary.name, [KEY])
    report = await restore.run(await restore.outline())
    assert report.buckets == {"s3://bucket/prefix"}
    assert await StreamObjects(other).there(place, "a" * 64) is not None


async def test_topics_are_restored_with_their_events_and_no_event_is_copied_twice(
    broker: Broker, other: Broker, namespace: str, folder: Folder
) -> None:
    layout = a_queue("images", namespace=namespace)
    await ensure(broker, layout)
    eu = Subscription("resize", "images", "resize", 'attributes.region == "eu"')
    declared = [Declared(Topic("uploads", retention_seconds=600, retention_bytes=1024**2, uid="old"), (eu,))]
    await TopicKeeper(broker, namespace, layout.install).keep(declared)
    client = AsyncClient.over(broker, namespace)
    for number in range(6):
        await client.publish("uploads", {"uid": number}, {"region": "eu"}, event_id=f"e{number}")
        if number == 2:
            await copied(broker, layout, 3)
    await client.queues.pause("images")
    summary, _ = await take_backup(broker, folder, KEY, namespaces=[namespace])

    restore = await restored(other, folder, summary.name, namespaces={namespace: "elsewhere"})
    moved = a_queue("images", namespace="elsewhere", install=layout.install)
    there = AsyncClient.over(other, "elsewhere")
    events = [each.event async for each in there.topics.events("uploads")]
    assert [event.id for event in events] == [f"e{number}" for number in range(6)]
    assert msgspec.json.decode(events[5].data) == {"uid": 5}
    assert [line.entry.action async for line in lines_of(other, "elsewhere")] == ["pause"]
    # It can be run again, and the keeper of topics finds nothing to change.
    again = await restore.run(await Restore(other, folder, summary.name, [KEY], namespaces={
        namespace: "elsewhere"}, keep_existing=True).outline())  # fmt: skip
    assert (again.written, again.kept) == (0, summary.messages)
    await TopicKeeper(other, "elsewhere", moved.install).keep(declared)
    await there.publish("uploads", 1, {"region": "eu"}, event_id="after")
    await copied(other, moved, 7)
    ids = [each.address.id for each in await there.tasks("images")]
    assert len(set(ids)) == 7


async def copied(broker: Broker, layout: topology.QueueLayout, tasks: int) -> None:
    """Have a worker's fan-out copy events until the queue holds so many tasks."""

    async def there() -> bool:
        info = await stream_info(broker, topology.work_stream(layout.namespace, layout.queue))
        return info is not None and info["state"]["messages"] == tasks

    measures = Measures(layout.namespace, layout.queue, int, int)
    fanout = Fanout(broker, layout, Ledger(broker), measures, "w1", lambda: datetime.now(UTC))
    running = asyncio.create_task(fanout.run())
    await eventually(there, within=20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
