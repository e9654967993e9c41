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

_lock = threading.Lock()
_last_milliseconds = 0
_last_random = 0
_last_high = -1
_last_head = ""


def new_task_id() -> str:
    """Return a new ULID: 48 bits of milliseconds and 80 random bits in 26 characters.

    Ids made by one process sort in the order they were made, also within one millisecond
    (https://github.com/ulid/spec, "Monotonicity").
    """
    global _last_milliseconds, _last_random, _last_high, _last_head  # noqa: PLW0603 - one sequence a process
    with _lock:
        milliseconds = time.time_ns() // 1_000_000
        if milliseconds > _last_milliseconds:
            # The top bit stays free so that counting up within a millisecond cannot overflow.
            _last_milliseconds, _last_random = milliseconds, int.from_bytes(os.urandom(10)) >> 1
        else:
            _last_random += 1
        value = (_last_milliseconds << 80) | _last_random
        high = value >> 20
        if high != _last_high:
            # The same for all of a millisecond, but for one in a million.
            _last_high = high
            _last_head = "".join([_PAIRS[(high >> shift) & 1023] for shift in range(100, -1, -10)])
        return _last_head + _PAIRS[(value >> 10) & 1023] + _PAIRS[value & 1023]


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
