"""Values of annotated types as JSON, and back: what annotations of handlers promise.

Most types are read by msgspec. Models of pydantic, and types that msgspec does not take, such as
`date | UUID`, are read by pydantic.
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from galley.annotated import (
    UNIONS,
    changed,
    has_rules_of_pydantic,
    lost_arguments,
    members_of_unions,
    parts,
)
from galley.batching import each_of, outcome_of
from galley.exception_text import describe
from galley.file import File, from_json
from galley.json_value import NotFinite, encode_value
from galley.usable import signature_of

_ANY_TYPE: Final = frozenset({Any, object, inspect.Parameter.empty})
_PLAIN: Final[dict[Any, frozenset[type]]] = {
    None: frozenset({type(None)}),
    type(None): frozenset({type(None)}),
    bool: frozenset({bool}),
    int: frozenset({int, bool}),
    float: frozenset({float, bool}),
    str: frozenset({str}),
    list: frozenset({list}),
    dict: frozenset({dict}),
    list[Any]: frozenset({list}),
    dict[str, Any]: frozenset({dict}),
}
"""Types of JSON itself, and the classes of the values that need no conversion to them."""

_BOOLS: Final = {b"true": True, b"false": False}

COLLECTING: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""Parameters that collect what has no parameter of its own."""

_MARKS: Final = frozenset({"Required", "NotRequired", "ReadOnly"})
"""What a TypedDict may say of a key."""

UNRESOLVED: Final = (NameError, AttributeError, TypeError, SyntaxError, ValueError, ImportError)
"""What evaluating an annotation may raise: it may name what exists for type checkers alone."""


class Misfit(ValueError):
    """A value is not of the annotated type; the message says where, and what was expected."""


class Typed:
    """One annotated type."""

    def __init__(self, annotation: Any) -> None:
        """Args: annotation: the type, evaluated."""
        self.annotation = annotation
        self.plain = plain_classes(annotation)
        """Classes whose values are right as they are; empty if each value has to be looked at."""
        self._decode = _decoder(annotation)
        self._union = typing.get_origin(annotation) in UNIONS
        self._members = members_of_unions(annotation)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Typed) and self.annotation == other.annotation

    def __hash__(self) -> int:
        return hash(repr(self.annotation))

    def __repr__(self) -> str:
        return f"<JSON for {_name(self.annotation)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Typed, (self.annotation,)

    def encode(self, value: Any) -> Any:
        """Return a value to be encoded as JSON in the place of `value`.

        Raises:
            Misfit: if it is not of the type.
        """
        if type(value) in self.plain:
            return value
        try:
            data = encode_value(value)
        except NotFinite as error:
            raise Misfit(str(error)) from None
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise Misfit(str(error)) from None
        came = self.read(data)
        problem = _mistaken(value, came) if self._union else ""
        if problem := problem or (changed(value, came, self._members) if self._members else ""):
            raise Misfit(f"{problem}: in JSON, the types of {_name(self.annotation)} cannot be told apart")
        return Raw(data)

    def decode(self, data: bytes | Raw) -> Any:
        """Return the value in some JSON.

        Raises:
            Misfit: if it is not of the type.
        """
        try:
            return self._decode(data)
        except (ValueError, TypeError, RecursionError) as error:
            if bytes(data) in _BOOLS and bool in self.plain:  # in Python, a bool is an int
                return _BOOLS[bytes(data)]
            raise Misfit(_in_words(error)) from None

    def read(self, data: bytes | Raw) -> Any:
        """Return the value in some JSON, where no code of a handler is expected to run.

        Raises:
            Misfit: if it is not of the type, or its class raises something else.
        """
        try:
            return self.decode(data)
        except Misfit:
            raise
        except Exception as error:
            raise Misfit(f"making it raised {describe(error)}") from error


def _mistaken(value: Any, came: Any) -> str:
    """Return what went wrong with a value of one member of a union that is read as another one."""
    text, now = isinstance(value, str), isinstance(came, str)
    if (text and not now) or (isinstance(value, bytes | bytearray) and now):
        return f"a {type(value).__name__} would come out as {type(came).__name__}"
    return ""


def plain_classes(annotation: Any) -> frozenset[type]:
    """Return the classes of values that JSON has for a type; empty if some value needs conversion."""
    if typing.get_origin(annotation) in UNIONS:
        each = [plain_classes(part) for part in typing.get_args(annotation)]
        return frozenset().union(*each) if all(each) else frozenset()
    try:
        return _PLAIN.get(annotation, frozenset())
    except TypeError:  # an annotation need not be hashable
        return frozenset()


def typed(annotation: Any) -> Typed | None:
    """Return how values of an annotation travel; None if it says nothing, as `Any` does."""
    try:
        nothing = annotation in _ANY_TYPE
    except TypeError:
        nothing = False
    if nothing or isinstance(annotation, typing.TypeVar | str):
        return None
    return Typed(annotation)


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the evaluated annotations of a function's parameters, and of `return`.

    What cannot be evaluated at run time, such as a name imported under `TYPE_CHECKING`, is left out.
    """
    try:
        found = _by_name(signature_of(function, eval_str=True))
    except UNRESOLVED:
        found = _by_name(signature_of(function))
    if not any(map(_has_text, found.values())):
        return found
    inner = inspect.unwrap(function)
    names = {**vars(typing), **getattr(inner, "__globals__", {})}
    evaluated = {}
    for name, annotation in found.items():
        with suppress(*UNRESOLVED):
            evaluated[name] = _evaluated(annotation, names) if _has_text(annotation) else annotation
    return evaluated


def _has_text(annotation: Any) -> bool:
    return any(isinstance(part, str | typing.ForwardRef) for part in parts(annotation))


def _evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    """Return an annotation without text in it: it may be quoted, and so may what stands in its brackets."""

    def annotated() -> None: ...

    for _ in range(2):  # of a quoted one, a module may keep the text of its text
        annotated.__annotations__ = {"it": annotation}
        annotation = typing.get_type_hints(annotated, names, include_extras=True)["it"]
    return annotation


def _by_name(signature: inspect.Signature) -> dict[str, Any]:
    named = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return {**named, "return": signature.return_annotation}


class Signature:
    """The annotated types of one function."""

    def __init__(self, function: Callable[..., Any], *, batched: bool = False) -> None:
        """Args: batched: whether the types are those of one element of the lists it takes and returns."""
        found = annotations_of(function)
        if batched:
            returned = found.pop("return", Any)
            found = {name: each_of(annotation) for name, annotation in found.items()}
            found["return"] = outcome_of(returned)
        self.result = typed(found.pop("return", Any))
        parameters = signature_of(function).parameters
        self._parameters: dict[str, Typed] = {}
        self._others = _Others(None)
        self._named = frozenset(name for name, one in parameters.items() if one.kind not in COLLECTING)
        for name, annotation in found.items():
            if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                continue
            if parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                self._others, keys = _others(annotation)
                self._parameters.update(keys)
                continue
            # `x: int = None` is old, and widespread.
            wider = annotation | None if _may_be_none(parameters[name], annotation) else annotation
            how = typed(wider)
            if how is not None:
                self._parameters[name] = how
        self._plain = [(name, how.plain) for name, how in self._parameters.items()]

    def encode(self, named: dict[str, Any], *, partial: bool = False) -> dict[str, Any]:
        """Return arguments as they are to be encoded.

        Args:
            named: the arguments.
            partial: whether others come later, from steps of a workflow.

        Raises:
            Misfit: if one is not of its parameter's type.
        """
        if self._others.checked:
            self._check_others(named, partial=partial)
        if self._fits(named):
            return named
        return {
            name: self._each(name, lambda how, value=value: how.encode(value), value)
            for name, value in named.items()
        }

    def decode(self, data: bytes, named: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments in a task's input.

        Args:
            data: the input.
            named: the same, decoded without regard to types.

        Raises:
            Misfit: if one is not of its parameter's type.
        """
        if self._others.checked:
            self._check_others(named)
        if self._fits(named):
            return named
        raw = _decode_raw(data)
        return {
            name: self._each(name, lambda how, name=name: how.decode(raw[name]), value)
            for name, value in named.items()
        }

    def _fits(self, named: Mapping[str, Any]) -> bool:
        """Return whether all arguments are right as they are."""
        for name, plain in self._plain:
            if name in named and type(named[name]) not in plain:
                return False
        return self._others.how is None or named.keys() <= self._named

    def _check_others(self, named: Mapping[str, Any], *, partial: bool = False) -> None:
        """Check the names of what `**kwargs: Unpack[...]` collects.

        Raises:
            Misfit: if one is not a key of the TypedDict, or one that it requires is not there.
        """
        known = self._named | self._parameters.keys()
        if strange := next((name for name in named if name not in known), None):
            raise Misfit(f"argument {strange!r}: {self._others.checked} has no such key")
        missing = sorted(self._others.required - named.keys())
        if missing and not partial:
            raise Misfit(f"argument {missing[0]!r} is missing, which {self._others.checked} requires")

    def _each(self, name: str, convert: Callable[..., Any], value: Any) -> Any:
        how = self._parameters.get(name, None if name in self._named else self._others.how)
        if how is None or type(value) in how.plain:
            return value
        try:
            return convert(how)
        except Misfit as error:
            raise Misfit(f"argument {name!r}: {error}") from None


class _Others(NamedTuple):
    """What `**kwargs` may collect."""

    how: Typed | None
    """The type of each; None if it says nothing, or if each has its own."""
    checked: str = ""
    """The TypedDict whose keys they are; empty if they may have any names."""
    required: frozenset[str] = frozenset()


def _others(annotation: Any) -> tuple[_Others, dict[str, Typed]]:
    """Return what the annotation of `**kwargs` says: a type for all, or `Unpack` with one for each."""
    # That of typing_extensions is another one.
    if getattr(typing.get_origin(annotation), "_name", "") != "Unpack":
        return _Others(typed(annotation)), {}
    (keys,) = typing.get_args(annotation)
    try:
        hints, required = typing.get_type_hints(keys, include_extras=True), frozenset(keys.__required_keys__)
    except UNRESOLVED:  # it is no TypedDict, or names what exists for type checkers alone
        return _Others(None), {}
    unmarked = {name: _unmarked(hint) for name, hint in hints.items()}
    # The class itself does not see marks in annotations that are text.
    required -= {name for name, (_, marks) in unmarked.items() if "NotRequired" in marks}
    required |= {name for name, (_, marks) in unmarked.items() if "Required" in marks}
    each = {name: typed(hint) for name, (hint, _) in unmarked.items()}
    others = _Others(None, _name(keys), required)
    # One of any type is a key all the same.
    return others, {name: how or Typed(Any) for name, how in each.items()}


def _unmarked(hint: Any) -> tuple[Any, set[str]]:
    """Return the type in `Required[...]`, `NotRequired[...]` or `ReadOnly[...]`, and these marks."""
    marks = set()
    while (mark := getattr(typing.get_origin(hint), "_name", "")) in _MARKS:
        marks.add(mark)
        (hint,) = typing.get_args(hint)
    return hint, marks


def _may_be_none(parameter: inspect.Parameter, annotation: Any) -> bool:
    known = annotation is not inspect.Parameter.empty
    return known and parameter.default is None and isinstance(annotation, type | types.GenericAlias)


_decode_raw: Final = msgspec.json.Decoder(dict[str, Raw]).decode


def _decoder(annotation: Any) -> Callable[[bytes | Raw], Any]:
    if lost := lost_arguments(annotation):
        return _refusing(lost)
    if has_rules_of_pydantic(annotation):
        return _by_pydantic(annotation)
    try:
        return msgspec.json.Decoder(annotation, dec_hook=_construct).decode
    except UNRESOLVED:  # two types that are both text in JSON, a field for type checkers alone, and the like
        return _by_pydantic(annotation)


def _by_pydantic(annotation: Any) -> Callable[[bytes | Raw], Any]:
    # Children that need it are few, and importing it is slow.
    from pydantic.errors import PydanticUserError  # noqa: PLC0415

    try:
        adapter, inside = _adapter(annotation)
        adapter.rebuild(raise_errors=True)
    except (PydanticUserError, TypeError, ValueError, NameError) as error:
        problem = f"a value of type {_name(annotation)} cannot be made from JSON"
        reason = getattr(error, "code", None) or type(error).__name__
        return _refusing(f"{problem} ({reason})")
    # Values are written by the names of fields, other programs may use their aliases.
    if not inside:
        return lambda data: adapter.validate_json(bytes(data), by_alias=True, by_name=True)

    def first(data: bytes | Raw) -> Any:
        try:
            return adapter.validate_json(b"[%b]" % bytes(data), by_alias=True, by_name=True)[0]
        except ValueError as error:
            raise Misfit(_in_words(error, inside=1)) from None

    return first


def _refusing(problem: str) -> Callable[[bytes | Raw], Any]:
    def refuse(_: bytes | Raw) -> Any:
        raise Misfit(problem)

    return refuse


def _adapter(annotation: Any) -> tuple[Any, bool]:
    """Return what reads an annotation, or a list of it, which takes rules in the place of a class's own.

    Raises:
        PydanticUserError, TypeError, ValueError, NameError: it cannot be read.
    """
    from pydantic import BaseModel, ConfigDict, TypeAdapter  # noqa: PLC0415
    from pydantic.errors import PydanticUserError  # noqa: PLC0415

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return TypeAdapter(annotation), False  # it is written by its own rules
    base64 = ConfigDict(val_json_bytes="base64")
    try:
        return TypeAdapter(annotation, config=base64), False
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(list[annotation], config=base64), True


def _construct(wanted: type, value: Any) -> Any:
    """Make a value of a class that msgspec does not know out of the JSON value for it."""
    if typing.get_origin(wanted) is Iterable:
        return _decoder(list[typing.get_args(wanted)])(msgspec.json.encode(value))  # type: ignore[misc]
    if not isinstance(wanted, type):  # a generic class of the user's, with its argument
        return _by_pydantic(wanted)(msgspec.json.encode(value))
    if issubclass(wanted, PurePath) and isinstance(value, str):
        return wanted(value)
    if issubclass(wanted, File):
        return from_json(value)
    return _by_pydantic(wanted)(msgspec.json.encode(value))


def _name(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _in_words(error: Exception, inside: int = 0) -> str:
    """Return the message of a library's error, on one line, without the first parts of its place."""
    errors = getattr(error, "errors", None) or getattr(error.__cause__, "errors", None)
    if errors is None:
        return str(error)
    first = errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"][inside:])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
