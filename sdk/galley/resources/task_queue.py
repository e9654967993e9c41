"""TaskQueue: one queue, its handlers, its workers and its limits."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from msgspec import UNSET
from pydantic import ConfigDict, Field, field_validator, model_validator

from galley.bounds import ATTEMPTS, BACKOFF_SECONDS, CRASHES, TIMEOUT_SECONDS
from galley.key import KEY_CHARACTERS, Rate
from galley.lanes import DEFAULT_LANES, HIGHEST_FIRST, Lane
from galley.resources.meta import (
    API_VERSION,
    TIME_OF_DAY_PATTERN,
    URL_PATTERN,
    Argument,
    Choice,
    HandlerName,
    Metadata,
    Name,
    Number,
    ObjectName,
    Part,
    Whole,
    refusal,
    refuse_repeats,
)
from galley.resources.queue_status import ScalingMode
from galley.resources.rule import Rule, checked, without_repeats
from galley.resources.worker import Worker
from galley.retry import RULES, WAITS, Backoff, FailureRule, RetryPolicy, Then


class InputAs(StrEnum):
    """How a command is given the input of a task."""

    STDIN = "stdin"
    """As JSON on its standard input."""
    ARGS = "args"
    """As further arguments, one for each entry of the input."""


_PROGRAM_IS_NAMED: Final = Rule(
    "size(self) == 0 || self[0].trim() != ''",
    "is empty, where the program's name should be; name the program to run",
)


class Command(Part):
    """A handler that is a program."""

    name: HandlerName
    """What tasks call this handler by: 1 to 63 letters, digits, `_`, `-` and `.`."""

    command: tuple[Argument, ...] = Field(
        min_length=1, max_length=64, json_schema_extra=checked(_PROGRAM_IS_NAMED)
    )
    """The program and its first arguments, 1 to 64 of at most 4096 characters each. No shell reads
    them, so that a task's input cannot become code."""

    input_as: InputAs = InputAs.STDIN
    """How the program gets a task's input: `stdin` writes it as JSON to standard input; `args` appends
    it to the command, and then it must be a list of texts and numbers."""

    @field_validator("command")
    @classmethod
    def _program_is_named(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if not command[0].strip():
            raise refusal("is empty, where the program's name should be", "name the program to run", 0)
        return command


class HttpHandler(Part):
    """A handler behind a URL: each task is POSTed there, and the answer is its result."""

    name: HandlerName
    """What tasks call this handler by: 1 to 63 letters, digits, `_`, `-` and `.`."""

    url: Annotated[str, Field(pattern=URL_PATTERN, max_length=2048)]
    """Where tasks are POSTed: `https://` or `http://` and a host, without a user, a password or a fragment.
    The requests are sent from the queue's workers, so they reach what its pods reach."""

    secret_name: ObjectName
    """Secret, in the queue's namespace, with the keys that sign the requests after Standard Webhooks. It
    needs the label `galley.dev/workers: allowed`. Each entry is a key, `whsec_` and 24 to 64 random bytes as
    base64, and each one signs, so that a key can be replaced. Workers notice a change within a minute."""


class Handlers(Part):
    """Handlers the queue declares beside the Python functions of its modules."""

    commands: tuple[Command, ...] = Field(
        (), max_length=64, json_schema_extra=checked(without_repeats("handler", "name"))
    )
    """Programs that tasks of this queue may name as their handler, at most 64."""

    http: tuple[HttpHandler, ...] = Field(
        (), max_length=64, json_schema_extra=checked(without_repeats("handler", "name"))
    )
    """URLs that tasks of this queue may name as their handler, at most 64: workers in any language."""

    @field_validator("commands", "http")
    @classmethod
    def _names_differ(cls, handlers: tuple[Any, ...]) -> tuple[Any, ...]:
        refuse_repeats([handler.name for handler in handlers], "handler", "name")
        return handlers

    @property
    def names(self) -> frozenset[str]:
        """Names of all of them."""
        commands, urls = self.commands, self.http
        return frozenset([*(each.name for each in commands), *(each.name for each in urls)])


class Weekday(StrEnum):
    """A day of the week."""

    MONDAY = "Mon"
    TUESDAY = "Tue"
    WEDNESDAY = "Wed"
    THURSDAY = "Thu"
    FRIDAY = "Fri"
    SATURDAY = "Sat"
    SUNDAY = "Sun"


_TimeOfDay = Annotated[str, Field(pattern=TIME_OF_DAY_PATTERN, max_length=5)]


class Minimum(Part):
    """Workers kept at some hours, such as business hours."""

    days: tuple[Weekday, ...] = Field(
        tuple(Weekday), min_length=1, max_length=7, json_schema_extra=checked(without_repeats("day"))
    )
    """Days on which the hours begin, of `Mon`, `Tue`, `Wed`, `Thu`, `Fri`, `Sat`, `Sun`; each by default."""

    start: _TimeOfDay
    """Time at which they begin, such as `08:00`."""

    end: _TimeOfDay
    """Time at which they end, such as `18:00`. One that is not after `start` is on the next day."""

    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    """Time zone of both, by its name in the IANA database."""

    min_workers: Whole = Field(ge=1, le=1000)
    """Workers kept in these hours, within `maxWorkers`."""

    @field_validator("days")
    @classmethod
    def _days_differ(cls, days: tuple[Weekday, ...]) -> tuple[Weekday, ...]:
        refuse_repeats(days, "day")
        return days

    @field_validator("time_zone")
    @classmethod
    def _zone_is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, LookupError):
            raise refusal(f"there is no time zone {name!r}", "use one such as Europe/Berlin or UTC") from None
        return name

    def holds(self, now: datetime) -> bool:
        """Return whether a time, which is timezone-aware, is within the hours."""
        local = now.astimezone(ZoneInfo(self.time_zone))
        names = tuple(Weekday)
        today, yesterday = names[local.weekday()], names[local.weekday() - 1]
        clock = local.strftime("%H:%M")
        if self.start < self.end:
            return today in self.days and self.start <= clock < self.end
        return (today in self.days and clock >= self.start) or (yesterday in self.days and clock < self.end)


class LaneScaling(Part):
    """What holds for the tasks of one lane."""

    name: Lane
    """The lane, one of `spec.lanes`."""

    target_wait_seconds: Annotated[Number, Field(ge=0, le=86_400)]
    """Seconds a task of this lane should wait at most, instead of the `targetWaitSeconds` of all. Tasks of
    higher lanes start before, so that they count, too."""


class Scaling(Part):
    """Between which bounds, and how patiently, the number of workers follows the work."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                "self.minWorkers <= self.maxWorkers",
                "minWorkers is {{self.minWorkers}}, above maxWorkers, which is {{self.maxWorkers}}; "
                "lower minWorkers, or set maxWorkers to {{self.minWorkers}} or more",
                ".minWorkers",
            ),
            Rule(
                "!has(self.workers) || self.workers <= self.maxWorkers",
                "is {{self.workers}}, above maxWorkers, which is {{self.maxWorkers}}; "
                "lower it, or set maxWorkers to {{self.workers}} or more",
                ".workers",
            ),
        )
    )

    min_workers: Whole = Field(0, ge=0, le=1000)
    """Workers kept while there is nothing to do. 0 costs nothing when idle; 1 saves the first task
    the start of a worker."""

    minimums: tuple[Minimum, ...] = Field((), max_length=8)
    """Hours at which more workers are kept, at most 8. Where several hold, the highest counts."""

    max_workers: Whole = Field(4, ge=1, le=1000)
    """Largest number of workers, which limits the cost of this queue."""

    idle_seconds: Annotated[Whole, Field(ge=0, le=86_400)] | None = None
    """Seconds for which fewer workers must have sufficed before any is let go, so that a pause
    between two bursts does not cost a start of all workers. Those that only a backlog needed go sooner: after
    half the time that a worker takes to start. Left out, these are 30 seconds, or the time that a worker
    takes to start if that is longer, and workers of a queue at rest go as soon as those of a backlog, or
    sooner, where its last pauses were mostly longer than twice a start, or 10 seconds."""

    target_wait_seconds: Annotated[Number, Field(ge=0, le=86_400)] | None = None
    """Seconds a task should wait for a slot at most: 95 of 100 start sooner, as far as `maxWorkers` allows.
    More saves workers, which then work a backlog off in that time. Left out, tasks that come steadily find a
    free slot, and a backlog is worked off in two thirds of the time a worker takes to start, or 5 seconds."""

    lanes: tuple[LaneScaling, ...] = Field(
        (), max_length=4, json_schema_extra=checked(without_repeats("lane", "name"))
    )
    """Lanes that have a target of their own, at most 4."""

    priority: Whole = Field(0, ge=-1000, le=1000)
    """Where workers are limited for all queues together (the chart's `budget`), a queue of a higher priority
    gets those it needs first, and takes them from others: idle ones first, then busy ones once what they
    run has ended. Does nothing without a budget."""

    weight: Whole = Field(1, ge=1, le=100)
    """Share of a budget among queues of the same priority: one of weight 2 gets twice as many workers as one
    of weight 1, if it needs them."""

    workers: Annotated[Whole, Field(ge=0, le=1000)] | None = None
    """Fixed number of workers; turns the autoscaler off, and 0 pauses the queue. `kubectl scale` and a
    HorizontalPodAutoscaler set it. Left out, the number follows the work. A manifest without it does not
    undo `kubectl scale`; set it to null with `kubectl patch`, as the queue's condition shows."""

    @field_validator("lanes")
    @classmethod
    def _lanes_differ(cls, lanes: tuple[LaneScaling, ...]) -> tuple[LaneScaling, ...]:
        refuse_repeats([lane.name for lane in lanes], "lane", "name")
        return lanes

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Scaling":
        if self.min_workers > self.max_workers:
            at = "maxWorkers" if "max_workers" in self.model_fields_set else "minWorkers"
            raise refusal(
                f"minWorkers is {self.min_workers}, above maxWorkers, which is {self.max_workers}",
                f"lower minWorkers, or set maxWorkers to {self.min_workers} or more", at,
            )  # fmt: skip
        if self.workers is not None and self.workers > self.max_workers:
            raise refusal(
                f"is {self.workers}, above maxWorkers, which is {self.max_workers}",
                f"lower it, or set maxWorkers to {self.workers} or more", "workers",
            )  # fmt: skip
        return self

    @property
    def mode(self) -> ScalingMode:
        """What decides on the number of workers."""
        if self.workers is None:
            return ScalingMode.AUTOMATIC
        return ScalingMode.FIXED if self.workers else ScalingMode.PAUSED

    @property
    def fewest(self) -> int:
        """Workers there are when nothing waits."""
        return self.min_workers if self.workers is None else self.workers

    @property
    def most(self) -> int:
        """Workers there are when much waits."""
        return self.max_workers if self.workers is None else self.workers


_Backoff = Annotated[Number, Field(ge=BACKOFF_SECONDS.least, le=BACKOFF_SECONDS.most)]


class RetryRule(Part):
    """What follows from particular failures."""

    failures: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        min_length=1, max_length=RULES
    )
    """Exception classes, by name or with their module (`ValueError`, `requests.exceptions.HTTPError`), which
    stand for their subclasses, too; `exit 3` for an exit code; `http 503` for the status of an HTTP handler;
    or a reason: `TimedOut`, `Crashed`."""

    then: Then
    """`retry`; `fail`, a dead letter at once; or `snooze`, the same attempt again later at no cost."""

    after_seconds: _Backoff | None = None
    """Seconds until the task runs again; the policy's wait if left out. Not for `fail`."""

    @model_validator(mode="after")
    def _pauses_before_something(self) -> "RetryRule":
        if self.then is Then.FAIL and self.after_seconds is not None:
            raise refusal("is given with then: fail", "leave afterSeconds out", "afterSeconds")
        return self

    def rule(self) -> FailureRule:
        """Return the rule as it travels with a task."""
        return FailureRule(self.failures, self.then, self.after_seconds)


# In the steps of a Workflow, which are a list, the API server fills in no defaults.
_BACKOFF: Final = "(has(self.backoffSeconds) ? self.backoffSeconds : 1.0)"
_MAX_BACKOFF: Final = "(has(self.maxBackoffSeconds) ? self.maxBackoffSeconds : 300.0)"


class Retry(Part):
    """How often, and how soon, a task that did not succeed is tried again."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                f"{_BACKOFF} <= {_MAX_BACKOFF}",
                f"backoffSeconds is {{{{{_BACKOFF}}}}}, above maxBackoffSeconds, which is "
                f"{{{{{_MAX_BACKOFF}}}}}; lower backoffSeconds, or set maxBackoffSeconds to "
                f"{{{{{_BACKOFF}}}}} or more",
                ".backoffSeconds",
            ),
            Rule(
                "!(has(self.backoff) && has(self.waitsSeconds))",
                "backoff is given with waitsSeconds, which takes its place; leave one of them out",
                ".backoff",
            ),
        )
    )

    attempts: Whole = Field(3, ge=ATTEMPTS.least, le=ATTEMPTS.most)
    """Attempts that may end in an error or a timeout before the task is a dead letter; 1 means no
    retry. Crashes are counted apart, preemptions not at all."""

    backoff_seconds: _Backoff = 1.0
    """Seconds the first wait lasts at most; each further one doubles. The wait is drawn between 0 and
    this bound, so that tasks that failed together do not come back together."""

    max_backoff_seconds: _Backoff = 300.0
    """Seconds at which the doubling of the waits stops."""

    crashes: Whole = Field(3, ge=CRASHES.least, le=CRASHES.most)
    """Times the process or the worker that runs the task may die before the task runs once more, alone on
    a worker. If that dies, too, the task is a dead letter. Few, because each costs other tasks a worker."""

    backoff: Backoff | None = None
    """How the wait grows with each error or crash: `exponential`, which doubles it and is meant if this is
    left out, `linear` or `constant`."""

    waits_seconds: tuple[_Backoff, ...] | None = Field(None, min_length=1, max_length=WAITS)
    """The waits themselves, one for each error or crash, instead of backoffSeconds; the last one repeats."""

    jitter: Annotated[Number, Field(ge=0, le=1)] | None = None
    """Share of each wait that is drawn at random, 0 to 1; 1 if left out."""

    rules: tuple[RetryRule, ...] | None = Field(None, max_length=RULES)
    """What follows from particular failures; the first rule that fits decides."""

    @model_validator(mode="after")
    def _waits_in_order(self) -> "Retry":
        if self.max_backoff_seconds < self.backoff_seconds:
            at = "maxBackoffSeconds" if "max_backoff_seconds" in self.model_fields_set else "backoffSeconds"
            raise refusal(
                f"backoffSeconds is {self.backoff_seconds:g}, "
                f"above maxBackoffSeconds, which is {self.max_backoff_seconds:g}",
                f"lower backoffSeconds, or set maxBackoffSeconds to {self.backoff_seconds:g} or more", at,
            )  # fmt: skip
        if self.backoff is not None and self.waits_seconds is not None:
            problem = "backoff is given with waitsSeconds, which takes its place"
            raise refusal(problem, "leave one of them out", "backoff")
        return self

    def policy(self) -> RetryPolicy:
        """Return the policy as it travels with a task."""
        return RetryPolicy(
            attempts=self.attempts,
            backoff_seconds=self.backoff_seconds,
            max_backoff_seconds=self.max_backoff_seconds,
            crashes=self.crashes,
            backoff=UNSET if self.backoff is None else self.backoff,
            waits_seconds=UNSET if self.waits_seconds is None else self.waits_seconds,
            jitter=UNSET if self.jitter is None else self.jitter,
            rules=UNSET if self.rules is None else tuple(rule.rule() for rule in self.rules),
        )


class StartRate(Part):
    """How many tasks may start in a time."""

    tasks: Whole = Field(ge=1, le=1_000_000)
    """Tasks that may start in `seconds`, 1 to 1,000,000."""

    seconds: Whole = Field(1, ge=1, le=86_400)
    """The time, 1 second to a day."""

    burst: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = None
    """Tasks that may start at once after a pause, 1 to 1,000,000; as many as `tasks` when left out. 1 spaces
    them evenly."""

    @property
    def rate(self) -> Rate:
        """As the worker keeps it."""
        return Rate(self.tasks, float(self.seconds), self.burst or self.tasks)


KeyWord = Annotated[str, Field(min_length=1, max_length=KEY_CHARACTERS)]
"""A key, as tasks have it."""


class KeyLimits(Part):
    """What holds for the tasks of each key of the queue, over all its workers."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                "!self.ordered || !has(self.concurrency) || self.concurrency == 1",
                "is {{self.concurrency}}, and tasks in order run one at a time; "
                "leave it out, or set ordered to false",
                ".concurrency",
            )
        )
    )

    concurrency: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    """Tasks of one key that run at once, 1 to 1000; the others wait without a slot. 1 makes the key that of a
    singleton. Left out, keys do not limit each other."""

    ordered: Choice = False
    """Whether the tasks of a key run one after the other in the order they were submitted to their lane. The
    next one starts once the one before has ended, all its retries included."""

    rate: StartRate | None = None
    """How many tasks of one key may start in a time; the others wait without a slot. A retry is a start, too,
    unless `ordered` is set. Left out, there is no such limit."""

    weights: dict[KeyWord, Annotated[Whole, Field(ge=1, le=100)]] = Field(
        default_factory=dict, max_length=200
    )
    """Shares of keys that are to have more than others, by key, 1 to 100: a key of weight 3 has three tasks
    started where another one has one. Keys that are not named have 1."""

    @property
    def waits_for(self) -> str:
        """What tasks of a key wait for beside a slot: `permit`, `rate` or `permit or rate`; else empty."""
        permit = ["permit"] if self.ordered or self.concurrency is not None else []
        return " or ".join([*permit, *(["rate"] if self.rate is not None else [])])

    @model_validator(mode="after")
    def _one_at_a_time(self) -> "KeyLimits":
        if self.ordered and self.concurrency not in (None, 1):
            raise refusal(
                f"is {self.concurrency}, and tasks in order run one at a time",
                "leave it out, or set ordered to false", "concurrency",
            )  # fmt: skip
        return self


class Limits(Part):
    """What the queue holds at most; further tasks are refused to their producers."""

    backlog: Whole = Field(100_000, ge=1, le=10_000_000)
    """Tasks, waiting and running, the queue holds before it refuses more. A full queue refuses
    tasks of its own producers only."""

    backlog_bytes: Whole = Field(256 * 1024**2, ge=1024**2, le=1024**4)
    """Bytes on disk those tasks may take, 1 MiB to 1 TiB: the bound of what large inputs cost."""

    later_bytes: Whole = Field(256 * 1024**2, ge=1024**2, le=1024**4)
    """Bytes on disk for tasks that wait for a later time, 1 MiB to 1 TiB. Delayed tasks take half of it at
    most, the rest is for retries. Delayed tasks beyond that wait in the backlog."""

    record_bytes: Whole = Field(256 * 1024**2, ge=1024**2, le=1024**4)
    """Bytes on disk for the records and results of tasks, 1 MiB to 1 TiB. When they are used up, the
    oldest are deleted, also before `retention.resultsSeconds`."""

    dead_letter_bytes: Whole = Field(64 * 1024**2, ge=1024**2, le=1024**4)
    """Bytes on disk for dead letters, 1 MiB to 1 TiB. When they are used up, failed tasks stay in the backlog
    until there is room: nothing is lost."""

    object_bytes: Whole = Field(256 * 1024**2, ge=1024**2, le=1024**4)
    """Bytes on disk for inputs and results above 256 KiB and for files, 1 MiB to 1 TiB. When they are used
    up, producers are refused, and tasks whose result does not fit are tried again."""

    output_bytes: Whole = Field(64 * 1024**2, ge=1024**2, le=1024**4)
    """Bytes on disk for the output, progress and checkpoints of tasks, 1 MiB to 1 TiB. When they are used up,
    the oldest are deleted."""

    workflow_bytes: Whole = Field(64 * 1024**2, ge=1024**2, le=1024**4)
    """Bytes on disk for the plans and the state of workflows, 1 MiB to 1 TiB. When 70 % are used up, further
    workflows are refused."""

    concurrency: Annotated[Whole, Field(ge=1, le=100_000)] | None = None
    """Tasks of the queue that run at once, over all its workers, 1 to 100,000. Others wait without a slot,
    and no workers are started for them. Left out, only the slots of the workers limit them."""

    rate: StartRate | None = None
    """How many tasks of the queue may start in a time, over all its workers; a retry is a start, too. Left
    out, there is no such limit."""

    per_key: KeyLimits | None = None
    """Limits of each key of its tasks (`submit(..., key=...)`). Left out, tasks of different keys take turns,
    and that is all."""


class Retention(Part):
    """How long the queue remembers."""

    results_seconds: Whole = Field(86_400, ge=3600, le=2_592_000)
    """Seconds a finished task's record and result are kept. At least an hour, because a late worker's
    stale result is only fenced off while the record exists; at most 30 days. Those of declared tasks on
    a cluster are kept for a day at least, for the operator to read."""

    dead_letters_seconds: Whole | None = Field(None, ge=3600, le=31_536_000)
    """Seconds a dead letter is kept, an hour to a year. Left out, none expires: each stays until it is
    dropped or redriven, up to `limits.deadLetterBytes`."""


class Plaintext(StrEnum):
    """What workers do with a task that is not encrypted, in a queue that is."""

    REFUSE = "Refuse"
    """It fails, since it is not from a holder of the keys."""
    ACCEPT = "Accept"
    """It runs."""


class Encryption(Part):
    """Encryption of what the queue's tasks carry, between producers and workers."""

    secret_name: ObjectName
    """Secret, in the queue's namespace, with the keys. It needs the label `galley.dev/workers: allowed`.
    Its entry `primary` is the id of the key that encrypts; each other entry is a key, 32 bytes as base64,
    named by its id. `galley keys new` makes one. Workers notice a change within about a minute."""

    plaintext: Plaintext = Plaintext.REFUSE
    """What workers do with tasks that are not encrypted: `Refuse` fails them, because only holders of the
    keys may submit; `Accept` runs them, for as long as tasks of before encryption wait."""


class RetryBudget(Part):
    """How many retries the queue's workers schedule, so that a broken dependency is no storm."""

    share: Annotated[Number, Field(ge=0, le=1)] = 0.2
    """Retries a worker may schedule for each attempt that ended there, 0 to 1. Those above are put off, and
    none is lost."""

    per_second: Annotated[Number, Field(ge=0.01, le=1000)] = 1.0
    """Retries a second that each worker may schedule in any case, 0.01 to 1,000. All workers together
    schedule so many times their number at most, and `share` of the attempts."""


class Circuit(Part):
    """When a worker stops taking tasks, since all of them fail."""

    failures: Whole = Field(20, ge=1, le=1000)
    """Attempts of one worker that fail one after the other, without a success between them, before it takes
    no tasks."""

    seconds: Whole = Field(30, ge=1, le=3600)
    """Seconds for which it takes no tasks. Then it takes one: if that succeeds it continues,
    else it waits again."""


class LifeEvents(Part):
    """Where workers publish what happens to the tasks of a queue."""

    topic: Name
    """Name of a Topic of the namespace. It gets an event when a task is submitted, starts, is retried,
    succeeds, fails or is cancelled by its worker. Tasks that come of such events have none."""


class TaskQueueSpec(Part):
    """The desired state of a queue."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                "!has(self.scaling) || !has(self.scaling.lanes) || "
                "self.scaling.lanes.all(each, has(self.lanes) && each.name in self.lanes)",
                "lane '{{self.scaling.lanes.filter(each, !(each.name in self.lanes))[0].name}}' is not in "
                "spec.lanes; add it there, or remove its target",
                ".scaling.lanes",
            )
        )
    )

    lanes: tuple[Lane, ...] = Field(
        DEFAULT_LANES, min_length=1, max_length=4, json_schema_extra=checked(without_repeats("lane"))
    )
    """Priority levels the queue has, of `critical`, `high`, `normal` and `low`. Tasks of a higher lane
    start first; `normal` and `low` keep a guaranteed share. Kept highest first, however written."""

    paused: Choice = False
    """Whether no task is started: workers end what runs and go, and tasks are still accepted. `galley pause`
    pauses a queue without its manifest."""

    worker: Worker = Worker.model_construct()
    """The workers: their code, their slots, their grace period."""

    handlers: Handlers = Handlers.model_construct()
    """Handlers beside the Python functions of the worker's modules."""

    scaling: Scaling = Scaling.model_construct()
    """How many workers there may be, and how soon they go."""

    retry_budget: RetryBudget | None = None
    """Limit of the retries that workers schedule; left out, there is none."""

    circuit: Circuit | None = None
    """When workers stop taking tasks, since all of them fail; left out, they do not."""

    life_events: LifeEvents | None = None
    """The topic of what happens to the tasks; left out, nothing is published."""

    retry: Retry = Retry.model_construct()
    """What follows an attempt that failed, unless the task says otherwise."""

    timeout_seconds: Whole = Field(300, ge=TIMEOUT_SECONDS.least, le=TIMEOUT_SECONDS.most)
    """Seconds one attempt may take before it is killed, unless the task says otherwise. It bounds how
    long a handler that hangs can hold a slot."""

    limits: Limits = Limits.model_construct()
    """How much may wait."""

    retention: Retention = Retention.model_construct()
    """How long results are kept."""

    encryption: Encryption | None = None
    """Encrypts inputs, results, error messages and tracebacks, so that the broker, its disk and backups hold
    none of them in the clear. Not encrypted when left out."""

    @model_validator(mode="after")
    def _targets_have_their_lane(self) -> "TaskQueueSpec":
        for index, lane in enumerate(self.scaling.lanes):
            if lane.name not in self.lanes:
                raise refusal(
                    f"lane {lane.name.value!r} is not in spec.lanes",
                    "add it there, or remove its target", "scaling", "lanes", index,
                )  # fmt: skip
        return self

    @property
    def scaled(self) -> Scaling:
        """The scaling that holds: a paused queue has no workers."""
        return self.scaling.model_copy(update={"workers": 0}) if self.paused else self.scaling

    @field_validator("lanes")
    @classmethod
    def _highest_first(cls, lanes: tuple[Lane, ...]) -> tuple[Lane, ...]:
        refuse_repeats(lanes, "lane")
        return tuple(sorted(lanes, key=HIGHEST_FIRST.index))


class TaskQueue(Part):
    """One queue, its handlers, its workers and its limits: one trust domain."""

    api_version: Literal["galley.dev/v1alpha1"] = API_VERSION
    """Version of this resource's shape."""

    kind: Literal["TaskQueue"] = "TaskQueue"
    """The kind of this resource."""

    metadata: Metadata
    """Name and namespace of the queue: tasks refer to it by name, from the same namespace."""

    spec: TaskQueueSpec = TaskQueueSpec.model_construct()
    """The desired state of the queue; each part has defaults that suit small tasks."""
