"""`crds/` and the chart's resource definitions: what an API server is told about our kinds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import yaml
from pydantic import BaseModel

from docs.generate.structural import Schema, matching, one_line, structural
from galley.bounds import NAME_PATTERN
from galley.resources import (
    API_VERSION,
    DeclaredStatus,
    DeclaredWorkflowStatus,
    Task,
    TaskQueue,
    TaskQueueStatus,
    TaskSchedule,
    TaskScheduleStatus,
    Topic,
    TopicStatus,
    Workflow,
)
from galley.resources.description import descriptions
from galley.resources.rule import VALIDATIONS, Rule
from galley.resources.task_schedule import NAME_RULE
from galley.resources.workflow import NAME_RULE as WORKFLOW_NAME_RULE

GROUP, VERSION = API_VERSION.split("/")

CATEGORY: Final = "galley"


class Column(NamedTuple):
    """A column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    says: str = ""
    wide: bool = False
    """Whether it is shown with `-o wide` alone."""


class Scale(NamedTuple):
    """Where `kubectl scale`, and what else scales, finds its numbers."""

    wanted: str
    present: str
    selector: str


@dataclass(frozen=True)
class Kind:
    """One of our kinds: its models, and how people see it."""

    model: type[BaseModel]
    status: type[BaseModel]
    plural: str
    short: str
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    scale: Scale | None = None
    rules: tuple[Rule, ...] = ()
    """Of the object as a whole."""

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{GROUP}_{self.plural}.yaml"


_SUCCEEDED: Final = '.status.conditions[?(@.type=="Succeeded")].{}'

_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date", "Time since creation.")

TASK_QUEUES: Final = Kind(
    TaskQueue,
    TaskQueueStatus,
    plural="taskqueues",
    short="tq",
    columns=(
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', says="Whether its tasks can run."),
        Column("Waiting", ".status.waiting", "integer", "Tasks that wait for a free slot."),
        Column("Running", ".status.inFlight", "integer", "Tasks that workers hold."),
        Column("Workers", ".status.workers.ready", "integer", "Workers that take tasks."),
        Column("Max", ".spec.scaling.maxWorkers", "integer", "Upper bound of the number of workers."),
        Column(
            "Scaling", ".status.scalingMode", says="`Automatic`, `Fixed` or `Paused` (see `scalingMode`)."
        ),
        _AGE,
        Column(
            "Later", ".status.later", "integer", "Tasks for a later time, or their next attempt.", wide=True
        ),
        Column("Dead", ".status.deadLetters", "integer", "Tasks that will not be tried again.", wide=True),
        Column(
            "Oldest", ".status.oldestWaitingTime", "date", "Longest time a task has been waiting.", wide=True
        ),
        Column("Why", ".status.scalingReason", says="Why it has the workers it has.", wide=True),
    ),
    scale=Scale(".spec.scaling.workers", ".status.workers.replicas", ".status.workers.selector"),
)

TASKS: Final = Kind(
    Task,
    DeclaredStatus,
    plural="tasks",
    short="tk",
    columns=(
        Column("Queue", ".spec.queueName", says="The queue whose workers run it."),
        Column("Handler", ".spec.handler", says="What runs."),
        Column("Phase", ".status.phase", says="Where it is in its life."),
        Column("Attempts", ".status.attempts", "integer", "Number of the last attempt."),
        _AGE,
        Column("Due", ".spec.notBefore", says="Its earliest start.", wide=True),
        Column("Lane", ".spec.priority", says="The lane it waits in.", wide=True),
        Column("Worker", ".status.worker", says="Pod of the last attempt.", wide=True),
        Column("Progress", ".status.progress.fraction", "number", "How far it is, from 0 to 1.", wide=True),
        Column("Note", ".status.progress.note", says="Text from its handler.", wide=True),
        Column("Reason", _SUCCEEDED.format("reason"), says="Why it is in its phase.", wide=True),
        Column("Message", _SUCCEEDED.format("message"), says="The same as a sentence.", wide=True),
    ),
    selectable=(".spec.queueName", ".status.phase"),
)

_READY: Final = '.status.conditions[?(@.type=="Ready")].{}'

TASK_SCHEDULES: Final = Kind(
    TaskSchedule,
    TaskScheduleStatus,
    plural="taskschedules",
    short="tsch",
    columns=(
        Column("Queue", ".spec.queueName", says="The queue whose workers run it."),
        Column("Handler", ".spec.handler", says="What runs."),
        Column("Cron", ".spec.cron", says="When it runs."),
        Column("Zone", ".spec.timeZone", says="Whose clocks that follows."),
        Column("State", _READY.format("reason"), says="`Active`, `Suspended`, `Ended`, or why not."),
        Column("Next", ".status.nextTime", says="When it runs next."),
        Column("Last", ".status.lastTime", "date", "Time since its last tick."),
        _AGE,
        Column("Fired", ".status.fired", "integer", "Ticks that fired.", wide=True),
        Column("Skipped", ".status.skipped", "integer", "Ticks that did not.", wide=True),
        Column("Task", ".status.lastTask", says="Id of the last task.", wide=True),
        Column("Message", _READY.format("message"), says="The state as a sentence.", wide=True),
    ),
    selectable=(".spec.queueName",),
    rules=(NAME_RULE,),
)

TOPICS: Final = Kind(
    Topic,
    TopicStatus,
    plural="topics",
    short="tpc",
    columns=(
        Column("State", _READY.format("reason"), says="`Active`, or why not."),
        Column("Queues", ".status.queues", "integer", "Queues that subscribe."),
        Column("Missed", ".status.missed", "integer", "Events that queues missed."),
        Column("Retention", ".spec.retention.seconds", "integer", "Seconds an event is kept."),
        _AGE,
        Column("Message", _READY.format("message"), says="The state as a sentence.", wide=True),
    ),
)

WORKFLOWS: Final = Kind(
    Workflow,
    DeclaredWorkflowStatus,
    plural="workflows",
    short="wf",
    columns=(
        Column("Phase", ".status.phase", says="Where it is in its life."),
        Column("Progress", ".status.progress", says="How many steps have ended, such as `3 of 7`."),
        _AGE,
        Column("Failed", ".status.failedStep", says="The step whose failure ended it.", wide=True),
        Column("Queue", ".status.queue", says="The queue that has its state.", wide=True),
        Column("Workflow", ".status.workflow", says="Its id.", wide=True),
        Column("Reason", _SUCCEEDED.format("reason"), says="Why it is in its phase.", wide=True),
        Column("Message", _SUCCEEDED.format("message"), says="The same as a sentence.", wide=True),
    ),
    selectable=(".status.phase",),
    rules=(WORKFLOW_NAME_RULE,),
)

KINDS: Final = (TASK_QUEUES, TASKS, TASK_SCHEDULES, TOPICS, WORKFLOWS)


def definition(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    name = kind.model.__name__
    selectable = (
        {"selectableFields": [{"jsonPath": path} for path in kind.selectable]} if kind.selectable else {}
    )
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": kind.plural,
                "singular": name.lower(),
                "shortNames": [kind.short],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                    **selectable,
                    "subresources": {"status": {}, **_scale(kind)},
                    "schema": {"openAPIV3Schema": _root(kind)},
                }
            ],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    wide = {"priority": 1} if column.wide else {}
    return {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.says,
        **wide,
    }


def _scale(kind: Kind) -> dict[str, Any]:
    if kind.scale is None:
        return {}
    return {
        "scale": {
            "specReplicasPath": kind.scale.wanted,
            "statusReplicasPath": kind.scale.present,
            "labelSelectorPath": kind.scale.selector,
        }
    }


def _root(kind: Kind) -> Schema:
    """Return a kind's schema; of its metadata, Kubernetes can validate only the name."""
    field = kind.model.model_fields["spec"]
    assert isinstance(field.annotation, type)
    described = {"description": one_line(descriptions(kind.model)["spec"])}
    spec = structural(field.annotation, defaults=True) | described
    return {
        "description": one_line(kind.model.__doc__ or ""),
        "type": "object",
        **({"required": ["spec"]} if field.is_required() else {}),
        "properties": {
            "spec": spec | ({} if field.is_required() else {"default": {}}),
            "status": structural(kind.status, defaults=False),
        },
        VALIDATIONS: [
            matching("self.metadata.name", NAME_PATTERN, "metadata.name: ").schema(),
            *(rule.schema() for rule in kind.rules),
        ],
    }


def manifest(kind: Kind) -> str:
    """Return a kind's definition as a file of its own."""
    return yaml.safe_dump(definition(kind), sort_keys=False, width=110, allow_unicode=True)


_KEEP: Final = """\
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""


def template(kind: Kind) -> str:
    """Return a kind's definition as a template of the chart, which may leave it out, or leave it behind."""
    text = manifest(kind)
    assert "{{" not in text, "Helm would read it as its own"
    head, rest = text.split("spec:\n", maxsplit=1)
    return f"{{{{- if .Values.crds.enabled }}}}\n{head}{_KEEP}spec:\n{rest}{{{{- end }}}}\n"


FILES: Final[dict[str, Callable[[], str]]] = {
    f"{folder}/{kind.file}": partial(make, kind)
    for kind in KINDS
    for folder, make in (("crds", manifest), ("charts/galley/templates/crds", template))
}
"""Each file that is made here, by its path in the project."""
