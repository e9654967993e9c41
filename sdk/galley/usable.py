"""What `@task` accepts as a handler, and why it refuses the rest."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from galley.errors import HandlerUnusable

_SHOWN: Final = 80
_UNNAMED: Final = inspect.Parameter.POSITIONAL_ONLY
_NAMES_OF_SELF: Final = ("self", "cls")


class _Objection(NamedTuple):
    problem: str
    hint: str


def usable(function: Any, name: str | None = None) -> Callable[..., Any]:
    """Return what a worker calls for a function that `@task` was used on.

    Args:
        function: a function, a static method, or another callable.
        name: the name it was given.

    Raises:
        HandlerUnusable: if a worker could not call it with arguments by name, or could not store the result.
    """
    function = function.__func__ if isinstance(function, staticmethod) else function
    objection = _kind(function) or _signature(function)
    if objection is None and name is None and not isinstance(getattr(function, "__name__", None), str):
        objection = _Objection("it has no name of its own", "give it one: task(name=...)(function)")
    if objection is not None:
        raise HandlerUnusable(shown(function), *objection)
    made: Callable[..., Any] = function
    return made


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether calling it gives a coroutine, also where that is a callable object."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_code_of(function))


def signature_of(function: Callable[..., Any], *, eval_str: bool = False) -> inspect.Signature:
    """Return what a function takes; a partial has fewer arguments than the function it is named after.

    Raises:
        TypeError, ValueError, NameError: as `inspect.signature`.
    """
    follow = not isinstance(function, functools.partial)
    return inspect.signature(function, follow_wrapped=follow, eval_str=eval_str)


def _code_of(function: Any) -> Any:
    """Return the function that has the code: of a callable object its `__call__`."""
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    return getattr(type(function), "__call__", function)  # noqa: B004 - the method itself is wanted


def _kind(function: Any) -> _Objection | None:  # noqa: PLR0911 - one for each kind
    if isinstance(function, str):
        return _Objection("it is a text", f"name the queue or the handler: @task(queue={function!r})")
    if isinstance(function, type):
        return _Objection("it is a class", "put @task on a function that makes the object and uses it")
    if isinstance(function, classmethod | property):
        return _Objection(
            "it needs its class or object, which a task does not carry",
            "move it out of the class, or make it a static method",
        )
    if inspect.iscoroutine(function):
        return _Objection("it is a coroutine, the result of a call", "pass the function without calling it")
    if not callable(function):
        return _Objection("it cannot be called", "put @task on a function")
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each)
           for each in (function, _code_of(function))):  # fmt: skip
        return _Objection("it is a generator, and a task has one result", "return a list instead of yielding")
    if callable(getattr(function, "dispatch", None)) and hasattr(function, "registry"):
        return _Objection(
            "it chooses by the place of its first argument, and a task's arguments travel by name",
            "put @task on a function that calls it",
        )
    if getattr(function, "__globals__", {}).get("__name__") == "contextlib":
        return _Objection("it is a context manager", "put @task on a function that uses it in a with block")
    return None


def _signature(function: Callable[..., Any]) -> _Objection | None:
    try:
        parameters = list(signature_of(function).parameters.values())
    except (TypeError, ValueError):
        return _Objection("its signature is not known", "put @task on a Python function that calls it")
    unnamed = [each.name for each in parameters if each.kind is _UNNAMED and each.default is each.empty]
    if unnamed:
        return _Objection(
            f"argument {unnamed[0]!r} has no name to travel by, since it stands before the /",
            "remove the / from the signature, or put @task on a function that calls it",
        )
    first = parameters[0].name if parameters else ""
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    if (
        first in _NAMES_OF_SELF
        and owner
        and not owner.endswith("<locals>")
        and not inspect.ismethod(function)
    ):
        return _Objection(
            f"it is a method of {owner}, and a task does not carry the object for {first!r}",
            "move it out of the class, make it a static method, or use task(an_object.method)",
        )
    return None


def shown(function: object) -> str:
    """Return a function as messages name it."""
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        text = repr(function)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return f"{getattr(function, '__module__', None) or 'builtins'}.{name}"
