"""Reads the files given to `galley dev` and checks them as a whole before anything starts."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from galley.resources import (
    DEFAULT_NAMESPACE,
    Metadata,
    PodTemplate,
    Task,
    TaskQueue,
    TaskSchedule,
    TaskScheduleSpec,
    TaskSpec,
    Topic,
    TopicSubscription,
    Workflow,
    WorkflowStep,
)
from galley.resources.manifest import Resource, read_files
from galley_local.errors import FilesUnusable
from galley_local.module import Module, check_not_hidden, file_of, read_module

MANIFESTS: Final = (".yaml", ".yml", ".json")

EXPECT: Final = "galley.dev/expect"
"""Annotation of a task that is expected to end in another phase than Succeeded, such as `Failed`."""


@dataclass(frozen=True)
class LocalQueue:
    """A queue to run on this machine."""

    resource: TaskQueue
    folder: Path
    """Working directory of its workers."""
    import_paths: tuple[Path, ...]
    source: str
    """The file that declares it."""
    declared: TaskQueue
    """The queue without the modules of Python files that were given for it."""
    given: tuple[Module, ...] = ()
    """Python files given for it."""

    @property
    def name(self) -> tuple[str, str]:
        """Its namespace and its name."""
        return self.resource.metadata.namespace, self.resource.metadata.name


@dataclass
class Plan:
    """Queues to run and tasks to submit."""

    queues: dict[tuple[str, str], LocalQueue] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)
    schedules: list[TaskSchedule] = field(default_factory=list)
    topics: list[Topic] = field(default_factory=list)
    workflows: list[Workflow] = field(default_factory=list)
    manifests: list[Path] = field(default_factory=list)
    """The manifest files that were read."""
    remarks: list[str] = field(default_factory=list)
    """Warnings about the files."""
    keys: dict[str, Path] = field(default_factory=dict)
    """Where the keys of each encrypted queue are, by the queue's name."""
    signing_keys: dict[str, Path] = field(default_factory=dict)
    """Where the keys are that sign requests of HTTP handlers, by the name of their Secret."""

    @property
    def namespace(self) -> str:
        """The default namespace of commands in other terminals."""
        return next((namespace for namespace, _ in self.queues), DEFAULT_NAMESPACE)

    @property
    def idle_fields(self) -> list[str]:
        """The fields in use that have an effect on a cluster only."""
        workers = [queue.resource.spec.worker for queue in self.queues.values()]
        in_use = {
            "worker.image": any(worker.image is not None for worker in workers),
            "worker.code": any(worker.code is not None for worker in workers),
            "worker.template": any(worker.template != PodTemplate() for worker in workers),
            "ttlSecondsAfterFinished": any(
                task.spec.ttl_seconds_after_finished is not None for task in self.tasks
            ),
        }
        return [name for name, used in in_use.items() if used]


async def read_plan(files: Sequence[Path], project: Path) -> Plan:
    """Return the queues and tasks of the files.

    Args:
        files: manifests, Python files, and folders of manifests.
        project: the folder `galley dev` was started in, which is searched for modules, too.

    Raises:
        ManifestInvalid: if a manifest is not valid.
        FilesUnusable: if a file cannot be used, or the files contradict each other.
    """
    plan = Plan()
    sources: dict[tuple[str, str, str], Path] = {}
    paths = list(dict.fromkeys(_expanded(files)))
    for path, resources in read_files(path for path in paths if path.suffix in MANIFESTS).items():
        _take_resources(plan, path, resources, project, sources)
        plan.manifests.append(path)
    for path in paths:
        if path.suffix == ".py":
            _take_module(plan, await read_module(path))
    _check_modules(plan)
    if not plan.queues:
        raise FilesUnusable(
            f"no queue is declared in {', '.join(map(str, files))}",
            "add a file with a TaskQueue, or a Python file with @task functions",
        )
    declared: list[Task | TaskSchedule] = [*plan.tasks, *plan.schedules]
    for each in declared:
        of = f"{each.kind} {each.spec.queue_name}"
        _check_queue(plan, each, sources[each.metadata.namespace, of, each.metadata.name])
    for workflow in plan.workflows:
        metadata = workflow.metadata
        _check_workflow(plan, workflow, sources[metadata.namespace, workflow.kind, metadata.name])
    for topic in plan.topics:
        _check_topic(plan, topic, sources[topic.metadata.namespace, topic.kind, topic.metadata.name])
    return plan


def _expanded(files: Iterable[Path]) -> Iterable[Path]:
    for path in files:
        if path.is_dir():
            found = sorted(each for each in path.iterdir() if each.suffix in MANIFESTS and each.is_file())
            if not found:
                raise FilesUnusable(f"the folder {path} has no manifests (*.yaml)", _files_in(path))
            yield from found
        elif path.suffix not in (*MANIFESTS, ".py"):
            raise FilesUnusable(
                f"{path} is neither a manifest nor a Python file", "give files that end in .yaml or .py"
            )
        elif not path.exists():
            raise FilesUnusable(f"there is no file {path}", "check the path")
        else:
            yield path


def _files_in(folder: Path) -> str:
    """Return advice for a folder without manifests."""
    for file in sorted(folder.glob("*.py")):
        with suppress(OSError):
            if b"@task" in file.read_bytes():
                return f"name its files with handlers: galley dev {shlex.quote(str(file))}"
    return "name the files with handlers or manifests: galley dev FILE..."


def _take_resources(
    plan: Plan,
    path: Path,
    resources: list[Resource],
    project: Path,
    sources: dict[tuple[str, str, str], Path],
) -> None:
    for resource in resources:
        metadata = resource.metadata
        # Tasks of different queues may have the same name; they are different tasks.
        of: str = "" if isinstance(resource, TaskQueue) else resource.kind
        if isinstance(resource, Task | TaskSchedule):
            of += f" {resource.spec.queue_name}"
        name = (metadata.namespace, of, metadata.name)
        if (first := sources.setdefault(name, path)) != path:
            raise FilesUnusable(
                f"{resource.kind} {metadata.name!r} is declared in {first} and in {path}",
                "rename or remove one of the two",
            )
        if isinstance(resource, Task):
            plan.tasks.append(resource)
        elif isinstance(resource, TaskSchedule):
            plan.schedules.append(resource)
        elif isinstance(resource, Topic):
            plan.topics.append(resource)
        elif isinstance(resource, Workflow):
            plan.workflows.append(resource)
        else:
            folder = path.resolve().parent
            queue = LocalQueue(resource, folder, tuple(dict.fromkeys((folder, project))), str(path), resource)
            plan.queues[queue.name] = queue


def _take_module(plan: Plan, module: Module) -> None:
    for name in module.handlers:
        known = plan.queues.get((plan.namespace, name))
        if known is None:
            others = {other.name[1]: _in_manifest(other) for other in plan.queues.values()}
            if remark := undeclared(module, name, others):
                plan.remarks.append(f"{remark} {name!r} runs with the defaults of a TaskQueue")
        folder = module.path.parent.resolve()
        queue = known
        if queue is None:
            resource = TaskQueue.model_validate({"metadata": {"name": name, "namespace": plan.namespace}})
            queue = LocalQueue(resource, folder, (), str(module.path), resource)
        _check_twins(queue, module)
        plan.queues[queue.name] = replace(
            queue,
            resource=_with_module(queue.resource, module.name),
            import_paths=tuple(dict.fromkeys((*queue.import_paths, *module.import_paths))),
            given=(*queue.given, module),
        )


def _in_manifest(queue: LocalQueue) -> bool:
    return Path(queue.source).suffix in MANIFESTS


def undeclared(module: Module, queue: str, known: Mapping[str, bool]) -> str:
    """Return a remark on a queue that is declared by `@task(queue=...)` alone, which may be a typing error.

    Args:
        module: whose handlers it has.
        queue: its name.
        known: the other queues, and whether a manifest declares them.

    Returns:
        An empty text if there is nothing to remark on.
    """
    meant = get_close_matches(queue, known, n=1, cutoff=0.75)
    if not meant and not any(known.values()):
        return ""
    handlers = ", ".join(module.handlers[queue])
    declared = [name for name, by_manifest in known.items() if by_manifest]
    question = f"did you mean {meant[0]!r}?" if meant else f"declared are {', '.join(declared)}."
    return f"{module.path} has {handlers} in queue {queue!r}, which is not declared anywhere else: {question}"


def _check_twins(queue: LocalQueue, module: Module) -> None:
    """Refuse two files that one worker would import by the same name: it imports only one of them."""
    for other in queue.given:
        for name in other.loaded.keys() & module.loaded.keys():
            first, second = other.loaded[name], module.loaded[name]
            if first != second:
                raise FilesUnusable(
                    f"queue {queue.name[1]!r}: {other.path} and {module.path} need different modules named "
                    f"{name!r}: {first} and {second}",
                    "rename one of them, or put the handlers of the two files into different queues: "
                    "@task(queue=...)",
                )


def _check_modules(plan: Plan) -> None:
    for queue in plan.queues.values():
        for name in queue.resource.spec.worker.modules:
            check_not_hidden(queue.source, name, queue.import_paths)
        for module in queue.given:
            found = file_of(module.name, queue.import_paths)
            if found is not None and module.path.exists() and not found.samefile(module.path):
                raise FilesUnusable(
                    f"workers of queue {queue.name[1]!r} would import {found} instead of {module.path}: "
                    f"both are the module {module.name!r}",
                    "rename one of the two",
                )


def _with_module(queue: TaskQueue, module: str) -> TaskQueue:
    worker = queue.spec.worker
    if module in worker.modules:
        return queue
    worker = worker.model_copy(update={"modules": (*worker.modules, module)})
    return queue.model_copy(update={"spec": queue.spec.model_copy(update={"worker": worker})})


def _check_queue(plan: Plan, task: Task | TaskSchedule, place: Path) -> None:
    what = "task" if isinstance(task, Task) else "schedule"
    _check_use(plan, task.metadata, task.spec, f"{place}: {what} {task.metadata.name!r}")


def _check_topic(plan: Plan, topic: Topic, place: Path) -> None:
    for each in topic.spec.subscriptions:
        what = f"{place}: subscription {each.name!r} of topic {topic.metadata.name!r}"
        _check_use(plan, topic.metadata, each, what)


def _check_workflow(plan: Plan, workflow: Workflow, place: Path) -> None:
    for step in workflow.spec.steps:
        what = f"{place}: step {step.name!r} of workflow {workflow.metadata.name!r}"
        _check_use(plan, workflow.metadata, step, what)


def _check_use(
    plan: Plan,
    metadata: Metadata,
    use: TaskSpec | TaskScheduleSpec | TopicSubscription | WorkflowStep,
    what: str,
) -> None:
    """Refuse what names a queue that is not declared, or a lane that its queue does not have."""
    queue = plan.queues.get((metadata.namespace, use.queue_name))
    if queue is None:
        known = ", ".join(name for _, name in plan.queues)
        raise FilesUnusable(
            f"{what} names queue {use.queue_name!r}, which no file here declares",
            f"add the file with its TaskQueue; declared are: {known}",
        )
    if use.priority not in queue.resource.spec.lanes:
        raise FilesUnusable(
            f"{what} asks for lane {use.priority.value!r}, which queue {use.queue_name!r} has not enabled",
            f"use one of {', '.join(queue.resource.spec.lanes)}, or add it to spec.lanes in {queue.source}",
        )
