"""Worker: what one worker of a queue is."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, field_validator

from galley.resources.meta import (
    MEMORY_PATTERN,
    Image,
    ModuleName,
    ObjectName,
    Part,
    Whole,
    refusal,
    refuse_repeats,
)
from galley.resources.pod_resources import amount
from galley.resources.pod_template import PodTemplate
from galley.resources.rule import Rule, checked, without_repeats


class Code(Part):
    """Where the modules of a worker come from, if not from its image."""

    config_map_name: ObjectName
    """ConfigMap, in the queue's namespace, whose entries are the files: `tasks.py` is the module `tasks`.
    For small files, as it holds 1 MiB at most; put larger ones into an image."""


class Recycle(Part):
    """When a process of handlers is replaced by a new one, so that what it leaks does not add up."""

    tasks: Annotated[Whole, Field(ge=1, le=1_000_000_000)] | None = None
    """Tasks a process runs before it is replaced. Without a limit by default."""

    memory: Annotated[str, Field(pattern=MEMORY_PATTERN, max_length=12)] | None = None
    """Resident memory above which a process is replaced once its tasks have ended: `512Mi`, `2G`. It is
    looked at after each task, so it bounds what leaks, not what one task takes. Left out, its size does
    not matter."""

    @property
    def memory_bytes(self) -> int | None:
        """The memory in bytes."""
        return None if self.memory is None else int(amount(self.memory))


class LogLevel(StrEnum):
    """Least severity that is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


_MODULES_NOT_FILES: Final = Rule(
    "self.all(module, !module.endsWith('.py'))",
    "'{{self.filter(module, module.endsWith('.py'))[0]}}' is the name of a file; write the module: "
    "{{self.filter(module, module.endsWith('.py'))[0].replace('.py', '')}}",
)


class Worker(Part):
    """What one worker of the queue is."""

    image: Image | None = None
    """Image that workers run: one made from Galley's worker image, with the handlers' code and all it
    needs. The operator's default, which has Python and Galley alone, when left out."""

    code: Code | None = None
    """Where the modules come from, if not from the image."""

    modules: tuple[ModuleName, ...] = Field(
        (), max_length=32, json_schema_extra=checked(_MODULES_NOT_FILES, without_repeats("module"))
    )
    """Python modules that workers import when they start, at most 32. Their `@task` functions are the
    queue's handlers, except those that name another queue. Written as in an import statement:
    `package.module`. Each process of handlers imports them for itself."""

    preload: tuple[ModuleName, ...] = Field(
        (), max_length=32, json_schema_extra=checked(_MODULES_NOT_FILES, without_repeats("module"))
    )
    """Modules imported once per worker, at most 32, before its processes are forked, which then share
    their memory and start faster. Only for modules that are safe to fork: connections and files they
    open are shared by all processes and mix up their data, threads they start exist in none of them
    (gRPC hangs), and random generators they seed give all processes the same numbers. Good candidates
    are large libraries; modules that connect to something are not."""

    recycle: Recycle = Recycle.model_construct()
    """When a process of handlers is replaced by a new one. No task is lost by it; `on_stop` hooks and
    `atexit` handlers run. By default a process stays as long as its worker."""

    log_level: LogLevel = LogLevel.INFO
    """Lowest level of `logging` records of handlers. `GALLEY_LOG_LEVEL` in the worker's
    environment takes precedence. A module that configures `logging` itself is not affected."""

    concurrency: Whole = Field(4, ge=1, le=256)
    """Slots of one worker: the attempts it runs at the same time. More for handlers that wait for
    others, about one per core for handlers that compute."""

    grace_period_seconds: Whole = Field(30, ge=1, le=3600)
    """Seconds a drained worker waits for its running attempts before it hands them back. What is
    handed back starts again elsewhere, which costs the work done so far but no attempt."""

    template: PodTemplate = PodTemplate.model_construct()
    """Additions to the workers' pods: resources, environment, placement."""

    @field_validator("modules", "preload")
    @classmethod
    def _modules_differ(cls, modules: tuple[str, ...]) -> tuple[str, ...]:
        for index, module in enumerate(modules):
            if module.endswith(".py"):
                raise refusal(
                    f"{module!r} is the name of a file", f"write the module: {module.removesuffix('.py')}",
                    index,
                )  # fmt: skip
        refuse_repeats(modules, "module")
        return modules
