"""What `extra` adds to a record of Python's `logging`, on its way from a child to the supervisor."""

import logging
from typing import Any, Final

import msgspec

from galley.logs import extra_of
from galley.unreadable import UNREADABLE

FIELDS_LIMIT: Final = 4096
"""Bytes that the fields of one record may have; what is beyond is named, and left out."""

_DEPTH_LIMIT: Final = 32
"""Lists and objects that may lie in each other in a field: a reader must be able to decode it."""

_encode = msgspec.json.Encoder(enc_hook=str).encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def fields_of(record: logging.LogRecord) -> str:
    """Return what a record has beyond the attributes that each has, as a JSON object; empty if nothing."""
    if not (extra := extra_of(record)):
        return ""
    fields: dict[str, msgspec.Raw] = {}
    room = FIELDS_LIMIT
    for key, value in extra.items():
        name, encoded = str(key).encode(errors="backslashreplace").decode(), _encoded(value)
        if len(encoded) > room:
            encoded = _encode(f"left out: {len(encoded)} bytes")
        room -= len(name) + len(encoded)
        if room < 0:
            break
        fields[name] = msgspec.Raw(encoded)
    return _encode(fields).decode()


def _encoded(value: object) -> bytes:
    try:
        return _encode(value)
    except Exception:
        # Whatever it is, the line is not lost for it.
        return _encode(f"left out: {type(value).__name__} is no JSON")


def read_fields(text: bytes) -> dict[str, Any]:
    """Return the fields that `fields_of` wrote; none if it did not: it comes from a handler."""
    if not text:
        return {}
    try:
        fields = _decode(text)
    except UNREADABLE:
        return {}
    return {
        name: value if _is_shallow(value, _DEPTH_LIMIT) else "left out: nested too deeply"
        for name, value in fields.items()
    }


def _is_shallow(value: object, room: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return room >= 0 and all(_is_shallow(each, room - 1) for each in inner)
