"""Handlers: the Python functions a queue's workers run."""

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, overload

from msgspec.structs import replace

from galley import file
from galley.batching import Asked as Batches
from galley.batching import Batch, batch_of, only_parameter
from galley.cached import Cached, cached
from galley.calls import Call, check_handler_name, check_queue_name
from galley.envelope import encode_input
from galley.errors import (
    EventInvalid,
    InputInvalid,
    ScheduleInvalid,
    SubmissionInvalid,
)
from galley.key_source import Asked as KeyAsked
from galley.key_source import KeySource
from galley.lanes import Lane
from galley.reference import INLINE_LIMIT, LARGEST
from galley.registry import REGISTRY, declared_at
from galley.repeat import Repeat, repeat_of
from galley.retry import RetryPolicy
from galley.schedule import schedule_name_of
from galley.topic import Asked as Topics
from galley.topic import Subscribe, subscribes
from galley.typed import COLLECTING, Misfit, Signature
from galley.unique import Asked, asked
from galley.usable import is_async, shown, signature_of, usable
from galley.when import NO_RULES, When, timeout_of
from galley.workflow.result import Partial, StepResult, split

if TYPE_CHECKING:
    from galley.batching import BatchDecorator
    from galley.workflow.shape import Group

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
X = TypeVar("X")

DEFAULT_QUEUE: Final = "default"


class Handler(Generic[P, R_co]):
    """A registered function. Calling it runs it here; `call` makes the input for a worker to run it.

    It passes for the function: name, docstring, signature, annotations and other attributes are those of the
    function, `inspect.iscoroutinefunction` answers the same, and it is copied and pickled by reference.
    """

    def __init__(
        self, function: Callable[P, R_co], queue: str | None, name: str | None = None, rules: When = NO_RULES,
        repeat: Repeat | None = None,
    ) -> None:  # fmt: skip
        """Make a handler of a function.

        Args:
            function: what runs.
            queue: the queue whose workers run it; None for each that imports its module.
            name: what tasks call it; the function's own name by default.
            rules: lane, timeout, retries and labels of its tasks.
            repeat: when it runs by itself.

        Raises:
            HandlerUnusable, HandlerNameInvalid, QueueNameInvalid, ScheduleInvalid: as `task`.
        """
        if isinstance(function, Handler):  # for a second queue, or by a second name
            function = function.function
        self.function: Callable[P, R_co] = usable(function, name)
        self.site = declared_at()
        self.signature = signature_of(self.function)
        functools.update_wrapper(self, self.function, updated=())
        if not hasattr(self.function, "__module__"):
            self.__module__ = Path(self.site.file).stem
        self.queue = DEFAULT_QUEUE if queue is None else check_queue_name(queue)
        self.any_queue = queue is None
        """Whether it names no queue: then each queue whose workers import its module runs it."""
        self.name = check_handler_name(getattr(self.function, "__name__", "") if name is None else name)
        self.is_async = is_async(self.function)
        self._by_name, self._required = _arguments(self.signature)
        self.lane, self.timeout_seconds, self.retry = rules.lane, rules.timeout_seconds, rules.retry
        self.labels, self.unique = rules.labels, rules.unique or None
        self.store_result = True
        """Whether what it returns is kept."""
        self.cache: Cached | None = None
        """For how long its results are used again; None if they are not."""
        self.subscribes: tuple[Subscribe, ...] = ()
        """The topics whose events become its tasks."""
        self.batch: Batch | None = None
        """How many inputs it takes at once; None if each of its calls has one."""
        self.key: KeySource | None = None
        """What makes the keys of its calls; None if nothing does."""
        self.repeat = repeat
        if repeat is not None:
            self._check_repeated()

    def _check_repeated(self) -> None:
        schedule_name_of(self.name)
        if self._required:
            raise ScheduleInvalid(
                "cron", f"handler {self.name!r} needs arguments: {', '.join(sorted(self._required))}",
                "give them defaults, or use client.schedules.create(name, handler.call(...), cron)",
            )  # fmt: skip

    @functools.cached_property
    def types(self) -> Signature:
        """The annotated types; evaluated at the first use, since they may be defined below the function."""
        return Signature(self.function, batched=self.batch is not None)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function here, in this process."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<handler {self.queue}/{self.name}>"

    def __reduce__(self) -> str:
        # As functions are: by the place where the module has it.
        return getattr(self, "__qualname__", self.name)

    if not TYPE_CHECKING:  # to a type checker it has the attributes written here

        def __getattr__(self, name: str) -> Any:
            if name in {"function", "name"}:
                raise AttributeError(name)
            try:
                return getattr(self.function, name)
            except AttributeError:
                problem = (
                    f"handler {self.name!r} has no attribute {name!r}; submit it with "
                    f"client.submit({self.name}.call(...))"
                )
                raise AttributeError(problem, name=name, obj=self) from None

    @overload
    def call(self: "Handler[P, Coroutine[Any, Any, R]]", /, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...
    @overload
    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]: ...
    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[Any]:
        """Return this handler with its input: the arguments as a JSON object, by name.

        Raises:
            InputInvalid: if the arguments do not fit the function, are not JSON, or are too large.
        """
        if not args and self._required <= kwargs.keys() <= self._by_name:
            # The cheapest look there is, since each submit takes it.
            for value in kwargs.values():
                if type(value) is StepResult:
                    break
            else:
                return self._call(kwargs)
        bound = self._bound(args, kwargs)
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self.signature.parameters[name].kind
            if kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL):
                raise InputInvalid(
                    self.name, f"argument {name!r} has no name to travel by", "declare it by name"
                )
            named.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
        known, holes = split(named)
        missing = tuple(name for name in self.signature.parameters if name in self._required - named.keys())
        call = self._call(known, partial=bool(missing or holes))
        return call if not (missing or holes) else replace(call, partial=Partial(missing, holes))

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """Return which parameter has which argument; what is missing, a step of a workflow may be given."""
        try:
            return self.signature.bind(*args, **kwargs)
        except TypeError as error:
            problem = str(error)
        try:
            return self.signature.bind_partial(*args, **kwargs)
        except TypeError:
            raise InputInvalid(self.name, problem, f"it takes {self.signature}") from None

    def step(self, /, *args: Any, **kwargs: Any) -> Call[Any]:
        """Return this handler as a step of a workflow: as `call`, for type checkers without its signature.

        Arguments may be results of other steps, and the first that is needed and left out is the result of
        what comes before it in a chain.

        Raises:
            InputInvalid: if the arguments do not fit the function, are not JSON, or are too large.
        """
        return self.call(*args, **kwargs)

    def map(self, items: "Iterable[Any]", *, collect: bool = False) -> "Group":
        """Return a group with one call for each item, which is passed as the first argument.

        Args:
            items: of any number up to 10,000.
            collect: whether the failure of a member is a part of the result; see `galley.group`.

        Raises:
            InputInvalid: if an item does not fit the function.
            WorkflowInvalid: there is no item, or there are more than 10,000.
        """
        from galley.workflow.shape import group  # noqa: PLC0415 - it is made of handlers

        return group((self.step(item) for item in items), collect=collect)

    def _call(self, named: dict[str, Any], *, partial: bool = False) -> Call[Any]:
        before = file.encoded
        try:
            encoded = encode_input(self.name, self.types.encode(named, partial=partial), LARGEST)
        except Misfit as error:
            raise InputInvalid(self.name, str(error), f"it takes {self.signature}") from None
        files = () if file.encoded == before else file.files_in(encoded)
        large = len(encoded) > INLINE_LIMIT
        result = self.types.result if self.store_result else None
        if self.key is None:
            return Call(
                self.queue, self.name, encoded, result, self.lane, self.unique, labels=self.labels,
                files=files, large=large, cache=self.cache,
            )  # fmt: skip
        keyless = self.key.lacking(named)
        return Call(
            self.queue, self.name, encoded, result, self.lane, self.unique, labels=self.labels,
            files=files, large=large, cache=self.cache, key=None if keyless else self.key.of(named),
            keyless=keyless,
        )  # fmt: skip


class BatchHandler(Handler[[X], R_co]):
    """A registered function that takes a list: the inputs of several tasks.

    Calling it with a list runs it here; `call` makes the input of one task out of one element.
    """

    def take(self, rules: Batch) -> None:
        """Take inputs at once by these rules.

        Raises:
            HandlerUnusable: the function does not take one list.
        """
        self.item = only_parameter(self.function, shown(self.function))
        self.batch = rules
        self.subscribes = tuple(
            replace(each, input={self.item: "data"}) if each.input == "data" else each
            for each in self.subscribes
        )

    if TYPE_CHECKING:

        def __call__(self, items: list[X], /) -> Any:  # type: ignore[override]
            """Run the function here, in this process."""


def check_call(given: object) -> None:
    """Check that what is to be submitted is a call of a handler.

    Raises:
        SubmissionInvalid: it is something else, such as the handler itself or what it returned.
    """
    if isinstance(given, Call):
        return
    from galley.workflow.shape import Shape  # noqa: PLC0415 - it is made of handlers

    if isinstance(given, Handler):
        problem, hint = f"{given!r} is the handler", f"pass {given.name}.call(...), with its arguments"
    elif inspect.isroutine(given):
        name = getattr(given, "__qualname__", repr(given))
        problem = f"{name} is no handler"
        hint = "decorate the function with @galley.task, and pass function.call(...)"
    elif inspect.iscoroutine(given):
        given.close()  # it would warn that it was not awaited
        problem = f"it is a coroutine of {given.__qualname__}"
        hint = "pass handler.call(...): handler(...) runs it in this process"
    elif isinstance(given, Shape):
        problem = f"a workflow ({type(given).__name__}) is submitted by itself, and not by galley.testing"
        hint = (
            "pass it to submit() of a galley.Client; in tests, of the one that the fixture galley_queue makes"
        )
    else:
        problem = f"it is of type {type(given).__name__}"
        hint = "pass handler.call(...): handler(...) runs it in this process"
    raise SubmissionInvalid("call", problem, hint)


def _arguments(signature: inspect.Signature) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of arguments that may be given by name, and of those that must be given at all."""
    named = [one for one in signature.parameters.values() if one.kind not in COLLECTING]
    return (
        frozenset(one.name for one in named if one.kind is not inspect.Parameter.POSITIONAL_ONLY),
        frozenset(one.name for one in named if one.default is inspect.Parameter.empty),
    )


@overload
def task(function: Callable[P, R], /) -> Handler[P, R]: ...
@overload
def task(
    *, queue: str | None = None, name: str | None = None, lane: Lane | str | None = None,
    timeout: float | timedelta | None = None, timeout_seconds: float | None = None,
    retry: RetryPolicy | None = None,
    labels: dict[str, str] | None = None, unique: Asked | None = None,
    cron: str | Repeat | None = None, time_zone: str | None = None, store_result: bool = True,
    cache: float | None = None, version: str = "",
    subscribe: Topics | None = None, batch: None = None, key: KeyAsked | None = None,
) -> Callable[[Callable[P, R]], Handler[P, R]]: ...  # fmt: skip
@overload
def task(
    *, batch: Batches, queue: str | None = None, name: str | None = None, lane: Lane | str | None = None,
    timeout: float | timedelta | None = None, timeout_seconds: float | None = None,
    retry: RetryPolicy | None = None,
    labels: dict[str, str] | None = None, unique: Asked | None = None,
    store_result: bool = True, cache: float | None = None, version: str = "",
    subscribe: Topics | None = None, key: KeyAsked | None = None,
) -> "BatchDecorator": ...  # fmt: skip
def task(
    function: Callable[P, R] | None = None, /, *, queue: str | None = None, name: str | None = None,
    lane: Lane | str | None = None, timeout: float | timedelta | None = None,
    timeout_seconds: float | None = None, retry: RetryPolicy | None = None,
    labels: dict[str, str] | None = None,
    cron: str | Repeat | None = None, time_zone: str | None = None,
    unique: Asked | None = None, store_result: bool = True,
    cache: float | None = None, version: str = "",
    subscribe: Topics | None = None, batch: Batches | None = None, key: KeyAsked | None = None,
) -> Any:  # fmt: skip
    """Register a function, plain or `async`, as a handler of tasks.

    Args:
        function: the function, when used without brackets.
        queue: the queue whose workers run it. Left out, it belongs to each queue whose
            `spec.worker.modules` imports it, and its calls go to the queue `default` unless
            `Call.on` names another.
        name: what tasks call it; the function's own name by default.
        lane: lane of calls made with `handler.call`; a manifest, and `galley submit`, name theirs.
        timeout: time one attempt of its tasks may take, in seconds or as a `timedelta`.
        timeout_seconds: the same in seconds, by the name it has in `galley.When` and in a manifest.
        retry: how often, and after which pauses, its tasks are tried again.
        labels: words to find its tasks by, for calls made with `handler.call`; `Call.options` and `submit`
            add to them.
        cron: when it runs by itself, without arguments: a line such as `0 3 * * *`, `@daily` or `@every 10m`;
            or a `galley.Repeat`, which has all rules. Each worker that starts makes or changes the schedule,
            which has the name of the handler (with `-` for `.`).
        time_zone: the zone whose clocks the cron line follows; UTC by default.
        unique: at most one task of calls made with `handler.call` has its key at a time; see
            `galley.Unique`.
        store_result: whether what it returns is kept. If not, `result()` returns None once the task has
            succeeded, and nothing can get the result later; files it returns are not stored either.
        cache: seconds for which a result is used again, at most: calls with equal input, in the same period
            of so many seconds, are one task. It needs `retention.resultsSeconds` of as much.
        version: of the handler's code; another one does not use earlier results.
        subscribe: topics whose events become tasks of this handler: a name, a `galley.Subscribe` with a
            filter and an input mapping, or several of them. The queue must be named.
        batch: how many tasks it takes at once: a number, or a `galley.Batch`. The function has one
            parameter, a list, and each task one element of it; it returns a list with a result for each, in
            which an exception stands for a failure, or None.
        key: the key of calls made with `handler.call`, unless `options` or `submit` gives one: the name of an
            argument, such as `customer_id`; a field of one, such as `order.customer`; or a function that
            takes arguments by their names and returns the key. Its value is a text or a whole number; with
            None the task has no key.

    `timeout` and `retry` hold for all its tasks, wherever they were submitted, unless the task has
    its own. Both come before those of the queue.

    The function may be decorated, a static method, a bound method, a `functools.partial`, a callable object,
    a nested function or a lambda; the last four often need `name`.

    Raises:
        HandlerUnusable: if a worker could not run it: a class, a method without its object, a generator, or
            something that is not a function; with `batch`, a function that does not take one list; with
            `key`, a function that does not take those arguments.
        HandlerNameInvalid, QueueNameInvalid: if a name has characters or a length that a task may not carry.
        HandlerExists: if the queue has another handler of that name. A reloaded module and a notebook may
            define a function again.
        SubmissionInvalid: if no task can have that lane, timeout or retry policy, there is no such batch,
            `timeout` and `timeout_seconds` are both given, or
            `cache` is given with `unique` or without stored results.
        LabelInvalid: if a label has not the syntax of Kubernetes.
        ScheduleInvalid: if `cron` can never fire or its zone does not exist, or the function needs arguments.
        EventInvalid, FilterInvalid: if there can be no such topic, mapping or filter, or no queue is named.
    """
    if not isinstance(store_result, bool):
        raise SubmissionInvalid("store_result", f"{store_result!r}"[:80], "use True or False")
    kept = cached(cache, version)
    if kept is not None and not store_result:
        hint = "leave one of them out: without a stored result there is none to use again"
        raise SubmissionInvalid("cache", "is given with store_result=False", hint)
    if kept is not None and unique is not None:
        hint = "leave unique out: equal calls of a cached handler are one task already"
        raise SubmissionInvalid("cache", "is given with unique", hint)
    topics = subscribes(subscribe)
    if topics and queue is None:
        hint = 'add queue="...": each queue that imports the module would get a copy of each event'
        raise EventInvalid("subscribe", "is given without queue", hint)
    repeat = None if cron is None else repeat_of(cron, time_zone=time_zone)
    if cron is None and time_zone is not None:
        raise ScheduleInvalid("time_zone", "is given without cron", "add cron, such as cron='0 3 * * *'")
    rules = When(
        lane, timeout_seconds=timeout_of(timeout, timeout_seconds), retry=retry,  # type: ignore[arg-type]
        labels=labels,
        unique=asked(unique),
    )  # fmt: skip

    together = batch_of(batch)

    def register(function: Callable[P, R]) -> Handler[P, R]:
        kind = Handler if together is None else BatchHandler
        handler: Handler[P, R] = kind(function, queue, name, rules, repeat)  # type: ignore[assignment]
        handler.store_result = store_result
        handler.cache = kept
        handler.subscribes = topics
        if key is not None:
            handler.key = KeySource(key, handler.name, handler.signature)
        if isinstance(handler, BatchHandler) and together is not None:
            handler.take(together)
        REGISTRY.add(handler)
        return handler

    return register(function) if function is not None else register
