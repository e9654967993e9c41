"""Values that are nearly what they should be: seeded changes of JSON values, and of their bytes."""

import copy
import random
from collections.abc import Iterator
from typing import Any, Final

_ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**30,
    0.5, -0.0, 1e15, 1e308, 5e-324,
    "", " ", "a" * 300, "0", "-1", "1e400", "NaN", "None", "null", "true", "..", "../../etc/passwd",
    "a.b", "a*b", ">", "\x00", "\x1b[2J", "\u202e", "ü" * 70, "\ufffd", "\U0001f600",
    "{}", "[]", "%s", "{0}", "$(id)", "a\nb", "a b",
    "2026-03-01T09:00:00", "2026-03-01T09:00:00Z", "2026-03-01T09:00:00+26:00", "0000-00-00T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999-23:59", "1969-12-31T23:59:59Z", "2026-02-30T09:00:00Z",
    "12345", "1Gi", "128m", "sdk", "k8s", "run", "done", "retry", "Failed", "Succeeded", "high", "normal",
    [], {}, [None], [[]], {"": None}, ["a", 1, None], {"name": "x"}, {"a": {"b": {"c": []}}},
)  # fmt: skip

_KEYS: Final = (
    "",
    "name",
    "msg",
    "args",
    "message",
    "levelname",
    "exc_info",
    "v",
    "uid",
    "$ref",
    "__class__",
    "ü",
)
"""Among them, names that records of a logger reserve."""

_DEEP: Final = 3_000


def mutated(value: Any, rng: random.Random) -> Any:
    """Return a copy of a JSON value with one to four changes."""
    changed = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        places = list(_places(changed))
        if not places:
            return _odd(rng)
        holder, key = rng.choice(places)
        _change(holder, key, rng)
    return changed


def mangled(body: bytes, rng: random.Random) -> bytes:
    """Return bytes with some of them changed, lost or repeated."""
    broken = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(broken)) if broken else 0
        match rng.randrange(4):
            case 0:
                broken[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del broken[place : place + rng.randrange(1, 20)]
            case 2:
                broken[place:place] = broken[place : place + rng.randrange(1, 20)]
            case _:
                broken[place:place] = rng.choice(
                    (b"\xff\xfe", b"\x00", b'"', b"{", b"]", b"[" * _DEEP, b"1" * 500)
                )
    return bytes(broken)


def _odd(rng: random.Random) -> Any:
    # A copy: a later change must not reach the values of all that follow.
    return copy.deepcopy(rng.choice(_ODD))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what holds each part of a value, and under which key."""
    keys = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(keys):
        yield value, key
        yield from _places(part)


def _change(holder: Any, key: Any, rng: random.Random) -> None:
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(_KEYS)] = _odd(rng)
        case 2 if isinstance(holder, dict):
            holder[rng.choice(_KEYS)] = holder.pop(key)
        case 3:
            holder[key] = [holder[key]] * rng.choice((1, 2, 200))
        case 4:
            holder[key] = {rng.choice(_KEYS): holder[key]}
        case 5:
            deep: Any = _odd(rng)
            for _ in range(rng.choice((5, 60, 150))):
                deep = [deep]
            holder[key] = deep
        case _:
            holder[key] = _odd(rng)
