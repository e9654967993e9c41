"""What becomes of a model on its way to an API server."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Union

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from docs.generate.structural import NotStructural, structural
from galley.bounds import NAME_PATTERN
from galley.resources.meta import PATTERNS_IN_WORDS, Key, LabelValue, Name
from galley.resources.pod_resources import Quantity
from galley.resources.rule import Rule, checked, keyed_by, quoted, without_repeats


class Colour(StrEnum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    """What is inside."""

    model_config = ConfigDict(
        json_schema_extra=checked(Rule("self.size < 9", "is large; shrink it", ".size"))
    )

    size: int = Field(1, ge=0, le=2**40)
    word: str = Field("", max_length=9)


def schema_of(annotation: Any, default: Any = ..., *, defaults: bool = True, **settings: Any) -> Any:
    """Return what becomes of a field."""
    made = type(
        "Made",
        (BaseModel,),
        {"__annotations__": {"it": annotation}, "it": Field(default, **settings)},
    )
    return structural(made, defaults=defaults)["properties"]["it"]


FIELDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "a whole number": (Annotated[int, Field(ge=1, le=9)], {
        "type": "integer", "minimum": 1, "maximum": 9, "format": "int32",
    }),
    "a large one": (Annotated[int, Field(ge=1, le=2**31)], {
        "type": "integer", "minimum": 1, "maximum": 2**31, "format": "int64",
    }),
    "a number": (Annotated[float, Field(ge=0, le=1)], {"type": "number", "minimum": 0, "maximum": 1}),
    "a truth value": (bool, {"type": "boolean"}),
    "one that may be left out": (bool | None, {"type": "boolean"}),
    "a choice": (Colour, {"type": "string", "enum": ["red", "blue"], "description": "A colour."}),
    "a constant": (Literal["a"], {"type": "string", "enum": ["a"]}),
    "a time": (AwareDatetime, {"type": "string", "format": "date-time"}),
    "anything": (JsonValue, {"x-kubernetes-preserve-unknown-fields": True}),
    "a quantity": (Quantity, {
        "x-kubernetes-int-or-string": True, "minimum": 0,
        "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
    }),
    "a list": (Annotated[tuple[bool, ...], Field(max_length=3)], {
        "type": "array", "maxItems": 3, "items": {"type": "boolean"}, "x-kubernetes-list-type": "atomic",
    }),
    "a list of what has keys": (
        Annotated[tuple[bool, ...], Field(max_length=3, json_schema_extra=keyed_by("type"))], {
        "type": "array", "maxItems": 3, "items": {"type": "boolean"}, "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }),
    "a mapping": (Annotated[dict[str, bool], Field(max_length=3)], {
        "type": "object", "maxProperties": 3, "additionalProperties": {"type": "boolean"},
    }),
}  # fmt: skip


@pytest.mark.parametrize(("annotation", "expected"), FIELDS.values(), ids=FIELDS)
def test_a_field_becomes_the_schema_of_its_type(annotation: Any, expected: dict[str, Any]) -> None:
    assert schema_of(annotation) == expected


class Cyclic(BaseModel):
    inner: "Cyclic | None" = None


REFUSED: dict[str, tuple[Any, str]] = {
    "two shapes": (Union[int, str], "Made.it: may have 2 shapes"),  # noqa: UP007 - what people write
    "a text without an end": (str, "Made.it: is of type string without maxLength"),
    "a list without an end": (list[bool], r"Made.it: is of type array without maxItems"),
    "a mapping without an end": (dict[str, bool], "Made.it: is of type object without maxProperties"),
    "a list of different things": (tuple[int, bool], "Made.it: is of type array with prefixItems"),
    "a set": (Annotated[set[bool], Field(max_length=3)], "Made.it: is of type array with uniqueItems"),
    "more than nothing": (Annotated[int, Field(gt=0)], "Made.it: is of type integer with exclusiveMinimum"),
    "what is wrong below": (Annotated[tuple[str, ...], Field(max_length=3)], r"Made.it\[\]: is of type str"),
    "a bound that is no float": (Annotated[int, Field(ge=0, le=2**63 - 1)], "Made.it: has a bound beyond"),
    "itself": (Cyclic, "Made.it.inner: Cyclic contains itself"),
}  # fmt: skip


@pytest.mark.parametrize(("annotation", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_no_api_server_takes_is_refused_with_its_place(annotation: Any, problem: str) -> None:
    with pytest.raises(NotStructural, match=problem):
        schema_of(annotation)


def test_a_part_stands_in_its_place_with_its_rules_and_the_words_of_its_field() -> None:
    assert schema_of(Inner, description="What\nit is.") == {
        "description": "What it is.",
        "type": "object",
        "properties": {
            "size": {"type": "integer", "minimum": 0, "maximum": 2**40, "format": "int64", "default": 1},
            "word": {"type": "string", "maxLength": 9},
        },
        "x-kubernetes-validations": [
            {"rule": "self.size < 9", "message": "is large; shrink it", "fieldPath": ".size"}
        ],
    }


def test_the_default_of_a_part_is_that_of_its_fields() -> None:
    assert schema_of(Inner, Inner())["default"] == {"size": 1}
    assert "default" not in schema_of(Inner | None, None)


def test_what_stands_in_a_list_has_no_default_and_what_stands_behind_it_has() -> None:
    class Listed(Inner):
        parts: Annotated[tuple[Inner, ...], Field(max_length=9)]
        last: Annotated[int, Field(ge=0, le=9)] = 3

    properties = schema_of(Listed)["properties"]
    assert "default" not in properties["parts"]["items"]["properties"]["size"]
    assert (properties["size"]["default"], properties["last"]["default"]) == (1, 3)


def test_what_is_empty_is_no_default() -> None:
    assert "default" not in schema_of(Annotated[str, Field(max_length=9)], "")
    assert schema_of(Annotated[bool, Field()], False)["default"] is False
    assert schema_of(Annotated[int, Field(ge=0, le=9)], 0)["default"] == 0


def test_a_status_has_no_defaults() -> None:
    assert "default" not in schema_of(Annotated[int, Field(ge=0, le=9)], 1, defaults=False)


def test_a_pattern_becomes_a_rule_that_says_what_to_write() -> None:
    what, hint = PATTERNS_IN_WORDS[NAME_PATTERN]
    assert schema_of(Name) == {
        "type": "string",
        "maxLength": 63,
        "x-kubernetes-validations": [
            {
                "rule": f"self.matches({quoted(NAME_PATTERN)})",
                "messageExpression": f"'\\'%s\\' is not {what}; {hint}'.format([self])",
            }
        ],
    }


def test_the_keys_of_a_mapping_are_checked_by_a_rule_on_the_mapping() -> None:
    schema = schema_of(Annotated[dict[Key, LabelValue], Field(max_length=3)])
    (rule,) = schema["x-kubernetes-validations"]
    assert rule["rule"].startswith("!self.exists(key, !key.matches('^([a-z0-9]")
    assert "is not the key of a label or annotation" in rule["messageExpression"]
    (value_rule,) = schema["additionalProperties"]["x-kubernetes-validations"]
    assert "is not the value of a label" in value_rule["messageExpression"]


def test_a_message_is_put_together_from_values() -> None:
    rule = Rule("self.a < self.b", "it's {{self.a}}, 100% of {{self.b}}; write less").schema()
    assert rule == {
        "rule": "self.a < self.b",
        "messageExpression": "'it\\'s %s, 100%% of %s; write less'.format([self.a, self.b])",
    }


def test_repeats_are_told_by_their_key() -> None:
    assert without_repeats("lane").schema()["rule"] == "self.all(each, self.exists_one(other, other == each))"
    by_name = without_repeats("handler", "name").schema()
    assert by_name["rule"] == "self.all(each, self.exists_one(other, other.name == each.name))"
    assert by_name["messageExpression"].endswith("[0].name])")
