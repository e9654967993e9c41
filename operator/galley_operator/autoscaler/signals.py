"""What is known of a queue at the moment of a decision."""

from dataclasses import dataclass

from galley.backlog import QueueBacklog, Unknown
from galley_operator.fleet.fleet import Workforce


@dataclass(frozen=True, slots=True)
class Signals:
    """A queue's work and its workers. Either may be unknown, which is never the same as none."""

    backlog: QueueBacklog | Unknown
    workforce: Workforce | Unknown

    @property
    def missing(self) -> tuple[str, Unknown] | None:
        """What is not known, as words for a sentence, and why; None if all is."""
        if isinstance(self.backlog, Unknown):
            return "the backlog", self.backlog
        if self.backlog.stale is not None:
            lanes = ", ".join(lane.lane for lane in self.backlog.lanes if lane.stale is not None)
            return f"the backlog of lane {lanes}", self.backlog.stale
        if isinstance(self.workforce, Unknown):
            return "the state of the workers", self.workforce
        return None
