"""What of a message changes on its way into another broker."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from galley import envelope as envelopes
from galley import record as records
from galley.backup.archive import StreamEntry
from galley.backup.restore import PASSES
from galley.backup.rewrite import Rewrite
from galley.broker import stream_config, topology
from galley.broker.snapshot import StoredMessage
from galley.broker.stream_kind import NOT_ARCHIVED, OF_NAMESPACE, StreamKind, name_of
from galley.envelope import Flags
from galley.lanes import Lane
from galley.record import Claim, Outcome, Record, State
from galley.repeat import Repeat
from galley.schedule import Progress, Schedule
from galley.schedule import decode as decode_schedule
from galley.schedule import encode as encode_schedule
from tests.support.builders import a_queue, an_address

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
QUEUE = a_queue("images", namespace="shop", uid="old-uid")
MOVED = Rewrite(NOW, {"shop": "new"}, replicas=3)


def an_entry(kind: StreamKind, queue: str = "images") -> StreamEntry:
    definitions = {each["name"]: each for each in stream_config.stream_definitions(QUEUE, 1)}
    name = name_of(kind, "shop", queue)
    return StreamEntry(name, kind, "shop", queue, definitions[name], [], 0, 0, 0, 0)


def a_message(
    subject: str = "galley.task.shop.images.normal.sdk.1", body: bytes = b"{}", **headers: str
) -> StoredMessage:
    given = [(name.replace("_", "-"), text) for name, text in headers.items()]
    return StoredMessage(subject, 41, "2026-11-28T11:59:00.123456789Z", given, body)


@pytest.mark.parametrize("kind", sorted(set(StreamKind) - OF_NAMESPACE))
def test_a_stream_moves_to_another_namespace(kind: StreamKind) -> None:
    entry = an_entry(kind)
    config = MOVED.config(entry)
    moved = {
        each["name"]: each for each in stream_config.stream_definitions(a_queue("images", namespace="new"), 3)
    }
    assert config == moved[MOVED.stream(entry)]


def test_a_stream_that_stays_differs_only_in_what_belongs_to_its_old_place() -> None:
    entry = an_entry(StreamKind.WORK)
    config = Rewrite(NOW).config(entry)
    assert config["name"] == "GW_shop_images"
    assert topology.UID_KEY not in config["metadata"]


def test_a_consumer_moves_to_the_new_namespace() -> None:
    for stream, definition in stream_config.consumer_definitions(QUEUE):
        assert stream
        told = {**definition, "num_replicas": 0, "metadata": {"_nats.ver": "2"}}
        new = MOVED.consumer(told)
        assert new == {**definition, "filter_subject": definition["filter_subject"].replace("shop", "new")}


def test_a_worker_is_made_to_ask_the_record_first() -> None:
    message = a_message(Galley=Flags(2, 1041).encode(), Nats_Expected_Last_Subject_Sequence="9", X_Trace="t")
    moved = MOVED.message(an_entry(StreamKind.WORK), message)
    assert moved is not None
    assert (moved.stream, moved.subject, moved.origin) == (
        "GW_new_images",
        "galley.task.new.images.normal.sdk.1",
        41,
    )
    assert moved.headers == [("Galley", Flags(2, 0, republished=True).encode()), ("X-Trace", "t")]


def test_flags_that_cannot_be_read_stay_for_a_worker_to_report() -> None:
    moved = MOVED.message(an_entry(StreamKind.WORK), a_message(Galley="v=9"))
    assert moved is not None
    assert moved.headers == [("Galley", "v=9")]


def test_a_schedule_fires_into_the_new_namespace() -> None:
    message = a_message(
        "galley.schedule.shop.images.low.sdk.1",
        Nats_Schedule="@at 2027-01-01T00:00:00Z",
        Nats_Schedule_Target="galley.due.shop.images.low.sdk.1",
    )
    moved = MOVED.message(an_entry(StreamKind.LATER), message)
    assert moved is not None
    assert moved.headers == [
        ("Nats-Schedule", "@at 2027-01-01T00:00:00Z"),
        ("Nats-Schedule-Target", "galley.due.new.images.low.sdk.1"),
    ]


def test_what_a_schedule_that_fired_left_does_not_remove_another() -> None:
    message = a_message(
        "galley.due.shop.images.low.sdk.1",
        Nats_Scheduler="galley.again.shop.images.low.sdk.1",
        Nats_Schedule_Next="purge",
    )
    moved = MOVED.message(an_entry(StreamKind.LATER), message)
    assert moved is not None
    assert moved.headers == []


def test_an_envelope_no_longer_names_its_task_object_and_is_otherwise_the_same() -> None:
    raw = b'{"handler":"h","submittedAt":"2026-01-01T00:00:00Z","uid":"u","input":{"uid": 1.50},"news":[1]}'
    moved = MOVED.message(an_entry(StreamKind.WORK), a_message(body=raw))
    assert moved is not None
    assert (
        moved.body == b'{"handler":"h","submittedAt":"2026-01-01T00:00:00Z","input":{"uid": 1.50},"news":[1]}'
    )
    assert envelopes.decode(moved.body).uid == ""


def test_what_is_authenticated_of_an_encrypted_task_stays_byte_for_byte() -> None:
    raw = b'{"handler":"h","submittedAt":"2026-01-01T00:00:00Z","v":2,"sealed":"g1.k.w.t","uid":"u"}'
    moved = Rewrite(NOW).message(an_entry(StreamKind.WORK), a_message(body=raw))
    assert moved is not None
    assert moved.body == raw.replace(b',"uid":"u"', b"")


def test_a_dead_letter_keeps_the_task_but_not_its_object() -> None:
    raw = b'{"envelope":{"handler":"h","uid":"u"},"failure":{}}'
    moved = MOVED.message(an_entry(StreamKind.DEAD), a_message("galley.dead.shop.images.sdk.1", raw))
    assert moved is not None
    assert moved.body == b'{"envelope":{"handler":"h"},"failure":{}}'
    assert moved.subject == "galley.dead.new.images.sdk.1"


@pytest.mark.parametrize(
    "body", [b'"uid"', b'{"uid"', b'{"envelope":"uid"}', b'{"envelope":null,"x":"\\"uid\\""}']
)
def test_a_body_that_is_no_envelope_is_restored_as_it_is(body: bytes) -> None:
    moved = MOVED.message(an_entry(StreamKind.DEAD), a_message(body=body))
    assert moved is not None
    assert moved.body == body


def a_record(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "state": State.RUN,
        "attempt": 2,
        "handler": "h",
        "uid": "u",
        "digest": "d.e",
        **changes,
    }
    return records.encode(Record(**values))


def test_an_attempt_that_ran_is_due_again_and_counts_no_crash() -> None:
    claim = Claim("GW_shop_images", 17, "holder")
    body = a_record(claim=claim, worker="w1", handed_back=True, lane=Lane.HIGH)
    moved = MOVED.message(an_entry(StreamKind.RECORDS), a_message("galley.result.shop.images.sdk.1", body))
    assert moved is not None
    assert moved.unfinished
    found = records.decode(moved.body)
    assert found == Record(State.RETRY, 2, handler="h", digest="d.e", worker="w1", due_at=NOW, lane=Lane.HIGH)


def test_a_task_that_has_ended_stays_ended() -> None:
    body = a_record(state=State.DONE, outcome=Outcome.SUCCEEDED, result=msgspec.Raw(b"[1]"), remembered=True)
    moved = MOVED.message(an_entry(StreamKind.RECORDS), a_message("galley.result.shop.images.sdk.1", body))
    assert moved is not None
    assert not moved.unfinished
    assert records.decode(moved.body) == msgspec.structs.replace(records.decode(body), uid="")


def test_a_retry_keeps_its_time() -> None:
    body = a_record(state=State.RETRY, due_at=NOW + timedelta(hours=1))
    moved = MOVED.message(an_entry(StreamKind.RECORDS), a_message("galley.result.shop.images.sdk.1", body))
    assert moved is not None
    assert moved.unfinished
    assert records.decode(moved.body).due_at == NOW + timedelta(hours=1)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"state":"odd"}', b"\xff"])
def test_a_record_that_cannot_be_read_is_restored_as_it_is(body: bytes) -> None:
    moved = MOVED.message(an_entry(StreamKind.RECORDS), a_message("galley.result.shop.images.sdk.1", body))
    assert moved is not None
    assert (moved.body, moved.unfinished) == (body, False)


@pytest.mark.parametrize(
    ("ttl", "left"),
    [("3600", "3540"), ("61", "1"), ("60", None), ("1", None), ("never", "never"), ("1h", "1h")],
)
def test_a_record_lives_for_as_long_as_it_had_left(ttl: str, left: str | None) -> None:
    moved = MOVED.message(
        an_entry(StreamKind.RECORDS), a_message("galley.result.shop.images.sdk.1", a_record(), Nats_TTL=ttl)
    )
    assert (None if moved is None else dict(moved.headers)["Nats-TTL"]) == left


@pytest.mark.parametrize(("kind", "ttl", "left"), [
    (StreamKind.WORK, "0", "0"), (StreamKind.WORK, "1" * 5000, "1" * 5000),
    (StreamKind.RECORDS, "1" * 5000, "1" * 5000), (StreamKind.RECORDS, "0", None),
])  # fmt: skip
def test_a_message_ends_only_where_the_server_would_end_it(
    kind: StreamKind, ttl: str, left: str | None
) -> None:
    """A header that the server does not look at is text that a client has written."""
    moved = MOVED.message(an_entry(kind), a_message(nats_ttl=ttl))
    assert (None if moved is None else dict(moved.headers)["nats-ttl"]) == left


def test_the_mark_of_an_earlier_restore_goes() -> None:
    moved = MOVED.message(an_entry(StreamKind.WORK), a_message(Galley_Restored="7"))
    assert moved is not None
    assert moved.headers == []


def test_addresses_of_every_kind_are_moved() -> None:
    address = an_address(of=QUEUE)
    moved = replace(address, namespace="new")
    for spell in (topology.task_subject, topology.record_subject, topology.dead_subject, topology.due_subject,
                  topology.again_subject, topology.schedule_subject):  # fmt: skip
        assert MOVED.subject(spell(address)) == spell(moved)


@pytest.mark.parametrize("decided", [None, NOW - timedelta(hours=3), NOW + timedelta(hours=1)])
def test_a_schedule_goes_on_from_the_restore_and_belongs_to_no_object(decided: datetime | None) -> None:
    schedule = Schedule(
        "nightly", Repeat("@every 1m"), Raw(b'{"uid":"x"}'), "resize", uid="old", generation=3,
        progress=Progress(decided=decided, fired=7),
    )  # fmt: skip
    for subject in (
        topology.timer_subject("shop", "images", "nightly"),
        topology.fired_subject("shop", "images", "nightly"),
    ):
        moved = MOVED.message(an_entry(StreamKind.LATER), a_message(subject, encode_schedule(schedule)))
        assert moved is not None
        found = decode_schedule(moved.body)
        assert (found.uid, found.generation, found.progress.fired) == ("", 0, 7)
        assert found.progress.decided == max(decided or NOW, NOW)
        assert found.same_as(schedule)


def test_what_is_no_schedule_is_left_to_the_worker_that_takes_it() -> None:
    subject = topology.timer_subject("shop", "images", "nightly")
    moved = MOVED.message(an_entry(StreamKind.LATER), a_message(subject, b"no schedule"))
    assert moved is not None
    assert moved.body == b"no schedule"


def test_the_bytes_of_an_object_are_not_looked_into() -> None:
    body = b'{"uid":"this is a part of a file"}'
    subject = topology.part_subject("shop", "images", "a" * 64, 0)
    moved = MOVED.message(an_entry(StreamKind.OBJECTS), a_message(subject, body))
    assert moved is not None
    assert moved.body == body


def test_what_is_archived_is_restored() -> None:
    assert sorted(kind for kinds in PASSES for kind in kinds) == sorted(set(StreamKind) - NOT_ARCHIVED)
