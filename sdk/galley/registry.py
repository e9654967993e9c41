"""The handlers of this process, by queue and name, and where each was declared."""

import inspect
import sys
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from galley.errors import HandlerExists

if TYPE_CHECKING:
    from galley.handler import Handler

_PLAIN_VALUES: Final = (str, bytes, int, float, bool, type(None))


class Site(NamedTuple):
    """Where a handler was declared: the line that applied `@task`, or called `task`."""

    file: str
    line: int
    body: CodeType | None
    """The code of the module, or notebook cell, that was being executed; None if a function declared it
    later. Each import, reload and cell has its own, so two handlers of one body are two functions."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def declared_at() -> Site:
    """Return the place where the nearest caller outside the module of the caller is."""
    frame = sys._getframe(1)  # noqa: SLF001 - the only way to learn the line
    own = frame.f_globals
    while frame.f_globals is own and frame.f_back is not None:
        frame = frame.f_back
    file, line, module = frame.f_code.co_filename, frame.f_lineno, frame.f_globals
    outer = frame
    while outer.f_code.co_flags & inspect.CO_OPTIMIZED or outer.f_locals is not outer.f_globals:
        if outer.f_back is None:
            return Site(file, line, None)
        outer = outer.f_back
    return Site(file, line, outer.f_code if outer.f_globals is module else None)


class Registry:
    """The handlers that imported modules have declared, by queue and name."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, str], Handler[Any, Any]] = {}

    def add(self, handler: "Handler[Any, Any]") -> None:
        """Add a handler. It may replace itself: the same function in a reloaded module or a notebook.

        Raises:
            HandlerExists: if another function has the name already.
        """
        key = handler.queue, handler.name
        known = self._handlers.setdefault(key, handler)
        if known is not handler and not _same_definition(known, handler):
            raise HandlerExists(*key, _place(known), _place(handler), _advice(known, handler))
        self._handlers[key] = handler

    def of_queue(self, queue: str) -> dict[str, "Handler[Any, Any]"]:
        """Return the handlers a worker of the queue runs, by name.

        Those are the handlers of the queue and those that name no queue; of two with the same name, the one
        that names this queue.
        """
        found = {handler.name: handler for handler in self._handlers.values() if handler.any_queue}
        return found | {name: handler for (of, name), handler in self._handlers.items() if of == queue}

    def queues(self) -> tuple[str, ...]:
        """Return the names of the queues some handler was declared for, sorted."""
        return tuple(sorted({queue for queue, _ in self._handlers}))


REGISTRY: Final = Registry()
"""Where `@task` puts handlers: one per process, as modules are."""


def _same_definition(old: "Handler[Any, Any]", new: "Handler[Any, Any]") -> bool:
    """Return whether `new` is the function of `old` defined again, and not another one of its name."""
    if old.function is new.function:
        return True
    if old.__module__ != new.__module__:
        # One file imported under two names, such as `__main__` and its own.
        source = _source(old.function)
        return source is not None and source == _source(new.function)
    if _identity(old.function) != _identity(new.function):
        return False
    if old.site.body is None or new.site.body is None:
        # Declared by a function that ran again: the same code is the same function.
        return _code(old.function) is _code(new.function)
    if old.site.body is not new.site.body:
        return True
    # A notebook may execute one compiled cell again.
    return old.site == new.site and not hasattr(sys.modules.get(new.__module__), "__file__")


def _identity(function: Callable[..., Any], depth: int = 4) -> tuple[object, ...]:
    """Return what tells a function from others of its module: its name, and what it closes over.

    The wrappers that a decorator without `functools.wraps` returns differ by the latter alone.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    cells = (getattr(function, "__closure__", None) or ()) if depth else ()
    return function.__module__, name, *(_captured(cell, depth - 1) for cell in cells)


def _captured(cell: Any, depth: int) -> object:
    try:
        value = cell.cell_contents
    except ValueError:  # not assigned yet
        return None
    if isinstance(value, _PLAIN_VALUES):
        return value
    if isinstance(getattr(value, "site", None), Site):  # a handler, whose name is not assigned at first
        return None
    return _identity(value, depth) if inspect.isfunction(value) else type(value).__qualname__


def _code(function: Callable[..., Any]) -> CodeType | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _source(function: Callable[..., Any]) -> tuple[str, int] | None:
    """Return file and line of a function; None if it is not from a file."""
    code = _code(function)
    if code is None or code.co_filename.startswith("<"):
        return None
    return code.co_filename, code.co_firstlineno


def _place(handler: "Handler[Any, Any]") -> str:
    name = getattr(handler.function, "__qualname__", type(handler.function).__qualname__)
    return f"{handler.__module__}.{name} ({handler.site})"


def _advice(first: "Handler[Any, Any]", second: "Handler[Any, Any]") -> str:
    if _code(first.function) is None or _code(first.function) is not _code(second.function):
        return ""
    return (
        "one decorator made both: use functools.wraps in it, so that each function keeps its own name, "
        "or give one another name: @task(name=...)"
    )
