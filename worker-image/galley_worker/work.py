"""Work: what a runner needs to run one attempt."""

from datetime import datetime

from msgspec import Raw, Struct

from galley.address import Kind


class Work(Struct, frozen=True):
    """One attempt of one task, ready to be run."""

    task_id: str
    queue: str
    lane: str
    handler: str
    attempt: int
    input: Raw
    """JSON, decoded only in the process of the handler."""
    timeout: float
    """Seconds this attempt may take, counted from its start."""
    submitted_at: datetime
    deadline: datetime | None = None
    last_error: str = ""
    """Reason and message of the attempt before."""
    large: str = ""
    """File with the input, if it is too large for a message; `input` is empty then."""
    files: dict[str, str] | None = None
    """Where the files in the input are, by `digest/name`; None if there are none."""
    ancestors: tuple[str, ...] = ()
    """Queues of the handlers it descends from."""
    kind: str = Kind.DIRECT
    checkpoint: bytes = b""
    """That of an earlier attempt, as JSON; empty if there is none."""
    trace: str = ""
    """The W3C `traceparent` it runs under; empty if it belongs to no trace."""
    apart: bool = False
    """Whether a handler of batches gets it by itself."""
    members: "tuple[Work, ...]" = ()
    """The works of a batch; empty for one work."""
