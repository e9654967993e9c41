"""Errors as problem details (RFC 9457): what happened, to what, and what to do."""

from typing import Any, Final

import msgspec
from starlette.responses import Response

from galley.broker.errors import BrokerError, BrokerFull, BrokerSilent, BrokerUnreachable
from galley.encryption.errors import EncryptionError, KeyServiceUnavailable
from galley.errors import (
    DeadLetterNotFound,
    GalleyError,
    Invalid,
    NotRedrivable,
    QueueFull,
    QueueNotFound,
    Refused,
    ScheduleChanged,
    ScheduleNotFound,
    TaskConflict,
    TaskNotFound,
    TopicFull,
    TopicNotFound,
)
from galley.workflow.errors import WorkflowInvalid, WorkflowNotFound, WorkflowsFull
from galley_gateway.errors import GatewayError

MEDIA_TYPE: Final = "application/problem+json"

_STATUS: Final[tuple[tuple[type[GalleyError], int], ...]] = (
    (QueueNotFound, 404),
    (TaskNotFound, 404),
    (DeadLetterNotFound, 404),
    (ScheduleNotFound, 404),
    (TopicNotFound, 404),
    (WorkflowNotFound, 404),
    (TopicFull, 429),
    (WorkflowsFull, 429),
    (QueueFull, 429),
    (TaskConflict, 409),
    (NotRedrivable, 409),
    (ScheduleChanged, 409),
    (KeyServiceUnavailable, 503),
    (EncryptionError, 422),
    (Invalid, 422),
    (WorkflowInvalid, 422),
    (Refused, 409),
    (BrokerUnreachable, 503),
    (BrokerSilent, 503),
    (BrokerFull, 507),
    (BrokerError, 502),
)
"""What HTTP answers with; the first kind that fits counts, and 500 if none does."""

RETRY_AFTER_SECONDS: Final = {429: 1, 503: 2}
"""What `Retry-After` says with a status."""

PASSING: Final = (408, 429, 500, 502, 503, 507)
"""The statuses of what may be over when the same is asked for again."""


def status_of(error: type[GalleyError]) -> int:
    """Return the HTTP status of a kind of errors."""
    if issubclass(error, GatewayError):
        return error.status
    return next((status for kind, status in _STATUS if issubclass(error, kind)), 500)


def document(error: GalleyError, instance: str = "") -> dict[str, Any]:
    """Return an error as a problem document.

    Args:
        error: what happened.
        instance: the path that was asked for; left out if empty.
    """
    kind = type(error)
    title = (kind.__doc__ or kind.reason).strip().splitlines()[0].rstrip(".")
    found = {
        "type": f"urn:galley:problem:{kind.reason}",
        "title": title,
        "status": status_of(kind),
        "detail": str(error),
        "reason": kind.reason,
        "hint": error.hint,
        "instance": instance,
    }
    return {name: value for name, value in found.items() if value != ""}


def headers_of(status: int) -> dict[str, str]:
    """Return the headers that go with the status of an error."""
    headers = {}
    if (seconds := RETRY_AFTER_SECONDS.get(status)) is not None:
        headers["Retry-After"] = str(seconds)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="galley"'
    return headers


def answer(error: GalleyError, instance: str = "") -> Response:
    """Return the response that tells of an error."""
    body = document(error, instance)
    return Response(msgspec.json.encode(body), body["status"], headers_of(body["status"]), MEDIA_TYPE)
