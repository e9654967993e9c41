"""Explains what is wrong with a field of a manifest.

pydantic reports what a validator expected; `explain` says what to write instead, from the bounds and field
docstrings of the model.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NamedTuple, get_args

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from galley.resources.description import descriptions, model_in
from galley.resources.meta import PATTERNS_IN_WORDS

Place = tuple[str | int, ...]
"""The path of a field from the top of a document: keys, and positions in lists."""


class Problem(NamedTuple):
    """One problem of a manifest, with its place and what to do."""

    line: int
    field: str
    problem: str
    hint: str


class Explanation(NamedTuple):
    """A problem whose line is not known yet."""

    place: Place
    problem: str
    hint: str


_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SHOWN: Final = 60
_WHOLE: Final = "a whole number"
_NUMBER: Final = "a number"


def field_path(place: Place) -> str:
    """Return a place in the usual notation, such as `spec.handlers.commands[0].name`."""
    path = ""
    for step in place:
        if isinstance(step, int):
            path += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            path += f".{step}" if path else step
        else:
            path += f"[{shown(step)}]"
    return path


def shown(value: object) -> str:
    """Return a value for a message: shortened, and in words if it is a mapping or a list."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case Mapping():
            return "a mapping"
        case Sequence() if not isinstance(value, str | bytes):
            return "a list"
    text = repr(value)
    end = "'" if isinstance(value, str) else ""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]}...{end}"


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known word that is most similar to `word`, if one is."""
    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(to_camel(word).lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def explain(model: type[BaseModel], error: ErrorDetails) -> Explanation:
    """Return the explanation of an error of pydantic."""
    explain_type = _EXPLANATIONS.get(error["type"], _something_else)
    place = tuple(step for step in error["loc"] if step != "[key]")
    problem, hint = explain_type(_Wrong(model, place, error))
    return Explanation(place_of(error), problem, hint)


def place_of(error: ErrorDetails) -> Place:
    """Return the field one of pydantic's errors is about."""
    at = error.get("ctx", {}).get("at", ())
    return (*(step for step in error["loc"] if step != "[key]"), *at)


class _Wrong(NamedTuple):
    """An error with its model."""

    model: type[BaseModel]
    place: Place
    error: ErrorDetails

    @property
    def input(self) -> Any:
        return self.error["input"]

    @property
    def ctx(self) -> dict[str, Any]:
        return self.error.get("ctx", {})

    def field(self) -> FieldInfo | None:
        """Return the field at the place, None for an entry of a list or map."""
        owner = _model_at(self.model, self.place[:-1])
        return _fields(owner).get(str(self.place[-1])) if owner and self.place else None

    def described(self) -> str:
        """Return the description of the field at the place, empty if it has none."""
        if not self.place:
            return ""
        owner = _model_at(self.model, self.place[:-1])
        texts = {} if owner is None else descriptions(owner)
        names = {to_camel(name): name for name in texts}
        return " ".join(texts.get(names.get(str(self.place[-1]), ""), "").split())

    def bounds(self) -> str:
        """Return the allowed range of a number, such as ` from 1 to 256`."""
        metadata = _constraints(self.field())
        low = next((rule.ge for rule in metadata if isinstance(rule, Ge)), None)
        high = next((rule.le for rule in metadata if isinstance(rule, Le)), None)
        return f" from {low} to {high}" if low is not None and high is not None else ""


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _constraints(field: FieldInfo | None) -> list[Any]:
    """Return the bounds of a field; those of an optional one are inside its union."""
    if field is None:
        return []
    inner = [rule for part in get_args(field.annotation) for rule in getattr(part, "__metadata__", ())]
    return [*field.metadata, *inner, *(deep for rule in inner for deep in getattr(rule, "metadata", ()))]


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel] | None:
    """Return the model at a place; the entries of a list have one model."""
    found: type[BaseModel] | None = model
    for step in place:
        if isinstance(step, str) and found is not None:
            field = _fields(found).get(step)
            found = model_in(field.annotation) if field else None
    return found


def _missing(wrong: _Wrong) -> tuple[str, str]:
    name = str(wrong.place[-1])
    first = re.split(r"(?<=[.:;])\s", wrong.described(), maxsplit=1)[0].rstrip(".:;")
    return "is missing", f"add {name}: {first}" if first else f"add {name}"


def _unknown_field(wrong: _Wrong) -> tuple[str, str]:
    name = str(wrong.place[-1])
    owner = _model_at(wrong.model, wrong.place[:-1])
    known = tuple(_fields(owner)) if owner else ()
    allowed = f"known here: {', '.join(known)}"
    meant = nearest(name, known)
    return "there is no such field", f"did you mean {meant}? {allowed}" if meant else f"remove it; {allowed}"


def _not_one_of(wrong: _Wrong) -> tuple[str, str]:
    allowed = re.findall(r"'([^']*)'", wrong.ctx["expected"])
    meant = nearest(wrong.input, allowed) if isinstance(wrong.input, str) else None
    one_of = f"use one of {', '.join(allowed)}" if len(allowed) > 1 else f"write {allowed[0]}"
    return f"{shown(wrong.input)} is not allowed", f"did you mean {meant}? {one_of}" if meant else one_of


def _not_a(what: str) -> Callable[[_Wrong], tuple[str, str]]:
    def say(wrong: _Wrong) -> tuple[str, str]:
        hint = f"write {what}{wrong.bounds()}, without quotes or a unit"
        return f"must be {what}, not {shown(wrong.input)}", hint

    return say


def _out_of_range(wrong: _Wrong) -> tuple[str, str]:
    word, limit = ("least", wrong.ctx["ge"]) if "ge" in wrong.ctx else ("most", wrong.ctx["le"])
    what = _WHOLE if isinstance(limit, int) else _NUMBER
    return f"is {shown(wrong.input)}, must be at {word} {limit}", f"use {what}{wrong.bounds()}"


def _not_text(wrong: _Wrong) -> tuple[str, str]:
    scalar = isinstance(wrong.input, bool | int | float)
    hint = f'put it in quotes: "{shown(wrong.input)}"' if scalar else 'write text here, or "" for none'
    return f"must be text, not {shown(wrong.input)}", hint


def _text_shape(wrong: _Wrong) -> tuple[str, str]:
    what, hint = PATTERNS_IN_WORDS[wrong.ctx["pattern"]]
    text = wrong.place[-1] if "[key]" in wrong.error["loc"] else wrong.input
    return f"{shown(text)} is not {what}", hint


def _text_too_long(wrong: _Wrong) -> tuple[str, str]:
    length, limit = len(str(wrong.input)), wrong.ctx["max_length"]
    return f"has {length} characters, at most {limit} are allowed", "shorten it"


def _too_many(wrong: _Wrong) -> tuple[str, str]:
    limit = wrong.ctx["max_length"]
    return f"has {len(wrong.input)} entries, at most {limit} are allowed", f"keep {limit} or fewer"


def _too_few(wrong: _Wrong) -> tuple[str, str]:
    least = wrong.ctx["min_length"]
    return (
        f"is empty, at least {least} is needed",
        "give it an entry, or remove a field that has a default",
    )


def _not_a_mapping(wrong: _Wrong) -> tuple[str, str]:
    owner = _model_at(wrong.model, wrong.place)
    known = f": {', '.join(_fields(owner))}" if owner else ""
    return f"must be a mapping, not {shown(wrong.input)}", f"write its fields below it, indented{known}"


def _not_a_list(wrong: _Wrong) -> tuple[str, str]:
    return f"must be a list, not {shown(wrong.input)}", "write each entry on a line that begins with '- '"


def _refused(wrong: _Wrong) -> tuple[str, str]:
    return wrong.ctx["problem"], wrong.ctx["hint"]


def _no_json(wrong: _Wrong) -> tuple[str, str]:
    hint = "nest lists and objects less than 100 levels deep"
    return f"cannot be read: {wrong.ctx.get('error', wrong.error['msg'])}", hint


def _something_else(wrong: _Wrong) -> tuple[str, str]:
    hint = wrong.described() or "compare it with the examples"
    return f"{wrong.error['msg']}, got {shown(wrong.input)}", hint


_EXPLANATIONS: Final[dict[str, Callable[[_Wrong], tuple[str, str]]]] = {
    "missing": _missing,
    "json_invalid": _no_json,
    "extra_forbidden": _unknown_field,
    "enum": _not_one_of,
    "literal_error": _not_one_of,
    "bool_type": _not_a("true or false"),
    "int_type": _not_a(_WHOLE),
    "int_parsing_size": _not_a(_WHOLE),
    "float_type": _not_a(_NUMBER),
    "finite_number": _not_a(_NUMBER),
    "greater_than_equal": _out_of_range,
    "less_than_equal": _out_of_range,
    "string_type": _not_text,
    "string_pattern_mismatch": _text_shape,
    "string_too_long": _text_too_long,
    "too_long": _too_many,
    "too_short": _too_few,
    "model_type": _not_a_mapping,
    "dict_type": _not_a_mapping,
    "tuple_type": _not_a_list,
    "refused": _refused,
}
"""The explanation for each type of error that YAML can cause in the models."""
