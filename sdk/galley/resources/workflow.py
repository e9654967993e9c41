"""Workflow: tasks that belong together, declared as steps and what each depends on."""

import re
from typing import Annotated, Any, Final, Literal

from msgspec.json import encode as encoded
from pydantic import AwareDatetime, ConfigDict, Field, JsonValue, model_validator

from galley.bounds import NAME_PATTERN, TIMEOUT_SECONDS
from galley.calls import Call
from galley.envelope import encode_input
from galley.lanes import Lane
from galley.reference import INLINE_LIMIT
from galley.resources.condition import Condition
from galley.resources.declared_status import DeclaredFailure
from galley.resources.meta import API_VERSION, HandlerName, Metadata, Name, Part, Whole, refusal
from galley.resources.rule import Rule, checked, keyed_by
from galley.resources.task import Input
from galley.resources.task_queue import Retry
from galley.when import When
from galley.workflow.errors import WorkflowInvalid
from galley.workflow.plan import compiled
from galley.workflow.result import Partial, StepResult
from galley.workflow.shape import Graph
from galley.workflow.state import OnFailure

STEPS_MOST: Final = 1000
"""Steps a Workflow has at most: etcd keeps them in one object. Programs may submit larger ones."""

NAME_LENGTH: Final = 39
"""Characters of a name: the id of the workflow adds nine."""

DAY: Final = 24 * 3600
_MOST: Final = 2**53 - 1

_REFERENCE: Final = re.compile(
    r"\$\{steps\.(?P<step>[^.\[}]+)\.result(?P<path>(?:\.[A-Za-z_][A-Za-z0-9_-]*|\[\d{1,9}\])*)\}", re.ASCII
)
_PART: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_BEGINS: Final = "${"
_LITERAL: Final = "$${"

NAME_RULE: Final = Rule(
    f"size(self.metadata.name) <= {NAME_LENGTH}",
    f"metadata.name: has more than {NAME_LENGTH} characters; "
    "shorten it, since the ids of its tasks add to it",
)
"""What the API server checks of a whole Workflow."""


class WorkflowStep(Part):
    """One task of a Workflow, which is submitted once the steps before it have succeeded."""

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
    """Name of the step, unique in the Workflow."""

    queue_name: Name
    """Name of the TaskQueue, in the Workflow's namespace, whose workers run it."""

    handler: HandlerName
    """Which handler of the queue runs: the name of a `@task` function or of a command."""

    input: Input = Field(default_factory=dict)
    """What the handler is given, at most 256 KiB as JSON. An argument that is the text
    `${steps.NAME.result}` is the result of that step, and `${steps.NAME.result.size}` or
    `${steps.NAME.result[0]}` a part of it; the step then depends on it. Text that begins with `$${` loses its
    first character and is not looked at."""

    depends_on: tuple[Name, ...] = Field((), max_length=32)
    """Further steps that have to succeed before it begins."""

    priority: Lane = Lane.NORMAL
    """The lane its task waits in; the queue must have it."""

    timeout_seconds: Annotated[Whole, Field(ge=TIMEOUT_SECONDS.least, le=TIMEOUT_SECONDS.most)] | None = None
    """Seconds one attempt may take before it is killed; the queue's when left out."""

    retry: Retry | None = None
    """What follows an attempt that failed, as in a Task."""


class WorkflowSpec(Part):
    """The steps, and what a failure of one does to the others."""

    model_config = ConfigDict(
        json_schema_extra=checked(
            Rule(
                "self == oldSelf",
                "a workflow stays as it was declared, since it is under way; delete it, which cancels it if "
                "it has not ended, and declare another",
                reason="FieldValueForbidden",
            )
        )
    )

    steps: tuple[WorkflowStep, ...] = Field(
        min_length=1, max_length=STEPS_MOST, json_schema_extra=keyed_by("name")
    )
    """The steps, in any order. Those that depend on nothing begin at once."""

    on_failure: OnFailure = OnFailure.STOP
    """What follows when a step has failed for good: `stop` ends the workflow, `continue` goes on with the
    steps that do not depend on it, and `collect` also, with failures of last steps as parts of the result."""

    timeout_seconds: Whole = Field(DAY, ge=1, le=30 * DAY)
    """Seconds all of it may take; then steps fail with `DeadlineExceeded`."""

    ttl_seconds_after_finished: Annotated[Whole, Field(ge=0, le=31_536_000)] | None = None
    """Seconds after its end at which the Workflow object is deleted; never when left out."""

    @model_validator(mode="after")
    def _can_be_run(self) -> "WorkflowSpec":
        seen: set[str] = set()
        for at, step in enumerate(self.steps):
            if step.name in seen:
                raise refusal(f"has two steps {step.name!r}", "rename one of them", "steps", at, "name")
            seen.add(step.name)
        try:
            compiled(graph_of(self), collect=self.on_failure is OnFailure.COLLECT)
        except WorkflowInvalid as error:
            raise refusal(f"{error.where}: {error.problem}", error.hint, "steps") from None
        return self


class Workflow(Part):
    """Tasks that belong together: steps, each of which runs when those it depends on have succeeded."""

    api_version: Literal["galley.dev/v1alpha1"] = API_VERSION
    """Version of this resource's shape."""

    kind: Literal["Workflow"] = "Workflow"
    """The kind of this resource."""

    metadata: Metadata
    """Name and namespace of the workflow, which has its labels."""

    spec: WorkflowSpec
    """The steps."""

    @model_validator(mode="after")
    def _name_fits(self) -> "Workflow":
        if len(self.metadata.name) > NAME_LENGTH:
            raise refusal(
                f"has more than {NAME_LENGTH} characters", "shorten it, since the ids of its tasks add to it",
                "metadata", "name",
            )  # fmt: skip
        return self


class DeclaredWorkflowStatus(Part):
    """How far a Workflow has come, a few seconds old at most."""

    observed_generation: Whole | None = Field(None, ge=0, le=_MOST)
    """Generation of the Workflow that was looked at last."""

    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Cancelled"] | None = None
    """Where it is in its life, in one word."""

    conditions: tuple[Condition, ...] = Field((), max_length=8, json_schema_extra=keyed_by("type"))
    """`Succeeded` is Unknown until it has ended, then True or False. `Finished` is True once it has ended,
    however it did."""

    queue: str | None = Field(None, max_length=63)
    """The queue that has its state, which is that of its first step."""

    workflow: str | None = Field(None, max_length=63)
    """Its id; `galley workflow show QUEUE/ID` draws its steps."""

    progress: str | None = Field(None, max_length=32)
    """How many steps have ended, such as `3 of 7`."""

    steps: Whole | None = Field(None, ge=0, le=_MOST)
    """Number of its steps."""

    succeeded: Whole | None = Field(None, ge=0, le=_MOST)
    """Steps that succeeded."""

    failed: Whole | None = Field(None, ge=0, le=_MOST)
    """Steps that failed or were cancelled by hand."""

    skipped: Whole | None = Field(None, ge=0, le=_MOST)
    """Steps that do not run, since one they depend on did not succeed."""

    failed_step: str | None = Field(None, max_length=256)
    """The step whose failure ended it."""

    error: DeclaredFailure | None = None
    """Why it failed."""

    result: JsonValue = None
    """The results of its last steps by name, where that takes at most 16 KiB as JSON and is not encrypted."""

    start_time: AwareDatetime | None = None
    """When the broker had taken it in."""

    deadline: AwareDatetime | None = None
    """When its steps are not started any more."""

    completion_time: AwareDatetime | None = None
    """When it ended."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.phase in {"Succeeded", "Failed", "Cancelled"}


def graph_of(spec: WorkflowSpec) -> Graph:
    """Return the steps as a program would write them.

    Raises:
        WorkflowInvalid: a step is passed what there cannot be.
    """
    graph = Graph()
    for step in spec.steps:
        known, holes = _split(step)
        rules = When(
            timeout_seconds=None if step.timeout_seconds is None else float(step.timeout_seconds),
            retry=step.retry.policy() if step.retry else None,
        )
        content = encode_input(step.handler, known)
        if len(content) > INLINE_LIMIT:
            raise WorkflowInvalid(
                f"step {step.name!r}", f"has an input of {len(content)} bytes, the limit is {INLINE_LIMIT}",
                "have a step before it return the data: results may have 64 MiB",
            )  # fmt: skip
        call = Call[Any](
            step.queue_name, step.handler, content, lane=step.priority, rules=rules,
            partial=Partial(holes=holes) if holes else None,
        )  # fmt: skip
        graph.add(step.name, call, after=step.depends_on)
    return graph


def _split(step: WorkflowStep) -> tuple[JsonValue, tuple[tuple[str, StepResult], ...]]:
    """Return what of an input is known, and the arguments that are results of steps."""
    if not isinstance(step.input, dict):
        _refuse_inside(step, step.input)
        return step.input, ()
    known: dict[str, JsonValue] = {}
    holes: list[tuple[str, StepResult]] = []
    for name, value in step.input.items():
        if isinstance(value, str) and value.startswith(_BEGINS):
            holes.append((name, _reference(step, name, value)))
            continue
        if isinstance(value, str) and value.startswith(_LITERAL):
            known[name] = value[1:]
            continue
        _refuse_inside(step, value)
        known[name] = value
    return known, tuple(holes)


def _reference(step: WorkflowStep, name: str, text: str) -> StepResult:
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise WorkflowInvalid(
            f"step {step.name!r}", f"input {name!r} is {text[:80]!r}, which names no result",
            "write ${steps.NAME.result}, with .field or [0] after it for a part; $${ for the text itself",
        )  # fmt: skip
    path = tuple(field or int(index) for field, index in _PART.findall(match["path"]))
    return StepResult(match["step"], path)


def _refuse_inside(step: WorkflowStep, value: JsonValue) -> None:
    """Refuse a reference that would be passed on as text: only whole arguments are looked at."""
    if b"${steps." in encoded(value):
        raise WorkflowInvalid(
            f"step {step.name!r}", "has ${steps. inside an argument",
            "only an argument as a whole can be a result; have the handler take it as an argument of its own",
        )  # fmt: skip
