"""Errors that keep a worker from starting.

    GalleyError
    └── WorkerError
        ├── ModuleImportFailed    a module of handlers cannot be imported
        ├── StartHookFailed       an on_start hook of a module raised
        ├── SettingsInvalid       its environment or its TaskQueue is not valid
        └── SigningKeysInvalid    the keys that sign its requests cannot be used

What goes wrong inside an attempt is not an error here: it is an Ending.
"""

from galley.errors import GalleyError


class WorkerError(GalleyError):
    """The worker cannot run."""

    reason = "WorkerError"


class ModuleImportFailed(WorkerError):
    """A module that declares handlers cannot be imported."""

    reason = "ModuleImportFailed"

    def __init__(self, module: str, place: str, problem: str, trace: str = "") -> None:
        self.module, self.place, self.problem, self.trace = module, place, problem, trace
        super().__init__(
            f"module {module!r} does not import: {place}: {problem}"
            if place
            else f"module {module!r} does not import: {problem}",
            f"try `python -c 'import {module}'` in the worker's image; "
            "spec.worker.modules and the import path must name it as Python does",
        )


class StartHookFailed(WorkerError):
    """A function that a module declares with `@galley.on_start` raised."""

    reason = "StartHookFailed"

    def __init__(self, hook: str, place: str, problem: str, trace: str = "") -> None:
        self.hook, self.place, self.problem, self.trace = hook, place, problem, trace
        at = f"{place}: " if place else ""
        super().__init__(
            f"on_start hook {hook} failed: {at}{problem}",
            "the worker starts once the hook returns; its log has the whole traceback",
        )


class SettingsInvalid(WorkerError):
    """The worker's settings are not valid."""

    reason = "SettingsInvalid"
    hint = "correct the worker's environment (GALLEY_...) or the TaskQueue it names"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"the worker's settings are wrong: {problem}")


class SigningKeysInvalid(WorkerError):
    """The keys that sign the requests of HTTP handlers cannot be used."""

    reason = "SigningKeysInvalid"
    hint = "each entry of the Secret is one key: whsec_ and 24 to 64 random bytes in base64"

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"the signing keys in {source} cannot be used: {problem}")
