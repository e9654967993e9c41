"""Hooks: functions a module wants run when a process of handlers starts, and when it ends in order."""

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

Hook = TypeVar("Hook", bound=Callable[[], Any])


class Hooks:
    """The hooks that imported modules have declared, in the order they were declared in."""

    def __init__(self) -> None:
        self.start: list[Callable[[], Any]] = []
        self.stop: list[Callable[[], Any]] = []


HOOKS: Final = Hooks()
"""Where `on_start` and `on_stop` put functions: one per process, as modules are."""


def on_start(function: Hook) -> Hook:
    """Run a function in each process of handlers, after its modules are imported and before its first task.

    This is the place to open what tasks of one process share: database connections, HTTP clients, a seeded
    random generator, a process pool. Hooks run in the order they are declared in. A plain function runs in
    every process of handlers, in its main thread. An `async def` function runs only in the process that runs
    `async def` handlers, in its event loop.

    A hook that raises keeps the worker from starting, with its traceback in the worker's log. Context
    variables a plain hook sets are seen by every task.

    Raises:
        TypeError: if the function requires arguments, or yields.
    """
    HOOKS.start.append(_without_arguments(function))
    return function


def on_stop(function: Hook) -> Hook:
    """Run a function when a process of handlers ends in order: a drain, scale-in, or recycling.

    Hooks run in reverse order, before `atexit` handlers and before open files are flushed; all of it
    together has 5 seconds. An exception is logged and the next hook runs. They do not run in a process that
    is killed because of a timeout, a cancel, or a lack of memory. A plain function runs in every process of
    handlers; an `async def` function only in the one that runs `async def` handlers, in its event loop.

    Raises:
        TypeError: if the function requires arguments, or yields.
    """
    HOOKS.stop.append(_without_arguments(function))
    return function


def _without_arguments(function: Hook) -> Hook:
    name = getattr(function, "__name__", function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"hook {name!r} is a generator, which a call does not run; use galley.on_start for what comes "
            "before, and galley.on_stop for what comes after"
        )
    required = [
        each
        for each, parameter in inspect.signature(function).parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    if required:
        raise TypeError(f"hook {name!r} is called without arguments, but requires {', '.join(required)}")
    return function
