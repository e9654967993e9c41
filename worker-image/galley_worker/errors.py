"""Everything that keeps a worker from working.

    GalleyError
    └── WorkerError
        ├── ModuleImportFailed    a module of handlers cannot be imported
        └── SettingsInvalid       its environment or its TaskQueue cannot be

What goes wrong inside an attempt is no error here: it is an Ending.
"""

from galley.errors import GalleyError


class WorkerError(GalleyError):
    """The worker cannot do its work."""

    reason = "WorkerError"


class ModuleImportFailed(WorkerError):
    """A module that declares handlers cannot be imported."""

    reason = "ModuleImportFailed"

    def describe(self, module: str, place: str, problem: str, trace: str = "") -> str:  # noqa: D102
        self.module, self.place, self.problem, self.trace = module, place, problem, trace
        self.hint = (
            f"try `python -c 'import {module}'` in the worker's image; "
            "spec.worker.modules and the import path must name it as Python does"
        )
        return f"module {module!r} does not import: {place}: {problem}" if place else (
            f"module {module!r} does not import: {problem}"
        )  # fmt: skip


class SettingsInvalid(WorkerError):
    """What the worker is told at its start cannot be."""

    reason = "SettingsInvalid"
    hint = "correct the worker's environment (GALLEY_...) or the TaskQueue it names"

    def describe(self, problem: str) -> str:  # noqa: D102
        self.problem = problem
        return f"the worker's settings are wrong: {problem}"
