"""Batches: handlers that take the inputs of several tasks at once."""

import inspect
import typing
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from types import UnionType
from typing import Any, Final, Protocol, overload

from msgspec import Struct

from galley.errors import HandlerUnusable, SubmissionInvalid
from galley.usable import signature_of

LARGEST: Final = 1000
"""Most inputs of one batch."""
LONGEST_WAIT_MS: Final = 60_000
WAIT_MS: Final = 10
_LISTS: Final = (list, Sequence, Collection, Iterable)


class Batch(Struct, frozen=True, array_like=True):
    """How many inputs a handler takes at once, and how long the first of them waits for others.

    Args:
        size: most inputs of one call, from 1 to 1000.
        wait_ms: milliseconds that the first input waits for others, from 0 to 60,000.
    """

    size: int
    wait_ms: int = WAIT_MS

    def __post_init__(self) -> None:
        _check("size", self.size, 1, LARGEST)
        _check("wait_ms", self.wait_ms, 0, LONGEST_WAIT_MS)

    @property
    def wait_seconds(self) -> float:
        """`wait_ms` in seconds."""
        return self.wait_ms / 1000


Asked = int | Batch
"""What `@task(batch=...)` takes."""


def batch_of(asked: "Asked | None") -> Batch | None:
    """Return the rules of a batch; a number is its size.

    Raises:
        SubmissionInvalid: there can be no such batch.
    """
    return asked if asked is None or isinstance(asked, Batch) else Batch(asked)


def _check(name: str, number: object, least: int, most: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise SubmissionInvalid(
            f"batch {name}", f"{number!r} is not a whole number from {least} to {most}",
            "use @task(batch=100) or @task(batch=galley.Batch(100, wait_ms=50))",
        )  # fmt: skip


def only_parameter(function: Callable[..., Any], shown: str) -> str:
    """Return the name of the one parameter of a handler that takes batches.

    Raises:
        HandlerUnusable: it has another number of parameters, or one that is not annotated as a list.
    """
    parameters = list(signature_of(function).parameters.values())
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    hint = "declare one parameter: def store(rows: list[Row]) -> None"
    if len(parameters) != 1 or parameters[0].kind not in kinds:
        raise HandlerUnusable(shown, "with batch=..., it takes a list of inputs and nothing else", hint)
    annotation = parameters[0].annotation
    # Text is evaluated at the first use, as all annotations are.
    if annotation is not inspect.Parameter.empty and not isinstance(annotation, str):
        kind = typing.get_origin(annotation) or annotation
        if kind is not Any and kind not in _LISTS:
            problem = f"with batch=..., {parameters[0].name!r} is a list of inputs"
            raise HandlerUnusable(shown, problem, hint)
    return parameters[0].name


def each_of(annotation: Any) -> Any:
    """Return the type of one element of an annotated list; `Any` if it does not say."""
    if typing.get_origin(annotation) in _LISTS:
        return next(iter(typing.get_args(annotation)), Any)
    return Any


def outcome_of(annotation: Any) -> Any:
    """Return the type of one result of an annotated list of results, without the exceptions in it."""
    if annotation in (None, type(None)):
        return None
    each = each_of(annotation)
    if typing.get_origin(each) in (typing.Union, UnionType):
        kept = [part for part in typing.get_args(each) if not _is_error(part)]
        return typing.Union[tuple(kept)] if kept else None  # noqa: UP007 - of types known at run time
    return None if _is_error(each) else each


def _is_error(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseException)


def outcomes(returned: Any, count: int) -> list[Any]:
    """Return what a handler returned for each of its inputs: a result, or an exception.

    Raises:
        ValueError: it is not a list with one element for each input.
    """
    if returned is None:
        return [None] * count
    if not isinstance(returned, Sequence) or isinstance(returned, str | bytes):
        kind = type(returned).__name__
        problem = f"a handler of batches returns a list with one result for each input, not {kind}"
        raise ValueError(problem)  # noqa: TRY004 - what it returned is not valid
    if len(returned) != count:
        raise ValueError(f"the handler returned {len(returned)} results for {count} inputs")
    return list(returned)


if typing.TYPE_CHECKING:
    from galley.handler import BatchHandler

    X = typing.TypeVar("X")
    R = typing.TypeVar("R")

    class BatchDecorator(Protocol):
        """Makes a function that takes a list a handler whose tasks have one element each."""

        @overload
        def __call__(
            self, function: Callable[[list[X]], Coroutine[Any, Any, None]], /
        ) -> "BatchHandler[X, None]": ...
        @overload
        def __call__(
            self, function: Callable[[list[X]], Coroutine[Any, Any, Sequence[R | Exception]]], /
        ) -> "BatchHandler[X, R]": ...
        @overload
        def __call__(self, function: Callable[[list[X]], None], /) -> "BatchHandler[X, None]": ...
        @overload
        def __call__(
            self, function: Callable[[list[X]], Sequence[R | Exception]], /
        ) -> "BatchHandler[X, R]": ...
