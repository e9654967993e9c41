"""Where the key of a call comes from: `@task(key=...)` names an argument, or is a function of arguments."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from galley.errors import HandlerUnusable, InputInvalid, SubmissionInvalid
from galley.json_value import encode_value
from galley.key import key_of_value

Asked: TypeAlias = str | Callable[..., str | int | None]
"""An argument by name, or a field of one such as `order.customer`; or a function of arguments."""

_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_HINT: Final = "return a text, a whole number, or None for no key"


class KeySource:
    """What makes the keys of one handler's calls."""

    def __init__(self, asked: Asked, handler: str, signature: inspect.Signature) -> None:
        """Args: asked: by the user; handler: its name, for messages; signature: of its function.

        Raises:
            HandlerUnusable: the function has no such arguments.
        """
        self._handler = handler
        parameters = signature.parameters.values()
        open_ended = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
        known = {each.name for each in parameters if each.kind in _NAMED}
        self._defaults = {
            each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty
        }
        self._function = asked if callable(asked) else None
        self._path = asked if isinstance(asked, str) else ""
        if callable(asked):
            self.needs = _names(asked, handler, known)
        elif all(self._path.split(".")):
            self.needs = frozenset({self._path.split(".")[0]})
        else:
            raise HandlerUnusable(handler, f"key={asked!r} is no argument", f"use one of {signature}")
        unknown = sorted(self.needs - known)
        if unknown and not open_ended:
            raise HandlerUnusable(
                handler, f"its key is made of {', '.join(unknown)}", f"use what it takes: {signature}"
            )

    def lacking(self, arguments: Mapping[str, Any]) -> str:
        """Return why a call has no key yet, since another step makes an argument; empty if it has."""
        missing = sorted(self.needs - arguments.keys() - self._defaults.keys())
        return f"is made of {', '.join(missing)}, which another step returns" if missing else ""

    def of(self, arguments: Mapping[str, Any]) -> str | None:
        """Return the key of a call; None if it has none.

        Raises:
            SubmissionInvalid: what the arguments have there cannot be a key.
            InputInvalid: the function raised.
        """
        given: dict[str, Any] = {**self._defaults, **arguments}
        value: Any
        if self._function is None:
            value, what = self._found(given), f"{self._path!r} of {self._handler!r}"
        else:
            what = f"that of {self._handler!r}"
            try:
                value = self._function(**{name: given[name] for name in self.needs & given.keys()})
            except Exception as error:
                problem = f"its key cannot be made: {type(error).__name__}: {error}"
                raise InputInvalid(self._handler, problem, "see @task(key=...)") from error
        if value is None:
            return None
        hint = _HINT if self._function is not None else "name an argument that is a text or a whole number"
        return key_of_value(value, what, hint)

    def _found(self, given: Mapping[str, Any]) -> Any:
        first, *rest = self._path.split(".")
        value = given.get(first)
        if not rest and type(value) in (str, int):
            return value
        value = msgspec.json.decode(encode_value(value))  # as it travels: text for UUIDs and enumerations
        for depth, name in enumerate(rest, 1):
            if value is None:
                return None
            if not isinstance(value, dict) or name not in value:
                there = ".".join([first, *rest[: depth - 1]])
                raise SubmissionInvalid(
                    "key", f"{there!r} of {self._handler!r} has no field {name!r}", "see @task(key=...)"
                )
            value = value[name]
        return value


def _names(function: Callable[..., Any], handler: str, known: set[str]) -> frozenset[str]:
    """Return which arguments a function is given: those it names, or all if it takes any.

    Raises:
        HandlerUnusable: it has a parameter that cannot be given by name.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []  # such as a class written in C, of which nothing is known
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return frozenset(known)
    names = frozenset(each.name for each in parameters if each.kind in _NAMED)
    if not names:
        raise HandlerUnusable(
            handler, "the function of its key takes no arguments by name",
            "give it arguments of the handler, such as key=lambda customer: customer",
        )  # fmt: skip
    optional = {each.name for each in parameters if each.default is not inspect.Parameter.empty}
    return names - (optional - known)
