"""What an annotation contains: the types in it, and what its JSON would lose."""

import dataclasses
import typing
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Any, Final

UNIONS: Final = (typing.Union, UnionType)

_OF_PYDANTIC: Final = frozenset({"pydantic", "annotated_types"})


def parts(annotation: Any) -> Iterator[Any]:
    """Yield an annotation, and all that stands in its brackets, at any depth."""
    yield annotation
    for each in typing.get_args(annotation):
        yield from parts(each)


def members_of_unions(annotation: Any) -> frozenset[type]:
    """Return the classes that the unions in an annotation choose from."""
    unions = (each for each in parts(annotation) if typing.get_origin(each) in UNIONS)
    found = (typing.get_origin(part) or part for union in unions for part in typing.get_args(union))
    return frozenset(each for each in found if isinstance(each, type))


def has_rules_of_pydantic(annotation: Any) -> bool:
    """Return whether something in it is only for pydantic, such as `Annotated[int, Field(ge=0)]`."""
    notes = (note for each in parts(annotation) for note in getattr(each, "__metadata__", ()))
    return any(
        type(note).__module__.partition(".")[0] in _OF_PYDANTIC
        or hasattr(note, "__get_pydantic_core_schema__")
        for note in notes
    )


def lost_arguments(annotation: Any) -> str:
    """Return a dataclass in it and its `InitVar`, which no instance keeps; empty if there is none."""
    for each in parts(annotation):
        if isinstance(each, type) and dataclasses.is_dataclass(each):
            for name, field in each.__dataclass_fields__.items():
                if getattr(field, "_field_type", None) is dataclasses._FIELD_INITVAR:  # type: ignore[attr-defined] # noqa: SLF001
                    return f"{each.__qualname__} takes {name} (InitVar), which its instances do not keep"
    return ""


def changed(value: Any, came: Any, members: frozenset[type]) -> str:
    """Return what became of a value that one member of a union wrote and another one read.

    Lists, tuples and values of dicts are looked into. A member of an enumeration of texts or numbers may
    become its text or number, which is equal to it.
    """
    equal = isinstance(value, str | int) and value == came
    if type(value) in members and type(came) is not type(value) and not equal:
        return f"{type(value).__name__} would come out as {type(came).__name__}"
    if isinstance(value, dict) and isinstance(came, dict):
        pairs: Iterable[tuple[Any, Any]] = [(each, came[key]) for key, each in value.items() if key in came]
    elif isinstance(value, list | tuple) and isinstance(came, list | tuple):
        pairs = zip(value, came, strict=False)
    else:
        return ""
    return next((problem for one, other in pairs if (problem := changed(one, other, members))), "")
