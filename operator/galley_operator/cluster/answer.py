"""What the API server answers: pages, events of a watch, and refusals made into errors."""

import logging
import random
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, cast

import msgspec
from msgspec import Raw, Struct, field

from galley.unreadable import UNREADABLE
from galley_operator.cluster.errors import (
    ApiFailing,
    ApiRefused,
    ClusterError,
    CredentialsRefused,
    KindNotServed,
    NotAdmitted,
    ObjectConflict,
    ObjectInvalid,
    ObjectNotFound,
    RightsMissing,
    TooManyRequests,
    WatchExpired,
)

log = logging.getLogger(__name__)

Shape = TypeVar("Shape")

LISTED: Final = "k8s.io/initial-events-end"
"""Annotation of the bookmark after the last object that was there when a watch began."""


class Change(StrEnum):
    """What an event of a watch says of its object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    """It is gone, or no longer what the selectors ask for; `object` is its last state."""
    BOOKMARK = "BOOKMARK"
    """Nothing changed; the watch is up to date as of `version`."""


class Event(Struct, Generic[Shape], frozen=True):
    """One change."""

    change: Change
    object: Shape | None
    """None for a bookmark."""
    version: str = ""
    """For a bookmark: where a later watch can begin."""
    listed: bool = False
    """For a bookmark: all objects that were there at the beginning have been told."""


class ListMetadata(Struct, frozen=True):
    """About a page."""

    resource_version: str = field(default="", name="resourceVersion")
    more: str = field(default="", name="continue")


class Page(Struct, Generic[Shape], frozen=True):
    """Some objects of a list."""

    items: list[Shape] = []
    metadata: ListMetadata = ListMetadata()


_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_ITEM_DEPTH: Final = 3
"""Of an object in a list: `{"items": [{...`."""
_DEEPEST: Final = 300


class _Line(Struct):
    type: str
    object: Raw


class _BookmarkMetadata(Struct):
    resource_version: str = field(default="", name="resourceVersion")
    annotations: dict[str, str] = {}


class _Bookmark(Struct):
    metadata: _BookmarkMetadata


class _Status(Struct):
    kind: str = ""
    reason: str = ""
    message: str = ""
    code: int = 0
    details: dict[str, Any] | None = None


_line = msgspec.json.Decoder(_Line).decode
_bookmark = msgspec.json.Decoder(_Bookmark).decode
_status = msgspec.json.Decoder(_Status).decode
_raw_page = msgspec.json.Decoder(Page[Raw]).decode


@lru_cache(maxsize=32)
def _page_decoder(shape: Any) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(Page[shape])


@lru_cache(maxsize=32)
def _decoder(shape: Any) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(shape)


def page_in(body: bytes, shape: type[Shape]) -> Page[Shape]:
    """Return the page in an answer to a list, without objects that are not as their definition says."""
    try:
        page: Page[Shape] = _page_decoder(cast("Hashable", shape)).decode(body)
    except (msgspec.ValidationError, RecursionError):
        raw = _raw_page(_without_deep(body))
        items = [read for each in raw.items if (read := _object_in(each, shape)) is not None]
        return Page(items, raw.metadata)
    return page


def _object_in(body: Raw, shape: type[Shape]) -> Shape | None:
    """Return what is read of an object, or None if it is not as its definition says."""
    try:
        read: Shape = _decoder(cast("Hashable", shape)).decode(body)
    except (msgspec.ValidationError, RecursionError) as error:
        _not_understood(str(error), bytes(body))
        return None
    return read


def _not_understood(problem: str, body: bytes) -> None:
    log.warning(
        "object not understood", extra={"error": problem, "body": body[:200].decode(errors="replace")}
    )


def _without_deep(body: bytes) -> bytes:
    """Return a list with null in place of each object that is nested too deeply for a decoder.

    The API server accepts an input of thousands of levels, and one Task must not hide all others.
    """
    kept: list[bytes] = []
    depth = deepest = start = done = 0
    for token in _TOKENS.finditer(body):
        if token[0] in b"{[":
            depth += 1
            if depth == _ITEM_DEPTH:
                start, deepest = token.start(), 0
            deepest = max(deepest, depth)
        elif token[0] in b"}]":
            if depth == _ITEM_DEPTH and deepest > _DEEPEST:
                _not_understood(f"it is nested {deepest} levels deep", body[start:])
                kept += [body[done:start], b"null"]
                done = token.end()
            depth -= 1
    return b"".join([*kept, body[done:]])


def events_in(lines: Iterable[bytes], shape: type[Shape], what: str) -> Iterator[Event[Shape]]:
    """Yield the events in the lines of a watch.

    Raises:
        WatchExpired: if a line says that the watch cannot go on from where it was.
        ApiRefused: if it says another error.
    """
    for text in lines:
        if not text:
            continue
        try:
            line = _line(text)
        except RecursionError:
            _not_understood("it is nested too deeply", text)
            continue
        if line.type == Change.BOOKMARK:
            metadata = _bookmark(line.object).metadata
            listed = metadata.annotations.get(LISTED) == "true"
            yield Event(Change.BOOKMARK, None, metadata.resource_version, listed)
        elif line.type == "ERROR":
            raise _refusal(_status(line.object), 0, {}, "watch", what)
        elif (read := _object_in(line.object, shape)) is not None:
            yield Event(Change(line.type), read)


def error_of(code: int, headers: Mapping[str, str], body: bytes, verb: str, what: str) -> ClusterError:
    """Return the error an answer of the API server means."""
    try:
        status = _status(body)
    except UNREADABLE:
        status = _Status(message=body[:300].decode(errors="replace").strip())
    return _refusal(status, code, headers, verb, what)


def retry_after_of(error: ClusterError) -> float:
    """Return how many seconds to wait before a repetition, spread so that not all come back at once."""
    seconds = error.retry_after if isinstance(error, TooManyRequests) else 0.1
    return seconds * random.uniform(1.0, 1.5)  # noqa: S311 - spreads load, guards nothing


_KINDS: Final[dict[int, type[ApiRefused]]] = {
    400: ObjectInvalid,
    401: CredentialsRefused,
    403: RightsMissing,
    404: ObjectNotFound,
    409: ObjectConflict,
    413: ObjectInvalid,
    422: ObjectInvalid,
}
_TOO_LARGE: Final = "request is too large"
"""What etcd says of an object, which the API server passes on as an error of its own."""


def _refusal(status: _Status, code: int, headers: Mapping[str, str], verb: str, what: str) -> ClusterError:
    code = status.code or code
    problem = status.message or status.reason or "no reason given"
    if code == 410 or status.reason == "Expired":
        return WatchExpired(what, problem)
    if code == 429 or (code == 503 and "Retry-After" in headers):
        return TooManyRequests(verb, what, code, problem, _seconds(headers.get("Retry-After", "")))
    # A missing object, or namespace, is named in the details; for a missing kind there is nothing to name.
    if code == 404 and not (status.details or {}).get("name"):
        return KindNotServed(verb, what, code, problem)
    # Admission answers with the same status as authorization, which always names the user.
    if code == 403 and "is forbidden: " in problem and " User " not in f" {problem}":
        return NotAdmitted(verb, what, code, problem)
    if code >= 500 and _TOO_LARGE in problem:
        return ObjectInvalid(verb, what, code, problem)
    kind = _KINDS.get(code) or (ApiFailing if code >= 500 else ApiRefused)
    return kind(verb, what, code, problem)


def _seconds(text: str) -> float:
    """Return the seconds in a Retry-After, which servers of Kubernetes give as a whole number."""
    return min(max(float(text), 0.1), 60.0) if text.isdecimal() else 1.0
