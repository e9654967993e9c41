"""A Task manifest as the task that runs: the same one, whichever command applied it.

The operator reads the spec as the API server has it, `galley apply` reads a model. Both become a
`DeclaredSpec`, and that an envelope. The id is the name of the Task, so namespace, queue and name lead to it.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.bounds import INPUT_KEY_PATTERN
from galley.broker.connection import Broker
from galley.broker.known import known_task
from galley.broker.publish import Publisher
from galley.broker.unique_keys import UniquePublisher
from galley.envelope import INPUT_LIMIT, NO_INPUT, REFERRING_VERSION, Envelope, digest_of, encode_input
from galley.errors import InputInvalid, ManifestInvalid, SubmissionInvalid
from galley.file import FIELD, PUT, files_of_input
from galley.history import Moment
from galley.key import check_key, key_of_value
from galley.labels import check_labels
from galley.lanes import Lane
from galley.objects.errors import ObjectMissing
from galley.resources.task import Task
from galley.retry import RetryPolicy
from galley.unique import Unique, Wanted, wanted
from galley.unreadable import UNREADABLE


class DeclaredUnique(Struct, frozen=True, rename="camel"):
    """The unique key a Task asks for; fields mean what they mean in `galley.resources.TaskUnique`."""

    key: str | None = None
    until: str = "finished"
    seconds: float | None = None
    on_conflict: str = "reject"


class DeclaredSpec(Struct, frozen=True, rename="camel"):
    """What a Task asks for; fields mean what they mean in `galley.resources.TaskSpec`."""

    queue_name: str
    handler: str
    input: Raw = NO_INPUT
    priority: Lane = Lane.NORMAL
    timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    not_before: Moment | None = None
    deadline: Moment | None = None
    ttl_seconds_after_finished: int | None = None
    unique: DeclaredUnique | None = None
    key: str = ""

    @property
    def digest(self) -> str:
        """Stands for the work and its rules; the time after which the object is deleted is none."""
        return digest_of(
            self.handler, self.input, self.priority, self.timeout_seconds, self.retry,
            *(None if at is None else at.astimezone(UTC) for at in (self.not_before, self.deadline)),
            *(() if self.unique is None else (self.unique,)),
            *(("key", self.key) if self.key else ()),
        )  # fmt: skip


_decode: Final = msgspec.json.Decoder(DeclaredSpec).decode


def read_spec(name: str, body: bytes) -> DeclaredSpec:
    """Return the spec in its JSON.

    Raises:
        ManifestInvalid: if a field is missing or of another type, which the CRD should have refused.
    """
    try:
        return _decode(body)
    except UNREADABLE as error:
        hint = "are CRDs and operator of the same version? Correct the Task and apply it under another name"
        raise ManifestInvalid(f"Task {name}", 0, "spec", str(error), hint) from None


def spec_of(task: Task) -> DeclaredSpec:
    """Return the spec of a manifest.

    Raises:
        InputInvalid: if the input is too large.
    """
    spec = task.spec
    return DeclaredSpec(
        spec.queue_name,
        spec.handler,
        encode_input(spec.handler, spec.input),
        spec.priority,
        None if spec.timeout_seconds is None else float(spec.timeout_seconds),
        spec.retry.policy() if spec.retry else None,
        spec.not_before,
        spec.deadline,
        spec.ttl_seconds_after_finished,
        None if spec.unique is None else DeclaredUnique(
            spec.unique.key, spec.unique.until, spec.unique.seconds, spec.unique.on_conflict
        ),
        spec.key or "",
    )  # fmt: skip


def key_of(spec: DeclaredSpec) -> Wanted | None:
    """Return the unique key a spec asks for; None if it asks for none.

    Raises:
        SubmissionInvalid: if no task can have it, which the CRD should have refused.
    """
    if spec.unique is None:
        return None
    asked = spec.unique
    rules = Unique(
        key=asked.key,
        until=asked.until if asked.seconds is None else asked.seconds,  # type: ignore[arg-type]
        on_conflict=asked.on_conflict,  # type: ignore[arg-type]
    )
    return wanted(rules, spec.handler, spec.input)


def input_key(spec: DeclaredSpec) -> str:
    """Return the key of a task, taken from its input where its Task asks for that; empty if it has none.

    Raises:
        SubmissionInvalid: if what its input has there, or the text itself, cannot be a key.
    """
    if not spec.key:
        return ""
    if not spec.key.startswith("${"):
        return check_key(spec.key.removeprefix("$") if spec.key.startswith("$${") else spec.key)
    if not _INPUT_KEY.fullmatch(spec.key):
        raise SubmissionInvalid("key", f"{spec.key[:80]!r} names no part of the input", _NAME_A_PART)
    value = msgspec.json.decode(spec.input)
    way = spec.key[2:-1].split(".")
    for depth, name in enumerate(way[1:], 1):
        if not isinstance(value, dict) or name not in value:
            there = ".".join(way[:depth])
            raise SubmissionInvalid("key", f"{there} has no field {name!r}", _NAME_A_PART)
        value = value[name]
    return key_of_value(value, ".".join(way), _NAME_A_PART)


_INPUT_KEY: Final = re.compile(INPUT_KEY_PATTERN.strip("^$"))
_NAME_A_PART: Final = "have spec.key name a part that is a text or a whole number: ${input.customer}"


def envelope_of(
    spec: DeclaredSpec, submitted_at: datetime, now: datetime, uid: str = "",
    labels: Mapping[str, str] | None = None,
) -> Envelope:  # fmt: skip
    """Return the task as it travels.

    Args:
        spec: what the Task asks for.
        submitted_at: when it was declared.
        now: the time; a start before it is no reason to wait.
        uid: of the Task object; empty if there is none.
        labels: of the object: all of them, as they are now. They are no part of the digest, since they
            may be changed at any time.

    Raises:
        InputInvalid: if the input is too large.
        LabelInvalid: if there are more labels than a task may have.
        SubmissionInvalid: if its input has no key where its Task says.
    """
    size = memoryview(spec.input).nbytes
    if size > INPUT_LIMIT:
        raise InputInvalid(
            spec.handler, f"{size} bytes of JSON, the limit is {INPUT_LIMIT}",
            "store the data as a file, with `galley files put`, and refer to that",
        )  # fmt: skip
    return Envelope(
        spec.handler,
        submitted_at,
        input=spec.input,
        not_before=spec.not_before if spec.not_before is not None and spec.not_before > now else None,
        deadline=spec.deadline,
        timeout_seconds=spec.timeout_seconds,
        retry=spec.retry,
        labels=check_labels(labels) if labels else None,
        uid=uid,
        digest=spec.digest,
        key=input_key(spec),
    )


async def with_put_files(broker: Broker, address: TaskAddress, envelope: Envelope) -> Envelope:
    """Return the task with references to the files in its input, which `galley files put` has stored.

    Raises:
        InputInvalid: what stands for a file is none that was put.
        ObjectMissing: the queue does not have it, or has it no longer.
        ObjectStoreUnavailable, ObjectsFull: the store does not answer, or has no room for another reference.
        NotAllowed: the credentials are of another queue.
    """
    references = []
    for file in files_of_input(envelope.handler, envelope.input):
        if file.reference is None or file.reference.key:
            raise InputInvalid(envelope.handler, f"{FIELD}: it was not stored by `galley files put`", PUT)
        if not await broker.objects.refer(address, file.reference, "input"):
            raise ObjectMissing(f"file {file.name!r}", f"of queue {address.queue!r}", PUT)
        references.append(file.reference)
    return replace(envelope, v=REFERRING_VERSION, files=tuple(references)) if references else envelope


class Submitted(NamedTuple):
    """What submitting a manifest came to."""

    address: TaskAddress
    created: bool
    """False if the task was there already, waiting, running or ended: then nothing was added."""


def address_of(task: Task) -> TaskAddress:
    """Return where a manifest's task lives."""
    return TaskAddress(
        task.metadata.namespace, task.spec.queue_name, task.spec.priority, Kind.DIRECT, task.metadata.name
    )


async def submit_declared(broker: Broker, task: Task) -> Submitted:
    """Submit the task of a manifest, unless its queue knows it already.

    Raises:
        TaskConflict: its queue has another task of that name; nothing was stored.
        InputInvalid, ObjectError: a file in its input is not there; nothing was stored.
        SubmissionInvalid: its input has no key where its manifest says; nothing was stored.
        UniqueConflict: another task has its unique key; nothing was stored.
        QueueNotFound, LaneNotEnabled, QueueFull: refused; nothing was stored.
        BrokerUnreachable: no answer; doing it again is safe.
    """
    address = address_of(task)
    now = datetime.now(UTC)
    spec, publisher = spec_of(task), Publisher(broker)
    envelope = await with_put_files(broker, address, envelope_of(spec, now, now, labels=task.metadata.labels))
    key = key_of(spec)
    if key is None or await known_task(broker, address) is not None:
        receipt = await publisher.publish_once(address, envelope)
    else:
        receipt = await UniquePublisher(broker, publisher).publish(address, envelope, key, own_id=True)
    return Submitted(receipt.address, created=not receipt.duplicate)
