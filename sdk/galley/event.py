"""An event as it travels: CloudEvents 1.0, structured, as JSON. Pure: times are arguments.

The names of attributes are those of the specification; what a publisher adds to it are extension attributes,
which stand beside them.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import Raw, Struct, field

from galley.bounds import is_queue_name
from galley.errors import EventInvalid
from galley.history import Moment
from galley.json_value import NotFinite, encode_value
from galley.task_id import new_task_id
from galley.tracing import traceparent_in
from galley.unreadable import UNREADABLE

DATA_LIMIT: Final = 256 * 1024
"""Bytes of JSON the data of an event may have: each queue that subscribes gets a copy."""

TEXT_LIMIT: Final = 256
"""Characters of id, source, type, subject, key, and of an attribute that is a text."""

ATTRIBUTES_LIMIT: Final = 32
"""Attributes an event may have beside those of the specification."""

HOPS_LIMIT: Final = 16
"""Events that may lead to one another, each published by a handler of the one before."""

DEFAULT_TYPE: Final = "galley.event"

_NAME: Final = re.compile(r"[a-z0-9]{1,20}")
_KNOWN: Final = frozenset(
    ("specversion", "id", "source", "type", "datacontenttype", "dataschema", "subject", "time", "data",
     "data_base64", "partitionkey", "galleyhops", "traceparent")
)  # fmt: skip

Attribute = str | int | bool


class Event(Struct, frozen=True):
    """One event."""

    id: str
    """With `source` it names the event: a second one of the same names is the same event."""
    source: str
    type: str
    time: Moment
    data: Raw = Raw(b"null")
    """JSON."""
    subject: str = ""
    key: str = ""
    """Events of one key keep their order where a subscription asks for it; `partitionkey` in CloudEvents."""
    attributes: Mapping[str, Attribute] = {}
    hops: int = 0
    """How many events led to it, each published by a handler of the one before."""
    traceparent: str = ""
    """The W3C trace it belongs to, as the tracing extension of CloudEvents names it; empty if to none."""


class _Wire(Struct, omit_defaults=True):
    """The attributes of the specification, and ours, in its order."""

    specversion: str
    id: str
    source: str
    type: str
    time: Moment | None = None
    subject: str = ""
    partitionkey: str = ""
    galleyhops: int = 0
    traceparent: str = ""
    datacontenttype: str = field(default="")
    data: Raw = Raw(b"null")
    data_base64: Any = None


_decode_wire: Final = msgspec.json.Decoder(_Wire).decode
_decode_all: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_attribute: Final = msgspec.json.Decoder(Attribute).decode
_decode_raw: Final = msgspec.json.Decoder(Raw).decode
_encode: Final = msgspec.json.Encoder().encode


def event_of(
    data: Any,
    now: datetime,
    *,
    source: str,
    attributes: Mapping[str, Attribute] | None = None,
    event_id: str | None = None,
    event_type: str = DEFAULT_TYPE,
    subject: str = "",
    key: str = "",
    hops: int = 0,
    traceparent: str = "",
) -> Event:
    """Return an event.

    Raises:
        EventInvalid: if there can be none like that.
    """
    if not isinstance(attributes or {}, Mapping):
        hint = "pass an object: words, each with a text, a number or a boolean"
        raise EventInvalid("attributes", f"they are of type {type(attributes).__name__}", hint)
    try:
        raw = encode_value(data)
    except NotFinite as error:
        raise EventInvalid("data", str(error), "pass null or a text in its place") from None
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        hint = "pass numbers, text, lists and objects only"
        raise EventInvalid("data", f"cannot be written as JSON: {error}", hint) from None
    event = Event(
        new_task_id() if event_id is None else event_id, source, event_type, now, Raw(raw), subject, key,
        dict(attributes or {}), hops, traceparent,
    )  # fmt: skip
    _check(event)
    return event


def encode(event: Event) -> bytes:
    """Return the bytes of an event: a CloudEvent as JSON."""
    wire = _Wire(
        "1.0", event.id, event.source, event.type, event.time, event.subject, event.key, event.hops,
        event.traceparent, "application/json", event.data,
    )  # fmt: skip
    if not event.attributes:
        return _encode(wire)
    return _encode(wire)[:-1] + b"," + _encode(event.attributes)[1:]


def decode(body: bytes, now: datetime | None = None) -> Event:
    """Return the event in the bytes of a CloudEvent as JSON.

    Args:
        body: the bytes.
        now: its time, if it does not have one.

    Raises:
        EventInvalid: if it is none, or one that Galley does not take.
    """
    try:
        wire = _decode_wire(body)
        more = {name: raw for name, raw in _decode_all(body).items() if name not in _KNOWN}
        attributes = {name: _decode_attribute(raw) for name, raw in more.items() if bytes(raw) != b"null"}
    except UNREADABLE as error:
        hint = (
            "it is JSON with specversion, id, source, type, and data; attributes are texts and whole numbers"
        )
        raise EventInvalid("event", f"it is no CloudEvent: {error}", hint) from None
    if wire.specversion != "1.0":
        raise EventInvalid("specversion", f"is {wire.specversion[:20]!r}", 'known here is "1.0"')
    if wire.data_base64 is not None:
        raise EventInvalid("data_base64", "is not taken", "put the data into `data`, as JSON")
    time = wire.time or now
    if time is None:
        raise EventInvalid("time", "is missing", "set it to the time of the event, in RFC 3339")
    event = Event(
        wire.id, wire.source, wire.type, time, wire.data, wire.subject, wire.partitionkey, attributes,
        wire.galleyhops, traceparent_in(wire.traceparent),
    )  # fmt: skip
    _check(event)
    return event


def from_headers(headers: Mapping[str, str], body: bytes, now: datetime | None = None) -> Event:
    """Return the event in a message of HTTP, in either mode of CloudEvents.

    In binary mode the attributes are headers that begin with `ce-`, and the body is the data, JSON or a text.
    In structured mode all of it is in the body.

    Args:
        headers: of the message.
        body: its body.
        now: the time of the event, if it does not have one.

    Raises:
        EventInvalid: if it is none, or one that Galley does not take.
    """
    lowered = {name.lower().strip(): value.strip() for name, value in headers.items()}
    content = lowered.get("content-type", "application/json")
    kind = content.partition(";")[0].strip().lower()
    if kind.startswith("application/cloudevents-batch"):
        raise EventInvalid("event", "a batch of events is not taken", "send one event in each message")
    if kind.startswith("application/cloudevents"):
        return decode(body, now)
    named = {name[3:]: unquote(value) for name, value in lowered.items() if name.startswith("ce-")}
    if "id" not in named:
        hint = "send ce-id, ce-source, ce-type and ce-specversion, or application/cloudevents+json"
        raise EventInvalid("event", "the header ce-id is missing", hint)
    # A trace in the attributes is that of the event, one in a header of its own that of this message.
    named.setdefault("traceparent", lowered.get("traceparent", ""))
    fields: dict[str, Any] = {**named, "datacontenttype": content}
    if (hops := named.get("galleyhops", "0")).isdecimal() and len(hops) < 9:
        fields["galleyhops"] = int(hops)
    if kind == "application/json" or kind.endswith("+json"):
        fields["data"] = _json(body or b"null")
    elif kind.startswith("text/"):
        fields["data"] = body.decode("utf-8", "replace")
    else:
        raise EventInvalid("datacontenttype", f"is {kind[:80]!r}", "the data is application/json, or a text")
    return decode(_encode(fields), now)


def _json(body: bytes) -> Raw:
    """Return JSON that is one value, and does not go on behind it."""
    try:
        return _decode_raw(body)
    except UNREADABLE as error:
        raise EventInvalid("data", f"is not JSON: {error}", "send a text as text/plain") from None


def _check(event: Event) -> None:
    texts = (
        ("id", event.id, 1), ("source", event.source, 1), ("type", event.type, 1),
        ("subject", event.subject, 0), ("key", event.key, 0),
    )  # fmt: skip
    for name, text, least in texts:
        _check_text(name, text, least)
    if len(event.attributes) > ATTRIBUTES_LIMIT:
        hint = f"use at most {ATTRIBUTES_LIMIT}, and put the rest into the data"
        raise EventInvalid("attributes", f"there are {len(event.attributes)}", hint)
    for name, value in event.attributes.items():
        _check_attribute(name, value)
    if len(event.data) > DATA_LIMIT:
        hint = "publish where the data is stored, and not the data"
        raise EventInvalid("data", f"{len(event.data)} bytes of JSON, the limit is {DATA_LIMIT}", hint)
    if not 0 <= event.hops <= HOPS_LIMIT:
        raise EventInvalid("galleyhops", f"is {event.hops}", f"the limit is {HOPS_LIMIT}")


def _check_text(name: str, text: Any, least: int) -> None:
    hint = f"use a text of {least} to {TEXT_LIMIT} characters that can be printed"
    if isinstance(text, str) and len(text) > TEXT_LIMIT:
        raise EventInvalid(name, f"has {len(text)} characters", hint)
    if not isinstance(text, str) or len(text) < least or not text.isprintable():
        raise EventInvalid(name, f"is {text!r}", hint)


def _check_attribute(name: Any, value: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _KNOWN:
        hint = "use 1 to 20 of a-z and 0-9, and no name that CloudEvents gives a meaning"
        raise EventInvalid("attributes", f"{str(name)[:80]!r} cannot be the name of an attribute", hint)
    if isinstance(value, int) and not -(2**31) <= value < 2**31:
        raise EventInvalid("attributes", f"{name} is {value}", "whole numbers have 32 bits; use a text")
    if not isinstance(value, str | int) or (isinstance(value, str) and len(value) > TEXT_LIMIT):
        hint = f"use a text of at most {TEXT_LIMIT} characters, a whole number, true or false"
        raise EventInvalid("attributes", f"{name} is {str(value)[:40]!r}", hint)


def check_topic_name(name: str) -> str:
    """Return `name` if a topic can have it; it becomes a part of subjects.

    Raises:
        EventInvalid: if not.
    """
    if not is_queue_name(name):
        hint = "use 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit"
        raise EventInvalid("topic", f"{str(name)[:80]!r} cannot be the name of a topic", hint)
    return name


def variables(event: Event, topic: str) -> dict[str, Any]:
    """Return an event as filters see it."""
    return {
        "id": event.id, "source": event.source, "type": event.type, "subject": event.subject,
        "key": event.key, "topic": topic, "attributes": event.attributes,
    }  # fmt: skip
