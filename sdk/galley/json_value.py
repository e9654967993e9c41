"""Values as JSON: what JSON cannot express is refused, never left out."""

import math
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Raw

_encode: Final = msgspec.json.Encoder().encode


class NotFinite(ValueError):
    """A number in a value is not finite; the message names its place."""


def encode_value(value: object) -> bytes:
    """Return `value` as JSON.

    Raises:
        NotFinite: if there is a NaN or an infinity in it, for which the encoder would write `null`.
        TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError: if it cannot be encoded.
    """
    data = _encode(value)
    # Only a value that has a null can have lost a number, and to search bytes costs next to nothing.
    if value is not None and b"null" in data:
        for place in _not_finite(msgspec.to_builtins(value, builtin_types=(Raw,), str_keys=True)):
            raise NotFinite(place)
    return data


def _not_finite(value: object, place: str = "") -> Iterator[str]:
    match value:
        case float() if not math.isfinite(value):
            yield f"{place or 'it'} is {'NaN' if math.isnan(value) else 'infinite'}, which JSON cannot say"
        case dict():
            for name, inner in value.items():
                yield from _not_finite(inner, f"{place}.{name}" if place else str(name))
        case list() | tuple():
            for index, inner in enumerate(value):
                yield from _not_finite(inner, f"{place}[{index}]")
