"""How long a status waits for one that takes its place, before it is written."""

from datetime import datetime
from typing import Final

from galley.task_status import Phase
from galley_operator.status.written_status import WrittenStatus
from galley_operator.tasks.report import Pending, Recorded, Rejected, Report, Until

LINGER_SECONDS: Final = 0.15
"""How long a status waits for one that takes its place."""

BRIEF_SECONDS: Final = 5.0
"""A state that is over sooner is not written: most tasks are done by then."""

PROGRESS_SECONDS: Final = 1.0
"""How long a progress waits for one that takes its place: each Task has at most one such write a second."""

_LINGER: Final = {Until.QUEUE_CHANGES: 1.0, Until.ROOM: 5.0, Until.LATER: 1.0, Until.PAUSE: 2.0}
"""Seconds before a task reports that it was not admitted: queue and tasks are often applied together, and
room is often there a moment later."""


def linger_of(report: Report, status: WrittenStatus, now: datetime) -> float:
    """Return how many seconds a status waits for one that takes its place."""
    if isinstance(report, Rejected):
        return 0.0
    if isinstance(report, Pending):
        return _LINGER[report.until]
    if not isinstance(report, Recorded) or status.final:
        return LINGER_SECONDS
    started_at = report.stored.record.started_at
    if status.body["phase"] != Phase.RUNNING or started_at is None:
        return BRIEF_SECONDS
    ran = (now - started_at).total_seconds()
    return min(BRIEF_SECONDS, max(LINGER_SECONDS, BRIEF_SECONDS - ran))
