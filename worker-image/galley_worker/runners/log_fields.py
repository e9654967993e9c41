"""What `extra` adds to a record of Python's `logging`, on its way from a child to the supervisor."""

import logging
from typing import Any, Final

import msgspec

from galley.unreadable import UNREADABLE

FIELDS_LIMIT: Final = 4096
"""Bytes that the fields of one record may have; what is beyond is named, and left out."""

_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_encode = msgspec.json.Encoder(enc_hook=str).encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def fields_of(record: logging.LogRecord) -> str:
    """Return what a record has beyond the attributes that each has, as a JSON object; empty if nothing."""
    if len(record.__dict__) <= len(_OWN) and record.__dict__.keys() <= _OWN:
        return ""
    fields: dict[str, msgspec.Raw] = {}
    room = FIELDS_LIMIT
    for key, value in record.__dict__.items():
        if key in _OWN:
            continue
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
    """Return the fields that `fields_of` wrote; none if it did not: a handler may write what it likes."""
    if not text:
        return {}
    try:
        return _decode(text)
    except UNREADABLE:
        return {}
