"""Structural schemas: the dialect of OpenAPI that Kubernetes takes, made from a model's JSON schema.

A schema is structural when each value has one type that is said at its place: no references, no unions,
no null. What Kubernetes would refuse, or drop in silence, is either said in another way here or refused
with its place; nothing passes that is not known.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from pydantic import BaseModel

from galley.resources.description import descriptions, model_in
from galley.resources.meta import PATTERNS_IN_WORDS
from galley.resources.rule import INT_OR_STRING, LIST_KEYS, LIST_TYPE, VALIDATIONS, Rule, quoted

Schema = dict[str, Any]

ANYTHING: Final = "x-kubernetes-preserve-unknown-fields"

_ABSENT: Final[tuple[Any, ...]] = (None, "", [], {})
"""Defaults that say no more than that nothing is there."""

_INT32: Final = 2**31
_EXACT: Final = 2**53

_KEPT: Final = {
    "object": ("maxProperties",),
    "array": ("minItems", "maxItems", LIST_TYPE, LIST_KEYS),
    "string": ("enum", "format", "minLength", "maxLength"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "boolean": (),
}
"""By type, what is handed on as it stands."""

_TREATED: Final = {
    "type", "description", "title", "default", "properties", "required", "additionalProperties", "items",
    "pattern", "patternProperties", "propertyNames", "const", VALIDATIONS, INT_OR_STRING,
}  # fmt: skip
"""What the functions below deal with, or leave out on purpose."""

_BOUNDED: Final = {"object": "maxProperties", "array": "maxItems", "string": "maxLength"}
"""What the API server reckons the cost of rules from."""


class NotStructural(Exception):
    """A model has something that no structural schema can say."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")


def structural(model: type[BaseModel], *, defaults: bool) -> Schema:
    """Return a model's schema as a resource definition takes it.

    Args:
        model: the model.
        defaults: whether absent fields get the model's defaults when they are stored.

    Raises:
        NotStructural: if the model has what cannot be said.
    """
    _describe(model)
    whole = model.model_json_schema(by_alias=True, mode="validation")
    return _Reading(whole.pop("$defs", {}), defaults=defaults).value(whole, model.__name__)


def _describe(model: type[BaseModel], *outer: type[BaseModel]) -> None:
    """Put the descriptions of the fields of a model, and of the models in it, into its schema."""
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None and inner not in (model, *outer):
            _describe(inner, model, *outer)
        field.description = descriptions(model).get(name, field.description)
    model.model_rebuild(force=True)


class _Reading:
    """The way through one model's schema."""

    def __init__(self, definitions: Schema, *, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults
        self._listed = 0
        """In how many lists the place is."""
        self._inside: list[str] = []

    def value(self, written: Schema, place: str) -> Schema:
        """Return one value's schema, with everything below it."""
        if (reference := written.get("$ref")) is not None:
            return self._referred(reference, written, place)
        if "anyOf" in written:
            return self.value(_without_null(written, place), place)
        described = {"description": one_line(written["description"])} if "description" in written else {}
        schema: Schema = described | self._shape(written, place)
        if rules := [*_pattern_rules(schema, written), *written.get(VALIDATIONS, ())]:
            schema[VALIDATIONS] = rules
        return schema

    def _referred(self, reference: str, written: Schema, place: str) -> Schema:
        name = reference.removeprefix("#/$defs/")
        if name in self._inside:
            raise NotStructural(place, f"{name} contains itself")
        definition = self._definitions[name]
        rules = [*definition.get(VALIDATIONS, ()), *written.get(VALIDATIONS, ())]
        beside = {key: value for key, value in written.items() if key != "$ref"}
        self._inside.append(name)
        try:
            return self.value(definition | beside | ({VALIDATIONS: rules} if rules else {}), place)
        finally:
            self._inside.pop()

    def _shape(self, written: Schema, place: str) -> Schema:
        if INT_OR_STRING in written:
            # A pattern as a rule would cost too much: nothing tells the API server how long the text may be.
            return {INT_OR_STRING: True, "pattern": written["pattern"], "minimum": 0}
        kind = written.get("type")
        if kind is None:
            if unknown := set(written) - {"description", "title", "default"}:
                raise NotStructural(place, f"has no type, and {', '.join(sorted(unknown))}")
            return {ANYTHING: True} | self._default(written, {})
        if kind not in _KEPT:
            raise NotStructural(place, f"is of type {kind}")
        if unknown := set(written) - _TREATED - set(_KEPT[kind]):
            raise NotStructural(place, f"is of type {kind} with {', '.join(sorted(unknown))}")
        schema = {"type": kind} | {key: written[key] for key in _KEPT[kind] if key in written}
        schema |= _PARTS.get(kind, _nothing)(self, written, place)
        _check_bound(schema, place)
        return schema | self._default(written, schema)

    def object(self, written: Schema, place: str) -> Schema:
        """Return what a mapping holds: named fields, or values of one shape under any key."""
        if "properties" in written:
            fields = written["properties"].items()
            properties = {name: self.value(field, f"{place}.{name}") for name, field in fields}
            return {"properties": properties} | (
                {"required": written["required"]} if "required" in written else {}
            )
        shapes = [
            *written.get("patternProperties", {}).values(),
            *filter(None, [written.get("additionalProperties")]),
        ]
        if len(shapes) != 1 or not isinstance(shapes[0], dict):
            raise NotStructural(place, "is a mapping without one shape for its values")
        return {"additionalProperties": self.value(shapes[0], f"{place}{{}}")}

    def array(self, written: Schema, place: str) -> Schema:
        """Return what a list holds; appliers replace it as a whole unless it says how its entries differ."""
        if not isinstance(written.get("items"), dict):
            raise NotStructural(place, "is a list without one shape for its entries")
        self._listed += 1
        try:
            items = self.value(written["items"], f"{place}[]")
        finally:
            self._listed -= 1
        return {"items": items, LIST_TYPE: written.get(LIST_TYPE, "atomic")}

    def integer(self, written: Schema, place: str) -> Schema:
        """Return how wide a number is."""
        if max(abs(written.get(bound, 0)) for bound in ("minimum", "maximum")) > _EXACT:
            raise NotStructural(place, "has a bound beyond 2^53, which an API server reads as a float")
        return {"format": "int32" if written.get("maximum", _INT32) < _INT32 else "int64"}

    def string(self, written: Schema, _place: str) -> Schema:
        """Return the one text that a constant allows."""
        return {"enum": [written["const"]]} if "const" in written else {}

    def _default(self, written: Schema, schema: Schema) -> Schema:
        """Return the default; of a part it is that of each field, since rules look at it as it stands.

        What stands in a list has none: `kubectl apply` and GitOps tools compare lists as a whole, and would
        find a difference each time.
        """
        default = written.get("default")
        if default is not None and "properties" in schema:
            fields = schema["properties"].items()
            default = {name: field["default"] for name, field in fields if "default" in field}
        return {"default": default} if self._defaults and not self._listed and default not in _ABSENT else {}


_PARTS: Final[dict[str, Callable[[_Reading, Schema, str], Schema]]] = {
    "object": _Reading.object,
    "array": _Reading.array,
    "integer": _Reading.integer,
    "string": _Reading.string,
}


def _nothing(_reading: _Reading, _written: Schema, _place: str) -> Schema:
    return {}


def _without_null(written: Schema, place: str) -> Schema:
    """Return the one shape an optional field has; a field that is absent is left out, and never null."""
    shapes = [shape for shape in written["anyOf"] if shape.get("type") != "null"]
    if len(shapes) != 1:
        raise NotStructural(place, f"may have {len(shapes)} shapes")
    outside = {key: value for key, value in written.items() if key != "anyOf"}
    rules = [*shapes[0].get(VALIDATIONS, ()), *outside.get(VALIDATIONS, ())]
    merged: Schema = shapes[0] | outside | ({VALIDATIONS: rules} if rules else {})
    return merged


def _check_bound(schema: Schema, place: str) -> None:
    bound = _BOUNDED.get(schema["type"])
    closed = {"properties", "enum"} & set(schema) or schema.get("format") == "date-time"
    if bound is not None and bound not in schema and not closed:
        raise NotStructural(place, f"is of type {schema['type']} without {bound}")


def _pattern_rules(schema: Schema, written: Schema) -> Iterator[dict[str, str]]:
    """Yield rules in place of patterns, since those are refused with the pattern and without advice."""
    if (pattern := written.get("pattern")) is not None and "pattern" not in schema:
        yield matching("self", pattern).schema()
    for pattern in written.get("patternProperties", {}):
        what, hint = PATTERNS_IN_WORDS[pattern]
        wrong = f"!key.matches({quoted(pattern)})"
        yield Rule(
            f"!self.exists(key, {wrong})", f"'{{{{self.filter(key, {wrong})[0]}}}}' is not {what}; {hint}"
        ).schema()


def matching(text: str, pattern: str, place: str = "") -> Rule:
    """Return the rule that a text, an expression of CEL, is what a pattern stands for."""
    what, hint = PATTERNS_IN_WORDS[pattern]
    return Rule(f"{text}.matches({quoted(pattern)})", f"{place}'{{{{{text}}}}}' is not {what}; {hint}")


def one_line(text: str) -> str:
    """Return a docstring as one paragraph."""
    return " ".join(text.split())
