"""Task ids: sortable by creation time, unique without coordination."""

import os
import re
import threading
import time
from typing import Final

from galley.errors import SubmissionInvalid

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PAIRS: Final = tuple(high + low for high in _CROCKFORD for low in _CROCKFORD)

_LOW_BITS: Final = 20
_LAST_LOW: Final = (1 << _LOW_BITS) - 1

_lock = threading.Lock()
_milliseconds = 0
_high, _low = 0, _LAST_LOW
_head = ""
"""The characters of `_high`. Ids of one millisecond share it, but for one in a million."""


def new_task_id() -> str:
    """Return a new ULID: 48 bits of milliseconds and 80 random bits in 26 characters.

    Ids made by one process sort in the order they were made, also within one millisecond
    (https://github.com/ulid/spec, "Monotonicity").
    """
    global _milliseconds, _low  # noqa: PLW0603 - one sequence a process
    with _lock:
        now = time.time_ns() // 1_000_000
        if now > _milliseconds:
            # The top bit stays free so that counting up within a millisecond cannot overflow.
            _milliseconds = now
            _go_on_from((now << 80) | (int.from_bytes(os.urandom(10)) >> 1))
        elif _low < _LAST_LOW:
            _low += 1
        else:
            _go_on_from(((_high << _LOW_BITS) | _low) + 1)
        return _head + _PAIRS[_low >> 10] + _PAIRS[_low & 1023]


def _go_on_from(value: int) -> None:
    global _high, _low, _head  # noqa: PLW0603 - as above
    _high, _low = value >> _LOW_BITS, value & _LAST_LOW
    _head = "".join([_PAIRS[(_high >> shift) & 1023] for shift in range(100, -1, -10)])


def _after_fork() -> None:
    """Make other ids than the parent does: the clock may stand still, or be put back."""
    global _milliseconds, _lock
    _milliseconds, _lock = 0, threading.Lock()  # another thread may have held the old one


os.register_at_fork(after_in_child=_after_fork)


def check_task_id(task_id: object) -> str:
    """Return `task_id` if it may stand in a subject.

    Raises:
        SubmissionInvalid: if it is not 1 to 64 characters of A-Z, a-z, 0-9, `_` and `-`.
    """
    if not isinstance(task_id, str) or not _VALID.fullmatch(task_id):
        raise SubmissionInvalid(
            "task id",
            f"{str(task_id)[:80]!r} has characters or a length that a subject cannot carry",
            "use 1 to 64 characters of A-Z, a-z, 0-9, _ and -",
        )
    return task_id
