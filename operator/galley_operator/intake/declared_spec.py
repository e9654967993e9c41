"""The spec of a Task as it comes from the API server, which has checked and defaulted it.

Read here by hand and not through `galley.resources`, because a Task passes by in its thousands and its input
is handed on as it is.
"""

from datetime import datetime
from typing import Final

import msgspec
from msgspec import Raw, Struct

from galley.envelope import INPUT_LIMIT, NO_INPUT, Envelope
from galley.errors import InputInvalid, ManifestInvalid
from galley.lanes import Lane
from galley.retry import RetryPolicy


class DeclaredSpec(Struct, frozen=True, rename="camel"):
    """What a Task asks for; fields mean what they mean in `galley.resources.TaskSpec`."""

    queue_name: str
    handler: str
    input: Raw = NO_INPUT
    priority: Lane = Lane.NORMAL
    timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    not_before: datetime | None = None
    deadline: datetime | None = None
    ttl_seconds_after_finished: int | None = None


_decode: Final = msgspec.json.Decoder(DeclaredSpec).decode


def read_spec(name: str, body: bytes) -> DeclaredSpec:
    """Return the spec in its JSON.

    Raises:
        ManifestInvalid: if a field is missing or of another type, which the CRD should have refused.
    """
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        hint = "are CRDs and operator of the same version? Correct the Task and apply it under another name"
        raise ManifestInvalid(f"Task {name}", 0, "spec", str(error), hint) from None


def envelope_of(spec: DeclaredSpec, created: datetime, now: datetime) -> Envelope:
    """Return the task as it travels.

    Raises:
        InputInvalid: if the input is too large.
    """
    size = memoryview(spec.input).nbytes
    if size > INPUT_LIMIT:
        raise InputInvalid(
            spec.handler, f"{size} bytes of JSON, the limit is {INPUT_LIMIT}",
            "store the data where workers can read it, and pass its place",
        )  # fmt: skip
    return Envelope(
        spec.handler,
        created,
        input=spec.input,
        not_before=spec.not_before if spec.not_before is not None and spec.not_before > now else None,
        deadline=spec.deadline,
        timeout_seconds=spec.timeout_seconds,
        retry=spec.retry,
    )
