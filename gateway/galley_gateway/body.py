"""Reading what a request brings: its body, and its parameters."""

import re
from collections.abc import Collection
from typing import Final, TypeVar

import msgspec
from starlette.requests import Request

from galley_gateway.errors import RequestInvalid
from galley_gateway.limits import JSON_DEPTH

T = TypeVar("T")

_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_JSON: Final = "application/json"


async def body_of(request: Request, shape: type[T], raw: Collection[str] = ()) -> T | bytes:
    """Return the body of a request as a value of a type, or as it came where it is of a type of `raw`.

    Raises:
        RequestInvalid: if it is not JSON of that shape, or nested too deeply.
        BodyTooLarge, BodyTooSlow: as the door says.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in raw:
        return await raw_body_of(request)
    if kind != _JSON:
        known = " or ".join((_JSON, *raw))
        raise RequestInvalid("Content-Type", f"{kind[:80] or 'none'!r}", f"send {known}")
    return decoded(await request.body(), shape)


async def raw_body_of(request: Request) -> bytes:
    """Return the body of a request as it came.

    Raises:
        RequestInvalid: if it is JSON that is nested too deeply.
        BodyTooLarge, BodyTooSlow: as the door says.
    """
    data = await request.body()
    if "json" in request.headers.get("content-type", _JSON):
        _check_depth(data)
    return data


def decoded(data: bytes, shape: type[T]) -> T:
    """Return JSON as a value of a type.

    Raises:
        RequestInvalid: if it is not JSON of that shape, or nested too deeply.
    """
    _check_depth(data)
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as error:
        raise RequestInvalid("body", str(error), "GET /openapi.json describes what it takes") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestInvalid("body", f"not JSON: {error}", "send one JSON object, as UTF-8") from None


def _check_depth(data: bytes) -> None:
    if _deeper_than(data, JSON_DEPTH):
        raise RequestInvalid("body", f"nested more than {JSON_DEPTH} levels deep", "use fewer levels")


def _deeper_than(data: bytes, limit: int) -> bool:
    """Return whether arrays and objects are nested deeper than that; counts only where it can be so."""
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    depth = 0
    for sign in re.finditer(rb"[\[\]{}]", _TEXT.sub(b"", data)):
        depth += 1 if sign[0] in b"[{" else -1
        if depth > limit:
            return True
    return False


def text(query: dict[str, str], name: str) -> str | None:
    """Return a parameter, None if it was not given or is empty."""
    return query.get(name) or None


def number(query: dict[str, str], name: str, default: float, most: float) -> float:
    """Return a parameter that is a number from 0 to `most`.

    Raises:
        RequestInvalid: if it is none.
    """
    given = query.get(name)
    if not given:
        return default
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise RequestInvalid(name, f"{given[:40]!r}", f"use a number from 0 to {most:g}")
    return value
