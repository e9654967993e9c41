"""The kinds of streams there are, and what a stream of each kind is called: the one table of them."""

from enum import StrEnum
from typing import Final


class StreamKind(StrEnum):
    """What a stream holds, in the order in which streams are read.

    A task leaves a stream only after it is stored in one that follows, and its record is stored before its
    message is acknowledged. Only a redriven dead letter goes the other way: hence the second round.
    """

    TOPICS = "topics"
    """The events of all topics of a namespace, and what the topics are. The copies of events are tasks."""
    WORK = "work"
    LATER = "later"
    RECORDS = "records"
    DEAD = "dead"
    OBJECTS = "objects"
    FLOWS = "flows"
    """Plans and states of workflows."""
    NOTES = "notes"
    """Progress, checkpoints and output."""
    COUNTS = "counts"
    """How many attempts ended, and how."""
    AUDIT = "audit"
    """Who did what in a namespace."""


PREFIXES: Final = {
    StreamKind.WORK: "GW",
    StreamKind.LATER: "GS",
    StreamKind.RECORDS: "GR",
    StreamKind.DEAD: "GD",
    StreamKind.OBJECTS: "GO",
    StreamKind.FLOWS: "GF",
    StreamKind.NOTES: "GN",
    StreamKind.COUNTS: "GC",
    StreamKind.TOPICS: "GT",
    StreamKind.AUDIT: "GA",
}
NOT_ARCHIVED: Final = frozenset((StreamKind.NOTES, StreamKind.COUNTS))
"""What backups leave out: nothing depends on it, and tasks that a restore runs again count again."""

OF_NAMESPACE: Final = frozenset((StreamKind.TOPICS, StreamKind.AUDIT))
"""Of these there is one for a namespace."""

SHARED: Final = frozenset((StreamKind.RECORDS, StreamKind.DEAD))
"""Of these, 0.1 made one for all queues of a namespace."""


def name_of(kind: StreamKind, namespace: str, queue: str = "") -> str:
    """Return the name of a stream of a queue, or of one that the queues of a namespace share."""
    return f"{PREFIXES[kind]}_{namespace}_{queue}" if queue else f"{PREFIXES[kind]}_{namespace}"


def kind_of(name: str, namespace: str, queue: str) -> StreamKind | None:
    """Return what a stream holds, or None if it is none of Galley's."""
    kinds = set(StreamKind) - OF_NAMESPACE if queue else SHARED | OF_NAMESPACE
    return next((kind for kind in kinds if name_of(kind, namespace, queue) == name), None)
