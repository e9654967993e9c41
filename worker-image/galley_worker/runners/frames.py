"""What supervisor and child say to each other.

A frame is all that is said at one time: a list in msgpack behind its length in 4 bytes.

Input and result travel as the JSON they are, so that only the handler's process ever decodes them.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from galley.batching import Batch
from galley.lanes import Lane
from galley.repeat import Repeat
from galley.retry import RetryPolicy
from galley.topic import Subscribe
from galley_worker.ending import Spool

LENGTH: Final = 4
FRAME_LIMIT: Final = 256 * 1024 * 1024
"""Bytes of a frame beyond which the stream is garbage; all inputs a child may hold end far below."""
_MEMBERS: Final = 1024
CHUNK: Final = 256 * 1024
"""Bytes asked of the socket at a time."""


class Run(Struct, array_like=True, tag=0, gc=False):
    """Supervisor: run this."""

    id: int
    handler: str
    input: bytes
    task: str = ""
    lane: str = ""
    attempt: int = 1
    submitted_at: float = 0.0
    """Seconds since 1970."""
    deadline: float = 0.0
    """The same; 0 if there is none."""
    last_error: str = ""
    ancestors: tuple[str, ...] = ()
    objects: "Objects | None" = None
    """What of the input is in files; None for nearly all."""
    checkpoint: bytes = b""
    """That of an earlier attempt, as JSON; empty if there is none."""
    trace: str = ""
    """The W3C `traceparent` it runs under; empty if it belongs to no trace."""


class Objects(Struct, array_like=True):
    """Where the objects of a task are on this machine."""

    large: str = ""
    """File with the input; empty if that is in the order."""
    files: dict[str, str] = {}
    """Paths of the files in the input, by `digest/name`."""


class RunBatch(Struct, array_like=True, tag=5):
    """Supervisor: run these together, by one call of their handler."""

    id: int
    members: list[Run]


def member_id(order: int, place: int) -> int:
    """Return the number by which a member of a batch reports: no order has it."""
    return -(order * _MEMBERS + place) - 1


def order_of(number: int) -> tuple[int, int]:
    """Return the order behind a number, and the place of the member in it."""
    return (number, 0) if number >= 0 else divmod(-number - 1, _MEMBERS)


class Recall(Struct, array_like=True, tag=1):
    """Supervisor: give back what has not started and say what has ended."""


class Cancel(Struct, array_like=True, tag=2):
    """Supervisor: ask this handler to stop."""

    id: int


class Leave(Struct, array_like=True, tag=3):
    """Supervisor: end in order, once nothing runs."""


class Ask(Struct, array_like=True, tag=4):
    """Supervisor: say for how long this `async def` handler has run, or give it back if it has not begun."""

    id: int


class LogAll(Struct, array_like=True, tag=6):
    """Supervisor: have handlers log from DEBUG on, or again as they did before."""

    on: bool


class Spooling(Struct, array_like=True, tag=7):
    """Supervisor: what handlers return and is to be stored as an object goes into this folder."""

    folder: str


class AtOnce(Struct, array_like=True, tag=8):
    """Supervisor: run at most so many `async def` handlers at a time; others wait in the child."""

    most: int


class Done(Struct, array_like=True, tag=10, gc=False):
    """Child: the handler returned."""

    id: int
    seconds: float
    result: bytes


class Spooled(Struct, array_like=True, tag=19):
    """Child: the handler returned what is to be stored as objects."""

    id: int
    seconds: float
    result: bytes
    """JSON with marks in the places of files; null if it is too large itself."""
    files: list[Spool]
    large: Spool | None = None


class Onward(Struct, array_like=True, tag=21):
    """Child: the handler returned a workflow that takes its place."""

    id: int
    seconds: float
    plan: bytes


class Failed(Struct, array_like=True, tag=11):
    """Child: the handler raised, or could not be called."""

    id: int
    seconds: float
    reason: str
    message: str
    traceback: str
    retryable: bool
    kinds: tuple[str, ...] = ()
    """Names of the exception's class and of its bases, each also with its module."""


class Again(Struct, array_like=True, tag=18):
    """Child: the handler raised to run again after a pause of its own."""

    id: int
    seconds: float
    pause: float
    """Seconds."""
    free: bool
    """Whether it costs no attempt."""
    reason: str
    message: str
    traceback: str


class Outcomes(Struct, array_like=True, tag=20):
    """Child: what became of each member of a batch."""

    id: int
    seconds: float
    members: list[Done | Spooled | Onward | Failed | Again]
    whole: bool
    """Whether the handler failed with all of them at once."""


class Stopped(Struct, array_like=True, tag=12):
    """Child: the handler ended after it was asked to."""

    id: int
    seconds: float


class Recalled(Struct, array_like=True, tag=13):
    """Child: these had not started and will not."""

    ids: list[int]


class HandlerRules(Struct, array_like=True, frozen=True):
    """The rules of `@task`; None means the queue's."""

    timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    repeat: Repeat | None = None
    """When it runs by itself; None if it does not."""
    lane: Lane | None = None
    labels: dict[str, str] | None = None
    subscribes: tuple[Subscribe, ...] = ()
    batch: Batch | None = None


class Ready(Struct, array_like=True, tag=14):
    """Child: it can run tasks; these are the plain and the async handlers of the queue."""

    plain: list[str]
    concurrent: list[str]
    several: bool
    """Whether this child runs the async ones, rather than the plain ones."""
    rules: dict[str, HandlerRules] = {}
    """What `@task` says of some of them."""


class Broken(Struct, array_like=True, tag=15):
    """Child: a module does not import, or a start hook failed."""

    stage: str
    name: str
    """Of the module or the hook."""
    place: str
    problem: str
    trace: str = ""
    """The last lines of its traceback."""


class Said(Struct, array_like=True, tag=16):
    """Child: the next answer is of a handler that wrote output; all of it is in the pipes."""


class Ran(Struct, array_like=True, tag=17):
    """Child: this handler has run for so long; counted from when it first got the event loop."""

    id: int
    seconds: float


class Progressed(Struct, array_like=True, tag=30):
    """Child: the handler says how far it is."""

    id: int
    fraction: float | None
    text: str


class Worn(Struct, array_like=True, tag=32):
    """Child: a handler changed what cannot be put back, so it is to be replaced once nothing runs in it."""


class Saved(Struct, array_like=True, tag=31):
    """Child: the handler stores a checkpoint."""

    id: int
    body: bytes


Order: TypeAlias = Run | RunBatch | Recall | Cancel | Leave | Ask | LogAll | Spooling | AtOnce
Member: TypeAlias = Done | Spooled | Onward | Failed | Again
Answer: TypeAlias = (
    Member | Outcomes | Stopped | Recalled | Ready | Broken | Said | Ran | Progressed | Saved | Worn
)

_encode = msgspec.msgpack.Encoder().encode
decode_orders: Final = msgspec.msgpack.Decoder(list[Order]).decode
decode_answers: Final = msgspec.msgpack.Decoder(list[Answer]).decode


class Garbage(Exception):
    """The bytes on the socket are not frames."""


def encode(said: Sequence[Order] | Sequence[Answer]) -> bytes:
    """Return a frame as it travels."""
    body = _encode(said)
    return len(body).to_bytes(LENGTH, "big") + body


class Frames:
    """Cuts a stream of bytes into frame bodies."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._missing = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the bodies that are complete now.

        Raises:
            Garbage: if a length is one no frame has.
        """
        if self._rest:
            # Only looked at when there is enough: a long frame comes in many pieces.
            self._rest += data
            if len(data) < self._missing:
                self._missing -= len(data)
                return []
            data = bytes(self._rest)
            self._rest.clear()
        bodies = []
        start, end = 0, len(data)
        while start < end:
            stop = start + LENGTH + int.from_bytes(data[start : start + LENGTH], "big")
            if end - start < LENGTH:
                stop = start + LENGTH
            elif stop - start > FRAME_LIMIT:
                raise Garbage
            if stop > end:
                self._rest += data[start:]
                self._missing = stop - end
                break
            bodies.append(data[start + LENGTH : stop])
            start = stop
        return bodies
