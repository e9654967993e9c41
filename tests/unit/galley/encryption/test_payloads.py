"""What is encrypted of a task, a record and a dead letter, and that no part of them can be used elsewhere."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from galley import dead_letter as letter_wire
from galley import envelope as task_wire
from galley import record as record_wire
from galley.address import Kind, TaskAddress
from galley.dead_letter import NO_TASK, DeadLetter
from galley.encryption import DecryptionKeyMissing, EncryptionError, PayloadAltered, PlaintextRefused
from galley.encryption.payloads import Payloads
from galley.errors import EnvelopeInvalid
from galley.history import NO_HISTORY, EndedBy, History, PastAttempt
from galley.lanes import Lane
from galley.record import Claim, Failure, Outcome, Record, State
from galley.retry import RetryPolicy
from tests.support.builders import an_address, an_envelope
from tests.unit.galley.encryption.keys import ONE, TWO, payloads
from tests.unit.galley.vectors import vector

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECRET = "a secret of the caller"
HISTORY = History(
    errors=1,
    attempts=(
        PastAttempt(1, EndedBy.ERROR, "ValueError", f"{SECRET}: bad", "w1", NOON, NOON, f"at {SECRET}"),
    ),
)
TASK = an_envelope(
    "charge", input={"card": SECRET}, digest="0123", history=HISTORY, uid="u-1", deadline=NOON,
    timeout_seconds=30.0, retry=RetryPolicy(attempts=2),
)  # fmt: skip
HERE = an_address(id="one")
LETTER = DeadLetter(
    Failure("ValueError", SECRET, SECRET),
    NOON,
    "w1",
    2,
    "normal",
    HISTORY,
    body=SECRET.encode(),
    header="v=1",
)


def final(**changes: Any) -> Record:
    """Return the record of a task that has ended."""
    ended = Record(State.DONE, 2, handler="charge", outcome=Outcome.SUCCEEDED, history=HISTORY, digest="0123")
    return replace(ended, **{"result": Raw(json.dumps(SECRET).encode()), **changes})


FAILED = final(outcome=Outcome.FAILED, result=record_wire.NULL, failure=Failure("ValueError", SECRET, SECRET))


async def test_a_task_is_encrypted_but_for_what_the_broker_and_the_worker_need() -> None:
    body = await payloads().task_bytes(HERE, TASK)
    assert SECRET.encode() not in body
    assert {**json.loads(body), "sealed": ""} == {
        "handler": "charge", "submittedAt": json.loads(msgspec.json.encode(TASK.submitted_at)), "v": 2,
        "deadline": "2026-05-01T12:00:00Z", "timeoutSeconds": 30.0, "uid": "u-1",
        "retry": json.loads(msgspec.json.encode(TASK.retry)),
        "history": {
            "errors": 1,
            "attempts": [
                {
                    "number": 1, "endedBy": "error", "reason": "ValueError", "message": "", "worker": "w1",
                    "endedAt": "2026-05-01T12:00:00Z", "startedAt": "2026-05-01T12:00:00Z",
                }
            ],
        },
        "sealed": "",
    }  # fmt: skip
    assert await payloads().read_task(HERE, body) == TASK
    assert await payloads().read_task(replace(HERE, lane=Lane.HIGH), body) == TASK


async def test_a_record_is_encrypted_but_for_what_the_broker_and_the_operator_need() -> None:
    for record in (final(), FAILED):
        body = await payloads().record_bytes(HERE, record)
        assert SECRET.encode() not in body
        assert b"0123" not in body
        stored = record_wire.decode(body)
        assert (stored.handler, stored.attempt, stored.outcome) == ("charge", 2, record.outcome)
        assert stored.failure is None or stored.failure.reason == "ValueError"
        assert await payloads().read_record(HERE, stored) == record


async def test_a_dead_letter_is_encrypted() -> None:
    for letter in (LETTER, replace(LETTER, body=None, envelope=Raw(task_wire.encode(TASK)))):
        body = await payloads().letter_bytes(HERE, letter)
        assert SECRET.encode() not in body
        assert await payloads().read_letter(HERE, letter_wire.decode(body)) == letter
    task = await payloads().task_bytes(HERE, TASK)
    kept = letter_wire.decode(await payloads().letter_bytes(HERE, replace(LETTER, envelope=Raw(task))))
    assert kept.envelope != NO_TASK
    assert await payloads().read_task(HERE, bytes(kept.envelope)) == TASK


async def test_two_equal_tasks_differ_in_every_byte_that_could_tell() -> None:
    one, other = [await payloads().task_bytes(HERE, TASK) for _ in range(2)]
    assert json.loads(one)["sealed"] != json.loads(other)["sealed"]


async def test_without_keys_nothing_changes() -> None:
    nothing = Payloads()
    assert await nothing.task_bytes(HERE, TASK) == task_wire.encode(TASK)
    assert await nothing.record_bytes(HERE, final()) == record_wire.encode(final())
    assert await nothing.letter_bytes(HERE, LETTER) == letter_wire.encode(LETTER)


async def test_what_has_nothing_to_hide_stays_as_it_is() -> None:
    claim = Record(State.RUN, 1, handler="charge", claim=Claim("GW_default_images", 7, "w1"))
    assert await payloads().record_bytes(HERE, claim) == record_wire.encode(claim)


ELSEWHERE = (
    replace(HERE, id="two"), replace(HERE, namespace="other"), replace(HERE, queue="other"),
    replace(HERE, kind=Kind.DECLARED),
)  # fmt: skip


@pytest.mark.parametrize("address", ELSEWHERE, ids=str)
async def test_a_payload_is_of_no_use_at_another_task(address: TaskAddress) -> None:
    secret = payloads()
    with pytest.raises(PayloadAltered):
        await secret.read_task(address, await secret.task_bytes(HERE, TASK))
    with pytest.raises(PayloadAltered):
        await secret.read_record(address, record_wire.decode(await secret.record_bytes(HERE, final())))
    with pytest.raises(PayloadAltered):
        await secret.read_letter(address, letter_wire.decode(await secret.letter_bytes(HERE, LETTER)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"handler":"charge"', b'"handler":"refund"'),
        (b'"timeoutSeconds":30.0', b'"timeoutSeconds":9.0'),
        (b'"attempts":2', b'"attempts":9'),
        (b'"deadline":"2026-05-01T12:00:00Z",', b""),
        (b'"errors":1', b'"errors":0'),
        (b'{"handler"', b'{"handler":"refund","handler"'),
        (b',"sealed"', b',"digest":"ffff","sealed"'),
        (b',"sealed"', b',"input":{},"sealed"'),
        (b'"}', b'","deadline":null}'),
        (b'"}', b'","sealed":""}'),
        (b',"uid"', b',"digest":"","uid"'),
    ],
)
async def test_what_of_a_task_is_in_the_clear_cannot_be_changed(before: bytes, after: bytes) -> None:
    body = await payloads().task_bytes(HERE, TASK)
    assert before in body
    head, _, tail = body.rpartition(before)
    with pytest.raises((PayloadAltered, EnvelopeInvalid)):
        await payloads().read_task(HERE, head + after + tail)


async def test_version_2_is_read_as_it_was_first_written() -> None:
    secret = payloads()
    assert await secret.read_task(HERE, vector("sealed", "task")) == replace(TASK, submitted_at=NOON)
    assert await secret.outcome(HERE, record_wire.decode(vector("sealed", "record"))) == FAILED
    letter = letter_wire.decode(vector("sealed", "dead-letter"))
    assert await secret.read_letter(HERE, letter) == LETTER


async def test_a_restored_backup_can_be_decrypted() -> None:
    body = await payloads().task_bytes(HERE, TASK)
    parts = msgspec.json.decode(body, type=dict[str, Raw])
    del parts["uid"]
    assert await payloads().read_task(HERE, msgspec.json.encode(parts)) == replace(TASK, uid="")


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": Outcome.FAILED},
        {"attempt": 3},
        {"handler": "refund"},
        {"failure": Failure("TimedOut", "")},
        {"history": NO_HISTORY},
        {"outcome": Outcome.CANCELLED},
    ],
    ids=str,
)
async def test_an_outcome_cannot_be_made_another(changes: dict[str, Any]) -> None:
    stored = record_wire.decode(await payloads().record_bytes(HERE, final()))
    with pytest.raises(PayloadAltered):
        await payloads().read_record(HERE, replace(stored, **changes))


async def test_another_letter_of_the_task_is_not_this_one() -> None:
    stored = letter_wire.decode(await payloads().letter_bytes(HERE, LETTER))
    with pytest.raises(PayloadAltered, match="belongs to another dead letter"):
        await payloads().read_letter(HERE, replace(stored, failure=Failure("TimedOut", "")))


async def test_who_cancels_a_task_need_not_have_its_keys() -> None:
    waiting = Record(State.RETRY, 2, handler="charge", failure=Failure("ValueError", SECRET), history=HISTORY)
    stored = record_wire.decode(await payloads().record_bytes(HERE, waiting))
    learned = replace(stored, state=State.DONE, outcome=Outcome.CANCELLED, digest="0123")
    body = await Payloads().record_bytes(HERE, learned)
    assert b"0123" not in body
    cancelled = await payloads().read_record(HERE, record_wire.decode(body))
    assert (cancelled.outcome, cancelled.history) == (Outcome.CANCELLED, HISTORY)


async def test_one_kind_of_payload_is_of_no_use_as_another() -> None:
    secret = payloads()
    letter = letter_wire.decode(await secret.letter_bytes(HERE, replace(LETTER, attempt=2)))
    record = record_wire.decode(await secret.record_bytes(HERE, FAILED))
    with pytest.raises(PayloadAltered):
        await secret.read_record(HERE, replace(record, sealed=letter.sealed))
    with pytest.raises(PayloadAltered):
        await secret.read_letter(HERE, replace(letter, sealed=record.sealed))


async def test_an_earlier_key_reads_and_another_does_not() -> None:
    body = await payloads(k1=ONE).task_bytes(HERE, TASK)
    assert await payloads(k2=TWO, k1=ONE).read_task(HERE, body) == TASK
    with pytest.raises(
        DecryptionKeyMissing, match="task images/one is encrypted with key 'k1'; keys at hand: k2"
    ):
        await payloads(k2=TWO).read_task(HERE, body)
    with pytest.raises(PayloadAltered, match="key 'k1' did not wrap it"):
        await payloads(k1=TWO).read_task(HERE, body)


async def test_plaintext_is_refused_where_it_must_not_be() -> None:
    plain = task_wire.encode(TASK)
    assert await payloads().read_task(HERE, plain) == TASK
    with pytest.raises(PlaintextRefused, match="task images/one is not encrypted"):
        await payloads().read_task(HERE, plain, plaintext=False)
    with pytest.raises(PlaintextRefused):
        await payloads().outcome(HERE, final())
    cancelled = Record(State.DONE, 0, outcome=Outcome.CANCELLED)
    assert await payloads().outcome(HERE, cancelled) == cancelled


async def test_who_has_no_keys_is_told_which_is_needed() -> None:
    stored = record_wire.decode(await payloads().record_bytes(HERE, final()))
    with pytest.raises(
        DecryptionKeyMissing, match="the outcome of task images/one is encrypted with key 'k1'"
    ):
        await Payloads().outcome(HERE, stored)


async def test_an_input_and_a_result_of_the_largest_size_fit_into_a_message() -> None:
    largest = Raw(b'"' + b"x" * (task_wire.INPUT_LIMIT - 2) + b'"')
    body = await payloads().task_bytes(HERE, replace(TASK, input=largest))
    letter = await payloads().letter_bytes(HERE, replace(LETTER, body=None, envelope=Raw(body)))
    record = await payloads().record_bytes(HERE, final(result=largest))
    assert max(len(body), len(letter), len(record)) < 1024 * 1024 - 200_000


def mutated(body: bytes, draw: random.Random) -> bytes:
    """Return a body as one who does not have the key may have changed it."""
    changed = bytearray(body)
    at = draw.randrange(len(changed))
    match draw.randrange(5):
        case 0:
            changed[at] ^= 1 << draw.randrange(8)
        case 1:
            del changed[at : at + draw.randrange(1, 40)]
        case 2:
            changed[at:at] = draw.randbytes(draw.randrange(1, 20))
        case 3:
            changed[at:at] = changed[: draw.randrange(60)]
        case _:
            changed = bytearray(draw.choice(b'".,{}=g1A').to_bytes() if draw.random() < 0.1 else changed[:at])
    return bytes(changed)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_made_of_it_is_refused_with_a_typed_error(seed: int) -> None:
    secret, draw = payloads(), random.Random(seed)

    async def record(body: bytes) -> Record:
        return await secret.outcome(HERE, record_wire.decode(body))

    async def letter(body: bytes) -> DeadLetter:
        return await secret.read_letter(HERE, letter_wire.decode(body))

    async def task(body: bytes) -> Any:
        return await secret.read_task(HERE, body, plaintext=False)

    bodies: tuple[tuple[bytes, Callable[[bytes], Any], Any], ...] = (
        (await secret.task_bytes(HERE, TASK), task, TASK),
        (await secret.record_bytes(HERE, FAILED), record, FAILED),
        (await secret.letter_bytes(HERE, LETTER), letter, None),
    )
    refused = 0
    for body, read, whole in bodies:
        for _ in range(700):
            try:
                found = await read(mutated(body, draw))
            except (EncryptionError, EnvelopeInvalid):
                refused += 1
            else:
                # What is in the clear and decides nothing may be changed: of a task its uid alone.
                assert whole is not TASK or replace(found, uid="") == replace(TASK, uid="")
                text = msgspec.json.encode(found)
                assert text.count(SECRET.encode()) == msgspec.json.encode(whole or LETTER).count(
                    SECRET.encode()
                )
    assert refused > 1500


async def test_labels_are_readable_and_cannot_be_changed() -> None:
    body = await payloads().task_bytes(HERE, replace(TASK, labels={"team": "billing"}))
    assert json.loads(body)["labels"] == {"team": "billing"}
    assert (await payloads().read_task(HERE, body)).labels == {"team": "billing"}
    with pytest.raises(PayloadAltered):
        await payloads().read_task(HERE, body.replace(b"billing", b"someone"))
