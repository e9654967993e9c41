"""Handlers: the Python functions a queue's workers run."""

import inspect
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, ParamSpec, TypeVar, overload

from msgspec import Raw, Struct

from galley.envelope import encode_input
from galley.errors import InputInvalid, Invalid

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

DEFAULT_QUEUE: Final = "default"
_COLLECTING: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?", re.IGNORECASE | re.ASCII)


class HandlerNameInvalid(Invalid):
    """A handler's name cannot be told from text a task may carry."""

    reason = "HandlerNameInvalid"
    hint = "use letters, digits, '_', '-' and '.', at most 63 characters"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"handler name {name!r} is not allowed")


class HandlerExists(Invalid):
    """Two functions of one queue claim the same handler name."""

    reason = "HandlerExists"
    hint = "give one of them another name: @task(name=...)"

    def __init__(self, queue: str, name: str, first: str, second: str) -> None:
        self.queue, self.name, self.first, self.second = queue, name, first, second
        super().__init__(f"handler {name!r} of queue {queue!r} is both {first} and {second}")


class HandlersMissing(Invalid):
    """A queue has no handlers, so none of its tasks can run."""

    reason = "HandlersMissing"

    def __init__(self, queue: str, modules: str = "") -> None:
        self.queue, self.modules = queue, modules
        if not modules:
            super().__init__(
                f"queue {queue!r} has no handlers",
                "name modules in spec.worker.modules, or add spec.handlers.commands",
            )
            return
        super().__init__(
            f"queue {queue!r} has no handlers: {modules} imported, without a @task for this queue",
            f"put @task, or @task(queue={queue!r}), on a function of a module in spec.worker.modules; "
            "a function that names another queue is a handler of that one alone",
        )


class NonRetryable(Exception):
    """Raised by a handler, itself or a kind of it: no further attempt can end differently.

    The task is a dead letter at once, with this exception's name, message and traceback.
    """


class Call(Struct, Generic[R_co], frozen=True, gc=False):
    """A handler with its input: what `Client.submit` takes. `R_co` is what the result will be."""

    queue: str
    handler: str
    input: Raw

    def on(self, queue: str) -> "Call[R_co]":
        """Return the same call for another queue, for a handler that names none."""
        return Call(queue, self.handler, self.input)


def call(queue: str, handler: str, /, **arguments: Any) -> Call[Any]:
    """Return a call of a handler that is known by name alone, such as a command of the queue.

    Raises:
        InputInvalid: if the arguments cannot be said in JSON or are too large.
    """
    return Call(queue, handler, encode_input(handler, arguments))


class Handler(Generic[P, R]):
    """A registered function. Calling it runs it here; `call` makes the input for a worker to run it."""

    def __init__(self, function: Callable[P, R], queue: str | None, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise HandlerNameInvalid(name)
        self.function = function
        self.queue = DEFAULT_QUEUE if queue is None else queue
        self.any_queue = queue is None
        """Whether it names no queue: then each queue whose workers import its module runs it."""
        self.name = name
        self.signature = inspect.signature(function)
        self.is_async = inspect.iscoroutinefunction(function)
        self._by_name, self._required = _arguments(self.signature)
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, in this process."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<handler {self.queue}/{self.name}>"

    @overload
    def call(
        self: "Handler[P, Coroutine[Any, Any, R_co]]", /, *args: P.args, **kwargs: P.kwargs
    ) -> Call[R_co]: ...
    @overload
    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...
    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[Any]:
        """Return this handler with its input: the arguments as a JSON object, by name.

        Raises:
            InputInvalid: if the arguments do not fit the function, cannot be said in JSON, or are too large.
        """
        if not args and self._required <= kwargs.keys() <= self._by_name:
            return Call(self.queue, self.name, encode_input(self.name, kwargs))
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputInvalid(self.name, str(error), f"it takes {self.signature}") from None
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self.signature.parameters[name].kind
            if kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL):
                raise InputInvalid(
                    self.name, f"argument {name!r} has no name to travel by", "declare it by name"
                )
            named.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
        return Call(self.queue, self.name, encode_input(self.name, named))


def _arguments(signature: inspect.Signature) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of arguments that may be given by name, and of those that must be given at all."""
    named = [one for one in signature.parameters.values() if one.kind not in _COLLECTING]
    return (
        frozenset(one.name for one in named if one.kind is not inspect.Parameter.POSITIONAL_ONLY),
        frozenset(one.name for one in named if one.default is inspect.Parameter.empty),
    )


class Registry:
    """The handlers that imported modules have declared, by queue and name."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, str], Handler[Any, Any]] = {}

    def add(self, handler: Handler[Any, Any]) -> None:
        """Take in a handler; a reloaded module may declare its own again.

        Raises:
            HandlerExists: if another function has the name already.
        """
        known = self._handlers.setdefault((handler.queue, handler.name), handler)
        first, second = _place(known), _place(handler)
        if first != second:
            raise HandlerExists(handler.queue, handler.name, first, second)
        self._handlers[handler.queue, handler.name] = handler

    def of_queue(self, queue: str) -> dict[str, Handler[Any, Any]]:
        """Return the handlers a worker of the queue runs, by name.

        Those are the handlers of the queue and those that name no queue; of two with the same name, the one
        that names this queue.
        """
        found = {handler.name: handler for handler in self._handlers.values() if handler.any_queue}
        return found | {name: handler for (of, name), handler in self._handlers.items() if of == queue}

    def queues(self) -> tuple[str, ...]:
        """Return the names of the queues some handler was declared for, sorted."""
        return tuple(sorted({queue for queue, _ in self._handlers}))


def _place(handler: Handler[Any, Any]) -> str:
    return f"{handler.function.__module__}.{handler.function.__qualname__}"


REGISTRY: Final = Registry()
"""Where `@task` puts handlers: one per process, as modules are."""


@overload
def task(function: Callable[P, R], /) -> Handler[P, R]: ...
@overload
def task(
    *, queue: str | None = None, name: str | None = None
) -> Callable[[Callable[P, R]], Handler[P, R]]: ...
def task(
    function: Callable[P, R] | None = None, /, *, queue: str | None = None, name: str | None = None
) -> Handler[P, R] | Callable[[Callable[P, R]], Handler[P, R]]:
    """Make a function, plain or `async`, a handler that tasks of a queue may name.

    Args:
        function: the function, when used without brackets.
        queue: the queue whose workers run it. Left out, it belongs to each queue whose
            `spec.worker.modules` imports it, and its calls go to the queue `default` unless
            `Call.on` names another.
        name: what tasks call it; the function's own name by default.

    Raises:
        HandlerNameInvalid: if the name has characters a task may not carry.
        HandlerExists: if the queue has another handler of that name.
    """

    def register(function: Callable[P, R]) -> Handler[P, R]:
        handler = Handler(function, queue, name or function.__name__)
        REGISTRY.add(handler)
        return handler

    return register(function) if function is not None else register
