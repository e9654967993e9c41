"""`docs/reference/errors.md`: each error, what it means and what to do."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Final

from docs.generate import reasons
from galley.broker.errors import Distrust
from galley.cli.exit_code import exit_code_of
from galley.errors import GalleyError

PACKAGES: Final = {
    "galley": "For producers",
    "galley.cli": "On the command line",
    "galley.backup": "In backups",
    "galley_local": "In local mode",
    "galley_worker": "In a worker",
    "galley_gateway": "Over HTTP",
    "galley_operator": "In the control plane",
}
"""The packages that have errors of their own, in the order of the document, the most special name counts."""

_VALUES: Final[dict[str, Any]] = {
    "line": 7, "code": 503, "seconds": 30, "port": 4222, "pid": 4711,
    "present": 3, "wanted": 1, "removable": 0, "free": 100 * 1024**2, "needed": 200 * 1024**2,
    "enabled": ("high", "normal", "low"),
    "circle": ("QUEUE", "OTHER QUEUE"),
    "fields": ("spec.lanes", "spec.worker.concurrency"),
    "submitted": {}, "unknown": {}, "not_sent_from": 700,
    "distrust": Distrust.EXPIRED,
    "refused": {0: GalleyError("PROBLEM")},
    "redriven": ["ID"],
    "cancelled": ["ID"],
}  # fmt: skip
"""What stands for a parameter of a constructor that is not text; a text is its name in capitals."""


def error_classes() -> list[type[GalleyError]]:
    """Return all error classes of all packages, each parent before its children."""
    for name in dict.fromkeys(package.split(".")[0] for package in PACKAGES):
        root = importlib.import_module(name)
        for module in pkgutil.walk_packages(root.__path__, name + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    # An error may be of two kinds; it is still one error.
    found = dict.fromkeys(_with_descendants(GalleyError))
    return [each for each in found if _package(each) is not None]


def _with_descendants(kind: type[GalleyError]) -> Iterator[type[GalleyError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _with_descendants(child)


def _package(kind: type[GalleyError]) -> str | None:
    homes = [each for each in PACKAGES if kind.__module__ == each or kind.__module__.startswith(each + ".")]
    return max(homes, key=len, default=None)


def sample(kind: type[GalleyError]) -> GalleyError:
    """Return an error of the class, made with values that name themselves."""
    parameters = inspect.signature(kind).parameters.values()
    make: Callable[..., GalleyError] = kind  # each has parameters of its own
    return make(*(_value(each) for each in parameters if each.default is not None))


def _value(parameter: inspect.Parameter) -> object:
    if parameter.annotation is str:
        return parameter.name.upper().replace("_", " ")
    return _VALUES.get(parameter.name, 3)


def document() -> str:
    """Return the page."""
    parts = [
        "# Errors\n",
        "Every error has a **reason** (the headings below), a message that says what happened to what,",
        "and a **hint** that says what to do. On the command line these are the lines `error:` and `hint:`;",
        "in Python they are `str(error)` and `error.hint`. Catch an error by its class or a parent class.",
        "Words in capitals stand for actual values.\n",
    ]
    classes = [each for each in error_classes() if not each.__subclasses__()]
    for package, title in PACKAGES.items():
        own = sorted((each for each in classes if _package(each) == package), key=lambda each: each.reason)
        if own:
            parts.append(f"## {title}\n")
            parts.extend(_section(each) for each in own)
    return "\n".join([*parts, reasons.section()])


def _section(kind: type[GalleyError]) -> str:
    error = sample(kind)
    above = ", ".join(f"`{each.__name__}`" for each in kind.__mro__[1:] if issubclass(each, GalleyError))
    meaning = inspect.cleandoc(kind.__doc__ or "").replace("\n", " ")
    hint = error.hint
    what_to_do = {"": "Nothing: it was requested.", "HINT": "See the message."}.get(
        hint, f"{_begun(hint)}{'' if hint.endswith('?') else '.'}"
    )
    return (
        f"### {kind.reason}\n\n{meaning}\n\n"
        f"    {' '.join(str(error).split())}\n\n"
        f"- **What to do:** {what_to_do}\n"
        f"- **In Python:** `{kind.__module__}.{kind.__name__}`, a subclass of {above}\n"
        f"- **Exit code of `galley`:** {int(exit_code_of(error))}\n"
    )


def _begun(hint: str) -> str:
    """Return a hint as a sentence; one that begins with a command keeps it as it is typed."""
    return hint if hint.startswith(("galley ", "kubectl ", "helm ")) else f"{hint[:1].upper()}{hint[1:]}"
