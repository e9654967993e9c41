"""TaskSchedule: a task that runs again and again, declared."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from galley.bounds import TIMEOUT_SECONDS
from galley.errors import ScheduleInvalid
from galley.lanes import Lane
from galley.repeat import (
    CATCH_UP_LIMIT,
    HISTORY_LIMIT,
    JITTER_SECONDS,
    LATE_SECONDS,
    CatchUp,
    Overlap,
    Repeat,
)
from galley.resources.meta import API_VERSION, Choice, HandlerName, Metadata, Name, Part, Whole, refusal
from galley.resources.rule import Rule, checked
from galley.resources.task import Input, Moment
from galley.resources.task_queue import Retry
from galley.schedule import NAME_LENGTH
from galley.timetable import TEXT_LENGTH

NAME_RULE = Rule(
    f"size(self.metadata.name) <= {NAME_LENGTH}",
    f"metadata.name: has more than {NAME_LENGTH} characters; "
    "shorten it, since the ids of its tasks add the time",
)
"""What the API server checks of a whole TaskSchedule."""


class TaskScheduleSpec(Part):
    """What runs, when, and what happens if that cannot be kept to."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                "!has(self.start) || !has(self.end) || timestamp(self.end) >= timestamp(self.start)",
                "is {{self.end}}, before start: {{self.start}}; set a later end, or an earlier start",
                ".end",
            ),
            Rule(
                "self.catchUp != 'all' || self.overlap == 'allow'",
                "'all' submits missed ticks together, and overlap {{self.overlap}} one at a time; "
                "set overlap: allow, or catchUp: one",
                ".catchUp",
            ),
        )
    )

    queue_name: Name
    """Name of the TaskQueue, in the schedule's namespace, whose workers run it."""

    handler: HandlerName
    """Which handler of the queue runs: the name of a `@task` function or of a command."""

    input: Input = Field(default_factory=dict)
    """What the handler is given at each tick, at most 512 KiB as JSON."""

    cron: Annotated[str, Field(min_length=1, max_length=TEXT_LENGTH)]
    """When: five fields (minute, hour, day, month, weekday), six with seconds first, `@hourly`, `@daily`,
    `@weekly`, `@monthly`, `@yearly`, or `@every` with a time such as `10s`, `15m` or `1h30m`."""

    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    """Name of the zone whose clocks the cron line follows, such as `Europe/Berlin`. A time that the clocks
    skip in spring runs right after the gap; one that comes twice in autumn runs once, the first time. Lines
    whose minute or hour begins with `*`, and lines with seconds, run whenever the clock shows that time."""

    start: Moment | None = None
    """First moment at which it fires, in RFC 3339 with an offset; `@every` counts from it."""

    end: Moment | None = None
    """Last moment at which it fires, in RFC 3339 with an offset."""

    suspend: Choice = False
    """Whether it fires no more until this is false again; ticks in between do not count."""

    overlap: Overlap = Overlap.SKIP
    """What happens at a tick while the task of an earlier one has not ended: `skip` submits none, `allow` has
    both run, `replace` cancels the earlier one."""

    catch_up: CatchUp = CatchUp.SKIP
    """What happens to ticks that passed while no worker could run: `skip` runs the last one if it is not
    later than `startingDeadlineSeconds`, `one` runs the last one, `all` runs all, at most the newest
    `catchUpLimit`."""

    catch_up_limit: Whole = Field(100, ge=CATCH_UP_LIMIT.least, le=CATCH_UP_LIMIT.most)
    """Most missed ticks that run with `catchUp: all`."""

    starting_deadline_seconds: Whole = Field(300, ge=LATE_SECONDS.least, le=LATE_SECONDS.most)
    """Seconds a tick may be late with `catchUp: skip`, including the time workers need to start."""

    jitter_seconds: Whole = Field(0, ge=JITTER_SECONDS.least, le=JITTER_SECONDS.most)
    """Seconds a task starts after its tick at most; how many follows from its id."""

    history_limit: Whole = Field(10, ge=HISTORY_LIMIT.least, le=HISTORY_LIMIT.most)
    """How many of its latest ticks are remembered, though the results of their tasks expire."""

    priority: Lane = Lane.NORMAL
    """The lane its tasks wait in; the queue must have it."""

    timeout_seconds: Annotated[Whole, Field(ge=TIMEOUT_SECONDS.least, le=TIMEOUT_SECONDS.most)] | None = None
    """Seconds one attempt may take before it is killed; the queue's when left out."""

    retry: Retry | None = None
    """What follows an attempt that failed, as in a Task."""

    @model_validator(mode="after")
    def _fires(self) -> "TaskScheduleSpec":
        self.repeat()
        return self

    def repeat(self) -> Repeat:
        """Return when it fires, as it travels."""
        try:
            return Repeat(
                self.cron, self.time_zone, self.start, self.end, float(self.jitter_seconds), self.overlap,
                self.catch_up, self.catch_up_limit, self.starting_deadline_seconds, self.history_limit,
            )  # fmt: skip
        except ScheduleInvalid as error:
            field = type(self).model_fields.get(error.field)
            at = field.alias if field is not None and field.alias else error.field
            raise refusal(error.problem, error.hint, at) from None


class TaskSchedule(Part):
    """A task that runs again and again."""

    api_version: Literal["galley.dev/v1alpha1"] = API_VERSION
    """Version of this resource's shape."""

    kind: Literal["TaskSchedule"] = "TaskSchedule"
    """The kind of this resource."""

    metadata: Metadata
    """Name and namespace of the schedule; the name, with the time of the tick, is the id of each task."""

    spec: TaskScheduleSpec
    """What runs, and when."""

    @model_validator(mode="after")
    def _name_fits(self) -> "TaskSchedule":
        if len(self.metadata.name) > NAME_LENGTH:
            raise refusal(
                f"has more than {NAME_LENGTH} characters",
                "shorten it, since the ids of its tasks add the time", "metadata", "name",
            )  # fmt: skip
        return self
