"""Dead letters: tasks that will not be tried again, kept whole with the reason."""

from datetime import datetime

import msgspec
from msgspec import Raw, Struct

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.pipeline import Ack
from galley.history import NO_HISTORY, History
from galley.record import Failure

_encode = msgspec.json.Encoder().encode


class DeadLetter(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A task that ended for good without success, ready to be redriven."""

    failure: Failure
    died_at: datetime
    worker: str
    attempt: int
    lane: str
    history: History = NO_HISTORY
    envelope: Raw | None = None
    """The task as it was submitted."""
    body: bytes | None = None
    """Instead of `envelope`: the raw bytes of what was no envelope we can read (base64 in JSON)."""
    header: str | None = None
    """Beside `body`: the Galley header it came with."""
    v: int = 1


async def bury(broker: Broker, address: TaskAddress, letter: DeadLetter) -> Ack:
    """Keep the letter, in place of an earlier one of the same task."""
    answer = await broker.pipeline.send(topology.dead_subject(address), _encode(letter))
    return await answer
