"""Page: memory that a child shares with its worker, so that what runs in it is known even while it hangs.

    begun, began, since, order

`begun` is the order begun last. The others are of the async handler whose code runs in the event loop
now: when it began, since when it has the loop, and its order. The order is written last and read first, since
a child may be interrupted between two numbers: with the times of before, of which a new child has none, a
handler that has just begun would seem to be far over its timeout.
"""

from mmap import mmap
from struct import Struct
from typing import Final, NamedTuple

BYTES: Final = 32
STEP: Final = 8
ORDER: Final = 24

# Native numbers are written at once each; those of a standard size may be, byte by byte.
write_number: Final = Struct("@Q").pack_into
"""With 0, an order begun; with `ORDER`, 0 when no handler has the loop any more."""
write_step: Final = Struct("@ddQ").pack_into
"""With `STEP`: when a handler began, since when it has the loop, and its order."""
_number: Final = Struct("@Q").unpack_from
_times: Final = Struct("@dd").unpack_from


class Step(NamedTuple):
    """An async handler has the event loop."""

    order: int
    began: float
    since: float


def begun(page: mmap | bytearray) -> int:
    """Return the order begun last; 0 if there was none."""
    number: int = _number(page, 0)[0]
    return number


def step(page: mmap | bytearray) -> Step | None:
    """Return what has the event loop; None if nothing has it, or that is changing at this moment."""
    order: int = _number(page, ORDER)[0]
    times: tuple[float, float] = _times(page, STEP)
    same = order and _number(page, ORDER)[0] == order
    return Step(order, *times) if same else None
