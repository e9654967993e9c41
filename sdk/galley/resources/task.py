"""Task: one unit of work, declared."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

from galley.bounds import INPUT_KEY_PATTERN, TIMEOUT_SECONDS, UNIQUE_SECONDS
from galley.envelope import encode_input
from galley.errors import InputInvalid
from galley.key import KEY_CHARACTERS
from galley.lanes import Lane
from galley.resources.meta import (
    API_VERSION,
    MOMENT_PATTERN,
    PATTERNS_IN_WORDS,
    HandlerName,
    Metadata,
    Name,
    Part,
    Whole,
    refusal,
)
from galley.resources.problem import shown
from galley.resources.rule import Rule, checked, quoted
from galley.resources.task_queue import Retry
from galley.unique import KEY_LIMIT

_RFC_3339: Final = re.compile(r"[1-9]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_MOMENT_IN_WORDS, _MOMENT_HINT = PATTERNS_IN_WORDS[MOMENT_PATTERN]


def _moment(value: Any) -> datetime:
    """Return a moment from its text; a time of day without an offset means another one everywhere."""
    if isinstance(value, str):
        match = _RFC_3339.fullmatch(value)
        if match is None:
            raise refusal(f"{value[:60]!r} is not {_MOMENT_IN_WORDS}", _MOMENT_HINT)
        try:
            value = datetime.fromisoformat(value)
            if value.utcoffset() is not None:
                value.astimezone(UTC)  # the last hours of 9999 may not be there in UTC
        except (ValueError, OverflowError) as error:
            raise refusal(f"{value!r} does not exist: {error}", _MOMENT_HINT) from None
    if not isinstance(value, datetime):
        raise refusal(f"must be a time, not {shown(value)}", _MOMENT_HINT)
    if value.utcoffset() is None:
        raise refusal(f"{value.isoformat()} has no offset, so it is another moment everywhere", _MOMENT_HINT)
    return value


_EXISTS: Final = Rule(
    f"!self.matches({quoted(MOMENT_PATTERN)}) || timestamp(self).getFullYear() > 0",  # it fails, or is true
    "does not exist; correct the day",
)

# A format would be refused before any rule, and without a word on the offset.
Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_moment),
    WithJsonSchema({
        "type": "string", "maxLength": 40, "pattern": MOMENT_PATTERN,
        **checked(_EXISTS),
    }),
]  # fmt: skip
"""A point in time with its offset from UTC."""


def _input_fits(value: JsonValue) -> JsonValue:
    try:
        encode_input("", value)
    except InputInvalid as error:
        raise refusal(error.problem, error.hint) from None
    return value


Input = Annotated[JsonValue, AfterValidator(_input_fits)]
"""The input of a handler, which has to fit into a message."""


class TaskUnique(Part):
    """Rules of a unique key: at most one task of a queue has it at a time."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                "!has(self.seconds) || !has(self.until) || self.until == 'finished'",
                "is given beside until: {{self.until}}; give one of them",
                ".seconds",
            )
        )
    )

    key: Annotated[str, Field(min_length=1, max_length=KEY_LIMIT // 4)] | None = None
    """The key, at most 256 characters; left out, it is made of the handler and its input. A key belongs to
    the queue, whatever the handler."""

    until: Literal["started", "finished"] = "finished"
    """How long the task has its key: until its first attempt begins, or until it has ended."""

    seconds: Annotated[Whole, Field(ge=UNIQUE_SECONDS.least, le=UNIQUE_SECONDS.most)] | None = None
    """Instead of `until`: seconds after the submission for which the task has its key, even after
    it has ended."""

    on_conflict: Literal["reject", "replace"] = "reject"
    """If another task has the key: `reject` fails this Task with the reason UniqueConflict; `replace` takes
    the place of the other task, if that has not begun."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "TaskUnique":
        if self.seconds is not None and self.until == "started":
            raise refusal("is given beside until: started", "give one of them", "seconds")
        return self


_KEY_IN_WORDS: Final = "begins with ${ and names no part of the input"
_KEY_HINT: Final = "write ${input.customer}, or $${ where the key itself begins with ${"


def _names_a_part(key: str) -> str:
    if key.startswith("${") and not re.fullmatch(INPUT_KEY_PATTERN.strip("^$"), key):
        raise refusal(_KEY_IN_WORDS, _KEY_HINT)
    return key


TaskKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=KEY_CHARACTERS,
        json_schema_extra=checked(
            Rule(
                f"!self.startsWith('${{') || self.matches({quoted(INPUT_KEY_PATTERN)})",
                f"{_KEY_IN_WORDS}; {_KEY_HINT}",
            )
        ),
    ),
    AfterValidator(_names_a_part),
]
"""The key of a Task: a text, or where its input has it."""


class TaskSpec(Part):
    """What is to be run, with what, and under which rules."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                "self == oldSelf",
                "a task stays as it was declared, since workers have it already; delete it, which cancels it "
                "if it has not ended, and declare another",
                reason="FieldValueForbidden",
            ),
            Rule(
                "!has(self.deadline) || !has(self.notBefore) "
                "|| timestamp(self.deadline) > timestamp(self.notBefore)",
                "is {{self.deadline}}, not after notBefore: {{self.notBefore}}; "
                "set a later deadline, or an earlier notBefore",
                ".deadline",
            ),
        )
    )

    queue_name: Name
    """Name of the TaskQueue, in the task's namespace, whose workers run this."""

    handler: HandlerName
    """Which handler of the queue runs: the name of a `@task` function or of a command."""

    input: Input = Field(default_factory=dict)
    """What the handler is given, at most 512 KiB as JSON; larger things are stored elsewhere and passed
    by their place. For a Python function an object with its arguments by name."""

    priority: Lane = Lane.NORMAL
    """The lane the task waits in; the queue must have it."""

    timeout_seconds: Annotated[Whole, Field(ge=TIMEOUT_SECONDS.least, le=TIMEOUT_SECONDS.most)] | None = None
    """Seconds one attempt may take before it is killed; the queue's when left out."""

    retry: Retry | None = None
    """What follows an attempt that failed. Replaces the queue's rules as a whole: a field left out
    here has its own default, not the queue's value."""

    not_before: Moment | None = None
    """Earliest time of the first attempt, in RFC 3339 with an offset. It waits in the broker and
    holds no slot."""

    deadline: Moment | None = None
    """Time, in RFC 3339 with an offset, from which on no attempt of the task starts, and a running one is
    stopped."""

    ttl_seconds_after_finished: Annotated[Whole, Field(ge=0, le=31_536_000)] | None = None
    """Seconds after its end at which the Task object is deleted; its record goes when the queue's
    retention says. Left out, the operator's default applies, which keeps failed Tasks longer, and never
    where Helm or a GitOps tool manages the object."""

    unique: TaskUnique | None = None
    """Its unique key; left out, other tasks do not concern it."""

    key: TaskKey | None = None
    """Tasks of one key, such as the name of a customer, take turns with those of other keys, and
    `limits.perKey` of the queue limits how many of them run at once. `${input.customer}` takes it from the
    input: a text or a whole number there; text that begins with `$${` loses its first character. It is not
    encrypted."""

    @model_validator(mode="after")
    def _times_in_order(self) -> "TaskSpec":
        if self.not_before and self.deadline and self.deadline <= self.not_before:
            raise refusal(
                f"is {self.deadline.isoformat()}, not after notBefore: {self.not_before.isoformat()}",
                "set a later deadline, or an earlier notBefore", "deadline",
            )  # fmt: skip
        return self


class Task(Part):
    """One unit of work, declared as an object."""

    api_version: Literal["galley.dev/v1alpha1"] = API_VERSION
    """Version of this resource's shape."""

    kind: Literal["Task"] = "Task"
    """The kind of this resource."""

    metadata: Metadata
    """Name and namespace of the task; the name is its id within the queue."""

    spec: TaskSpec
    """What is to be run."""
