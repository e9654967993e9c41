"""Values as JSON: what JSON cannot express is refused, never left out."""

import math
import re
from collections import deque
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final

import msgspec
from msgspec import Raw

from galley.exception_text import describe
from galley.file import File
from galley.workflow.result import StepResult

_AS_TEXT: Final = frozenset({"ipaddress", "zoneinfo", "fractions", "pydantic.networks"})
"""Modules whose values travel as their text, by name: few programs have imported them."""


def _as_json(value: Any) -> object:
    """Return what travels for a value that the encoder does not know.

    Raises:
        TypeError: if nothing can.
    """
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, File):
        return value.as_json()
    if isinstance(value, deque):
        return list(value)
    if isinstance(value, re.Pattern):
        return value.pattern
    model: Any = type(value)
    if hasattr(model, "model_dump_json"):  # of pydantic, which would write `null` for NaN
        for place in _not_finite(model.model_dump(value, by_alias=False, round_trip=True)):
            raise NotFinite(place)
        # By the names of fields: an alias for writing need not be one for reading. What is computed of
        # other fields is not read.
        return Raw(model.model_dump_json(value, by_alias=False, round_trip=True).encode())
    if model is StepResult:
        # Only whole arguments are filled in, and nothing else would tell that this one is not.
        name = f"step {value.step!r}" if value.step else "the step before"
        raise TypeError(
            f"the result of {name} is inside a list or an object; pass it as an argument of its own"
        )
    if model.__module__ in _AS_TEXT:
        return str(value)
    raise TypeError(f"Encoding objects of type {type(value).__qualname__} is unsupported")


_encode: Final = msgspec.json.Encoder(enc_hook=_as_json).encode


class NotFinite(ValueError):
    """A number in a value is not finite, or a secret would be masked; the message names its place."""


class ValueUnreadable(ValueError):
    """A value raised an exception when it was read, such as a model whose database session is closed."""


def encode_value(value: object) -> bytes:
    """Return `value` as JSON.

    Raises:
        NotFinite: if there is a NaN or an infinity in it, for which the encoder would write `null`, or a
            secret in a model of pydantic, which would write asterisks.
        TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError: if it cannot be encoded.
    """
    try:
        return _encoded(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        raise
    except Exception as error:
        raise ValueUnreadable(f"reading it raised {describe(error)}") from error


def _encoded(value: object) -> bytes:
    data = _encode(value)
    # Only a value that has a null can have lost a number, and to search bytes costs next to nothing.
    if value is not None and b"null" in data:
        for place in _not_finite(
            msgspec.to_builtins(value, builtin_types=(Raw,), str_keys=True, enc_hook=_as_json)
        ):
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
        case _ if hasattr(value, "get_secret_value"):
            yield f"{place or 'it'} is a secret, which JSON would have as asterisks"
