"""What the files given to `galley dev` ask for, checked as a whole before anything starts."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from galley.resources import DEFAULT_NAMESPACE, PodTemplate, Task, TaskQueue, read_manifests
from galley_local.errors import FilesUnusable

MANIFESTS: Final = (".yaml", ".yml", ".json")

EXPECT: Final = "galley.dev/expect"
"""Annotation of a task that is meant to end in another phase than Succeeded, such as `Failed`."""

_IMPORT_SECONDS: Final = 30.0


@dataclass(frozen=True)
class LocalQueue:
    """A queue to be run here."""

    resource: TaskQueue
    folder: Path
    """Working folder of its workers."""
    import_paths: tuple[Path, ...]
    source: str
    """The file that asks for it."""

    @property
    def name(self) -> tuple[str, str]:
        """Its namespace and its name."""
        return self.resource.metadata.namespace, self.resource.metadata.name


@dataclass
class Plan:
    """Queues to run and tasks to submit."""

    queues: dict[tuple[str, str], LocalQueue] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """The namespace commands in other terminals mean when they name none."""
        return next((namespace for namespace, _ in self.queues), DEFAULT_NAMESPACE)

    @property
    def idle_fields(self) -> list[str]:
        """The fields in use that mean something to a cluster alone."""
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
    """Return what the files ask for.

    Args:
        files: manifests, Python files, and folders of manifests.
        project: the folder `galley dev` was started in; modules are looked for there, too.

    Raises:
        ManifestInvalid: if a manifest is not what its kind allows.
        FilesUnusable: if a file cannot be used, or the files do not fit together.
    """
    plan = Plan()
    sources: dict[tuple[str, str, str], Path] = {}
    paths = list(dict.fromkeys(_expanded(files)))
    for path in paths:
        if path.suffix in MANIFESTS:
            _take_manifests(plan, path, project, sources)
    for path in paths:
        if path.suffix == ".py":
            _take_module(plan, path, await _discover(path))
    if not plan.queues:
        raise FilesUnusable(
            f"no queue is declared in {', '.join(map(str, files))}",
            "add a file with a TaskQueue, or a Python file with @task functions",
        )
    for task in plan.tasks:
        _check_queue(plan, task, sources)
    return plan


def _expanded(files: Iterable[Path]) -> Iterable[Path]:
    for path in files:
        if path.is_dir():
            found = sorted(each for each in path.iterdir() if each.suffix in MANIFESTS and each.is_file())
            if not found:
                raise FilesUnusable(
                    f"the folder {path} has no manifests (*.yaml)", "name its files: galley dev FILE..."
                )
            yield from found
        elif path.suffix not in (*MANIFESTS, ".py"):
            raise FilesUnusable(
                f"{path} is neither a manifest nor a Python file", "give files that end in .yaml or .py"
            )
        elif not path.exists():
            raise FilesUnusable(f"there is no file {path}", "check the path")
        else:
            yield path


def _take_manifests(plan: Plan, path: Path, project: Path, sources: dict[tuple[str, str, str], Path]) -> None:
    for resource in read_manifests(path):
        metadata = resource.metadata
        # Tasks of two queues may have one name; then it is two tasks.
        of = resource.spec.queue_name if isinstance(resource, Task) else ""
        name = (metadata.namespace, of, metadata.name)
        if (first := sources.setdefault(name, path)) != path:
            raise FilesUnusable(
                f"{resource.kind} {metadata.name!r} stands in {first} and in {path}",
                "rename or remove one of the two",
            )
        if isinstance(resource, Task):
            plan.tasks.append(resource)
        else:
            folder = path.resolve().parent
            queue = LocalQueue(resource, folder, tuple(dict.fromkeys((folder, project))), str(path))
            plan.queues[queue.name] = queue


def _take_module(plan: Plan, path: Path, handlers: dict[str, list[str]]) -> None:
    if not handlers:
        raise FilesUnusable(
            f"{path} declares no handlers", "put @task on a function: from galley import task"
        )
    folder = path.resolve().parent
    for name in handlers:
        known = plan.queues.get((plan.namespace, name))
        queue = known or LocalQueue(_default_queue(plan.namespace, name, path), folder, (), str(path))
        plan.queues[queue.name] = replace(
            queue,
            resource=_with_module(queue.resource, path.stem),
            import_paths=tuple(dict.fromkeys((*queue.import_paths, folder))),
        )


def _default_queue(namespace: str, name: str, path: Path) -> TaskQueue:
    try:
        return TaskQueue.model_validate({"metadata": {"name": name, "namespace": namespace}})
    except ValidationError:
        raise FilesUnusable(
            f"{path}: @task(queue={name!r}) is not a name a queue may have",
            "use 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit",
        ) from None


def _with_module(queue: TaskQueue, module: str) -> TaskQueue:
    worker = queue.spec.worker
    if module in worker.modules:
        return queue
    worker = worker.model_copy(update={"modules": (*worker.modules, module)})
    return queue.model_copy(update={"spec": queue.spec.model_copy(update={"worker": worker})})


def _check_queue(plan: Plan, task: Task, sources: dict[tuple[str, str, str], Path]) -> None:
    metadata, spec = task.metadata, task.spec
    queue = plan.queues.get((metadata.namespace, spec.queue_name))
    place = sources[metadata.namespace, spec.queue_name, metadata.name]
    if queue is None:
        known = ", ".join(name for _, name in plan.queues)
        raise FilesUnusable(
            f"{place}: task {metadata.name!r} names queue {spec.queue_name!r}, which no file here declares",
            f"add the file with its TaskQueue; declared here: {known}",
        )
    if spec.priority not in queue.resource.spec.lanes:
        raise FilesUnusable(
            f"{place}: task {metadata.name!r} asks for lane {spec.priority.value!r}, "
            f"which queue {spec.queue_name!r} has not enabled",
            f"use one of {', '.join(queue.resource.spec.lanes)}, or add it to spec.lanes in {queue.source}",
        )


async def _discover(path: Path) -> dict[str, list[str]]:
    """Return the handlers a file declares, by queue.

    Raises:
        FilesUnusable: if the file does not import, or takes too long to.
    """
    if not path.stem.isidentifier():
        raise FilesUnusable(
            f"{path} cannot be imported: {path.stem!r} is no name of a module",
            "rename the file to letters, digits and _",
        )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "galley_local.discover", str(path),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_IMPORT_SECONDS):
            answer, _ = await process.communicate()
    except TimeoutError:
        problem = f"{path} does not import within {_IMPORT_SECONDS:g} s"
        raise FilesUnusable(problem, "do such work in a handler, not where a module is imported") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return _handlers(path, answer, process.returncode)


def _handlers(path: Path, answer: bytes, code: int | None) -> dict[str, list[str]]:
    try:
        found: dict[str, Any] = json.loads(answer)
    except ValueError:
        raise FilesUnusable(
            f"{path} ended the process that imported it (exit code {code})", "see `python FILE`"
        ) from None
    if "error" in found:
        hint = found["hint"] or f"try it: python {path}"
        raise FilesUnusable(f"{path} does not import: {found['error']}", hint)
    handlers: dict[str, list[str]] = found["queues"]
    return handlers
