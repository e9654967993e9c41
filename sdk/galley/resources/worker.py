"""Worker: what one worker of a queue is."""

from typing import Final

from pydantic import Field, field_validator

from galley.resources.meta import Image, ModuleName, ObjectName, Part, Whole, refusal, refuse_repeats
from galley.resources.pod_template import PodTemplate
from galley.resources.rule import Rule, checked, without_repeats


class Code(Part):
    """Where the modules of a worker come from, if not from its image."""

    config_map_name: ObjectName
    """ConfigMap, in the queue's namespace, whose entries are the files: `tasks.py` is the module `tasks`.
    For small things, as it holds 1 MiB at most; larger ones belong into an image."""


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
    `package.module`."""

    concurrency: Whole = Field(4, ge=1, le=256)
    """Slots of one worker: the attempts it runs at the same time. More for handlers that wait for
    others, about one per core for handlers that compute."""

    grace_period_seconds: Whole = Field(30, ge=1, le=3600)
    """Seconds a drained worker waits for its running attempts before it hands them back. What is
    handed back starts again elsewhere, which costs the work done so far but no attempt."""

    template: PodTemplate = PodTemplate()
    """What is added to the workers' pods: resources, environment, where they may run."""

    @field_validator("modules")
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
