"""What annotations promise: values are checked at the call, and arrive as the annotated type."""

import collections.abc
import enum
import json
import math
import re
import typing
import uuid
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import partial
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path, PurePosixPath
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
    Unpack,
)
from zoneinfo import ZoneInfo

import msgspec
import pytest
import typing_extensions
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    computed_field,
)

from galley import Graph, InputInvalid, call
from galley.annotated import parts
from galley.handler import Handler
from galley.json_value import encode_value
from galley.typed import Misfit, Signature, Typed, annotations_of, typed
from galley.workflow.result import previous

if TYPE_CHECKING:
    from nowhere_at_run_time import Ghost  # type: ignore[import-not-found]

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Row(TypedDict):
    name: str
    at: NotRequired[date]


class Pair(NamedTuple):
    one: int
    other: Decimal


@dataclass
class Point:
    x: int
    y: int = 0
    seen: list[date] = field(default_factory=list)


@dataclass
class Box(Generic[T]):
    held: T


class Circle(BaseModel):
    radius: float = Field(gt=0)
    centre: Point = Point(0)


class Struct(msgspec.Struct):
    at: datetime


@dataclass
class Blob:
    data: bytes
    when: date | uuid.UUID


class Named(BaseModel):
    radius: int = Field(default=1, alias="Radius")


class Area(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int = Field(validation_alias=AliasChoices("side", "s"), serialization_alias="S")

    @computed_field
    def square(self) -> int:
        return self.side**2


class Locked(BaseModel):
    word: SecretStr


@dataclass
class Lazy:
    ghost: "Ghost"


@dataclass(slots=True, kw_only=True, frozen=True)
class Kept:
    number: int
    name: str = "x"


@dataclass
class Scaled:
    number: int
    scale: InitVar[int] = 2

    def __post_init__(self, scale: int) -> None:
        self.number *= scale


class Partial(TypedDict, total=False):
    a: int
    b: Required[str]


class Flags(enum.Flag):
    ONE = 1
    TWO = 2


class Family(BaseModel):
    name: str
    children: list["Family"] = []


@dataclass
class Node(Generic[T]):
    held: T
    after: "Node[T] | None" = None


class Narrow(BaseModel):
    a: int


class Wide(BaseModel):
    a: int
    b: int = 0


class Word(enum.StrEnum):
    YES = "yes"


Loop = int | list["Loop"]
DAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, 30, 15, 250, tzinfo=UTC)

TRAVELS: list[tuple[Any, Any]] = [
    (int, 3), (int, 2**63), (float, 1.5), (float, 3), (str, "ü\u2028"), (bool, True), (None, None),
    (list, [1, "a"]), (dict, {"a": 1}), (Any, {"a": [1]}),
    (date, DAY), (datetime, NOON), (datetime, datetime(2026, 3, 1)), (time, time(9, 30)),  # noqa: DTZ001
    (timedelta, timedelta(days=1, microseconds=5)), (Decimal, Decimal("1.10")), (uuid.UUID, uuid.UUID(int=5)),
    (Colour, Colour.RED), (Level, Level.LOW), (bytes, b"\xff\x00"), (set[int], {1, 3}),
    (frozenset[str], frozenset({"a"})), (tuple[int, str], (1, "a")), (tuple[int, ...], (1, 2, 3)),
    (list[date], [DAY]), (dict[str, Decimal], {"a": Decimal("0.10")}), (dict[int, str], {1: "a"}),
    (Mapping[str, int], {"a": 1}), (Sequence[int], [1, 2]),
    (int | None, None), (date | None, DAY), (Literal["a", 1], "a"), (Row, {"name": "a", "at": DAY}),
    (Row, {"name": "a"}), (Pair, Pair(1, Decimal("2.50"))), (Point, Point(1, 2, [DAY])),
    (Box[date], Box(DAY)), (list[Box[Point]], [Box(Point(1))]), (Circle, Circle(radius=2)),
    (list[Circle], [Circle(radius=1)]), (Struct, Struct(NOON)), (PurePosixPath, PurePosixPath("/a/b")),
    (Path, Path("a")), (dict[str, Path], {"a": Path("b")}), (Annotated[int, "of something"], 4),
    (date | uuid.UUID, DAY), (date | uuid.UUID, uuid.UUID(int=7)), (Point | Circle, Circle(radius=1)),
    (Decimal | str, Decimal("1.5")), (Colour | None, Colour.BLUE),
    (dict[str, list[tuple[int, date]]], {"a": [(1, DAY)]}),
    (date | bytes, b"\xff"), (list[date | bytes], [b"\xff"]), (Blob, Blob(b"\xff", DAY)),
    (list[Blob], [Blob(b"\xff", DAY)]), (bytes | str, b"ab"), (str | date, "2026-12-24"),
    (Named, Named(Radius=2)), (list[Named], [Named(Radius=2)]), (Area, Area(side=3)),
    (IPv4Address, IPv4Address("10.0.0.1")), (IPv6Network, IPv6Network("fd00::/8")),
    (deque[date], deque([DAY])), (re.Pattern, re.compile("a+")), (Fraction, Fraction(1, 3)),
    (ZoneInfo, ZoneInfo("Europe/Berlin")), (HttpUrl, HttpUrl("http://a/b")),
    (Kept, Kept(number=1)), (NewType("UserId", int), 3), (Partial, {"b": "x"}),
    (Decimal, Decimal("Infinity")),
    (defaultdict[str, list[int]], defaultdict(list, {"a": [1]})),
    (frozenset[tuple[int, str]], frozenset({(1, "a")})),
    (dict[bytes, int], {b"\xff": 1}), (dict[uuid.UUID, int], {uuid.UUID(int=1): 1}),
    (dict[Level, int], {Level.LOW: 1}),
    (Flags, Flags.ONE | Flags.TWO), (Family, Family(name="a", children=[Family(name="b")])),
    (Node[Decimal], Node(Decimal(1), Node(Decimal(2)))), (int, 2**70),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (datetime, NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))),
    (list[Wide | Narrow], [Wide(a=1, b=2)]), (Annotated[int, Field(ge=0)], 3),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value"), TRAVELS)
def test_a_value_of_the_annotated_type_arrives_as_it_was(annotation: Any, value: Any) -> None:
    how = typed(annotation)
    encoded = encode_value(value if how is None else how.encode(value))
    arrived = json.loads(encoded) if how is None else how.decode(encoded)
    assert arrived == value
    assert annotation in (float, Any) or type(arrived) is type(value)


WRONG: list[tuple[Any, Any, str]] = [
    (int, "3", "Expected `int`, got `str`"), (int, 1.5, "Expected `int`"), (str, 3, "Expected `str`"),
    (bool, 1, "Expected `bool`"), (list[int], ["a"], r"Expected `int`, got `str` - at `\$\[0\]`"),
    (date, "yesterday", "Invalid RFC3339 encoded date"), (Colour, "green", "Invalid enum value 'green'"),
    (Point, {"y": 1}, "missing required field `x`"),
    (Point, Point("one"), "Expected `int`"),  # type: ignore[arg-type]
    (Circle, {"radius": -1}, "radius: Input should be greater than 0"), (Literal["a"], "b", "Invalid enum"),
    (Row, {"at": DAY}, "missing required field `name`"),
    (tuple[int, str], (1,), "Expected `array` of length 2"),
    (Decimal, "ten", "Invalid decimal"), (float, math.nan, "NaN"), (list[float], [math.inf], "infinite"),
    (date | uuid.UUID, "neither", "Input should be"), (bytes, "\u00e9", "base64"),
    (None, 1, "Expected `null`"),
    (str | bytes, b"ab", "a bytes would come out as str"),
    (datetime | str, "2020", "a str would come out as datetime"),
    (Locked, Locked(word=SecretStr("x")), "word is a secret"),
    (Blob, {"data": "_"}, "data: Data should be valid base64"),
    (Loop, [1, [2]], "cannot be made from JSON"), (Lazy, Lazy(1), "cannot be made from JSON"),
    (Point, object(), "unsupported"), (complex, 1j, "unsupported"),
    (Annotated[int, Field(ge=0)], -3, "greater than or equal to 0"),
    (dict[str, Annotated[str, AfterValidator(str.upper), Field(max_length=2)]], {"a": "abc"}, "at most 2"),
    (Annotated[int, msgspec.Meta(ge=0)], -3, "Expected `int` >= 0"),
    (Scaled, Scaled(1, 5), r"Scaled takes scale \(InitVar\)"), (list[Scaled], [Scaled(1, 5)], "takes scale"),
    (Wide | Narrow, Narrow(a=1), "Narrow would come out as Wide: in JSON, the types of"),
    (list[Wide | Narrow], [Narrow(a=1)], "Narrow would come out as Wide"),
    (dict[str, tuple[Wide | Narrow, int]], {"a": (Narrow(a=1), 1)}, "Narrow would come out as Wide"),
    (list[int] | set[int], {1}, "set would come out as list"),
    (tuple[int, int] | list[int], (1, 2), "tuple would come out as list"),
    (Partial, {"a": 1}, "missing required field `b`"),
    (dict[tuple[int, int], str], {(1, 2): "x"}, "unsupported"),
]  # fmt: skip


def test_a_member_of_an_enumeration_may_travel_as_the_text_that_it_is() -> None:
    how = Typed(str | Word)
    assert how.decode(encode_value(how.encode(Word.YES))) == Word.YES


@pytest.mark.parametrize(("annotation", "value", "told"), WRONG)
def test_another_value_is_refused_with_what_was_expected(annotation: Any, value: Any, told: str) -> None:
    if annotation is float and value is not None:
        with pytest.raises(ValueError, match="NaN"):
            encode_value(value)
        return
    with pytest.raises(Misfit, match=told):
        Typed(annotation).encode(value)


def test_the_call_names_the_argument() -> None:
    def book(day: date, seats: int = 1) -> date:
        return day

    handler = Handler(book, "travel")
    assert json.loads(bytes(handler.call(DAY, seats=2).input)) == {"day": "2026-03-01", "seats": 2}
    with pytest.raises(InputInvalid, match=r"argument 'seats': Expected `int`, got `str`") as error:
        handler.call(DAY, seats="two")  # type: ignore[arg-type]
    assert "seats: int = 1" in error.value.hint


def bind(function: Any, **named: Any) -> dict[str, Any]:
    types = Signature(function)
    data = encode_value(types.encode(named))
    return types.decode(data, json.loads(data))


def test_arguments_that_are_not_annotated_are_as_json_has_them() -> None:
    def handler(one, *others, at: datetime, **rest):  # type: ignore[no-untyped-def]
        pass

    assert bind(handler, one={"a": (1,)}, at=NOON, more=DAY) == {
        "one": {"a": [1]}, "at": NOON, "more": "2026-03-01",
    }  # fmt: skip


def test_a_default_of_none_says_nothing_about_an_argument_that_is_not_annotated() -> None:
    def echo(value=None, *, word=None):  # type: ignore[no-untyped-def]
        return value, word

    for value in (3, "text", [1, {"a": None}], None):
        assert bind(echo, value=value, word=value) == {"value": value, "word": value}


def test_what_keyword_arguments_collect_is_of_their_annotated_type() -> None:
    def handler(seats: int, *others: int, **rest: date) -> None:
        pass

    sent = {"seats": 1, "begin": DAY, "others": DAY, "rest": DAY}
    assert bind(handler, **sent) == sent
    with pytest.raises(Misfit, match="argument 'end': Expected `date`, got `int`"):
        Signature(handler).encode({"seats": 1, "end": 5})
    with pytest.raises(Misfit, match="argument 'end': Invalid"):
        Signature(handler).decode(b'{"seats":1,"end":"soon"}', {"seats": 1, "end": "soon"})


class Trip(TypedDict, total=False):
    day: Required[Annotated[date, "when"]]
    note: Any
    seats: int


class Written(TypedDict):
    day: "Required[date]"
    note: "NotRequired[Trip]"


class WrittenInPart(TypedDict, total=False):
    day: "Required[date]"
    note: "Trip"


@pytest.mark.parametrize("of", [Written, WrittenInPart])
def test_keys_are_required_as_marked_also_where_annotations_are_text(of: Any) -> None:
    def handler(**trip: Any) -> None:
        pass

    handler.__annotations__["trip"] = Unpack[of]
    assert bind(handler, day=DAY) == {"day": DAY}
    with pytest.raises(Misfit, match=f"'day' is missing, which {of.__name__} requires"):
        Signature(handler).encode({"note": {"day": DAY}})


@pytest.mark.parametrize("unpack", [typing.Unpack, typing_extensions.Unpack])
def test_keyword_arguments_are_those_of_an_unpacked_typed_dict(unpack: Any) -> None:
    def handler(name: str, **trip: Any) -> None:
        pass

    handler.__annotations__["trip"] = unpack[Trip]
    sent = {"name": "Ada", "day": DAY, "note": {"a": 1}}
    assert bind(handler, **sent) == sent
    types = Signature(handler)
    for named, told in (
        ({"name": "Ada", "day": DAY, "seats": "two"}, "argument 'seats': Expected `int`, got `str`"),
        ({"name": "Ada", "day": DAY, "saets": 2}, "argument 'saets': Trip has no such key"),
        ({"name": "Ada", "seats": 2}, "argument 'day' is missing, which Trip requires"),
    ):
        with pytest.raises(Misfit, match=told):
            types.encode(named)
        with pytest.raises(Misfit, match=told):
            types.decode(encode_value(named), json.loads(encode_value(named)))
    assert types.encode({"name": "Ada", "seats": 2}, partial=True) == {"name": "Ada", "seats": 2}


class Haunted(TypedDict):
    ghost: "Ghost"


@pytest.mark.parametrize("of", [Haunted, dict, T])
def test_keyword_arguments_of_what_is_not_known_at_run_time_are_as_json_has_them(of: Any) -> None:
    def handler(**rest: Any) -> None:
        pass

    handler.__annotations__["rest"] = Unpack[of]
    assert bind(handler, at=DAY) == {"at": "2026-03-01"}


def test_a_key_that_a_step_gives_is_not_missed() -> None:
    def handler(**trip: Unpack[Trip]) -> None:
        pass

    call = Handler(handler, "travel").step(day=previous)
    assert bytes(call.input) == b"{}"
    with pytest.raises(InputInvalid, match="'day' is missing, which Trip requires"):
        Handler(handler, "travel").call(seats=2)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "given", [[previous], {"a": [1, previous["size"]]}, (Graph().add("pay", call("q", "h")),)]
)
def test_the_result_of_a_step_inside_a_list_or_an_object_is_refused(given: Any) -> None:
    def handler(value: object) -> None: ...

    for make in (Handler(handler, "travel").step, partial(call, "travel", "go")):
        with pytest.raises(
            InputInvalid, match=r"the result of (the step before|step 'pay') is inside a list"
        ):
            make(value=given)


def test_a_default_of_none_permits_none() -> None:
    def handler(at: datetime = None, n: int = None) -> None:  # type: ignore[assignment] # noqa: RUF013
        pass

    assert bind(handler, at=None, n=None) == {"at": None, "n": None}


def test_what_exists_for_type_checkers_alone_is_left_out_and_the_rest_is_read() -> None:
    def handler(ghost: "Ghost", ghosts: list["Ghost"], day: "date") -> "Ghost":
        return ghost

    assert bind(handler, ghost={"a": 1}, ghosts=[1], day=DAY) == {
        "ghost": {"a": 1},
        "ghosts": [1],
        "day": DAY,
    }
    assert Signature(handler).result is None


def test_types_defined_below_the_function_are_found() -> None:
    def handler(later: "Later") -> None:  # type: ignore[name-defined] # noqa: F821
        pass

    handler.__globals__["Later"] = date
    assert bind(handler, later=DAY) == {"later": DAY}


def test_json_types_are_passed_through_without_a_copy() -> None:
    def handler(n: int, names: list, about: dict[str, Any], free: Any) -> None:  # type: ignore[type-arg]
        pass

    named = {"n": 1, "names": ["a"], "about": {"a": 1}, "free": None}
    assert Signature(handler).encode(named) is named
    assert Signature(handler).decode(b"not looked at", named) is named


def test_a_type_that_cannot_be_made_from_json_is_named() -> None:
    class Connection:
        pass

    with pytest.raises(Misfit, match="Connection cannot be made from JSON"):
        Typed(Connection).decode(b'{"a": 1}')


@pytest.mark.parametrize("kind", [typing.Iterable[Decimal], collections.abc.Iterable[Decimal]])
def test_an_iterable_is_a_list_of_what_it_holds(kind: Any) -> None:
    how = Typed(kind)
    assert how.decode(b'["1.10"]') == [Decimal("1.10")]
    assert bytes(how.encode((Decimal("1.10"),))) == b'["1.10"]'
    with pytest.raises(Misfit):
        how.encode([None])


@pytest.mark.parametrize("kind", [int, float, int | None])
def test_a_bool_is_right_where_a_number_is_expected_on_both_ways(kind: Any) -> None:
    assert Typed(kind).encode(True) is True
    assert Typed(kind).decode(b"true") is True
    assert Typed(kind).decode(b"false") is False
    with pytest.raises(Misfit):
        Typed(kind).decode(b'"true"')


Item = typing.TypeVar("Item")


class Shelf(typing.Generic[Item]):
    """A class that nothing reads from JSON."""


def test_a_generic_class_that_cannot_be_read_is_named() -> None:
    with pytest.raises(Misfit, match=r"Shelf.*cannot be made from JSON"):
        Typed(Shelf[int]).decode(b"[1]")


def test_an_annotation_in_quotes_is_read_where_annotations_are_text() -> None:
    names: dict[str, Any] = {"Point": Point, "__name__": __name__}
    exec("from __future__ import annotations\ndef f(x: 'list[Point]') -> 'Point | None': ...", names)
    found = annotations_of(names["f"])
    assert found == {"x": list[Point], "return": Point | None}


def test_a_whole_number_is_a_float_for_a_handler_that_takes_one() -> None:
    def half(of: float) -> float:
        return of / 2

    arrived = Signature(half).decode(b'{"of": 5}', {"of": 5})
    assert type(arrived["of"]) is float


def test_what_is_quoted_in_the_brackets_of_an_annotation_is_found_below_the_function() -> None:
    for written in ("list['Point']", "'typing.Optional[list[\"Point\"]]'", "typing.Annotated['Point', 1]"):
        names: dict[str, Any] = {"typing": typing, "__name__": __name__}
        for future in ("", "from __future__ import annotations\n"):
            exec(f"{future}def f(x: {written}) -> dict[str, 'Point']: ...", names)
            names["Point"] = Point
            found = annotations_of(names["f"])
            assert found["return"] == dict[str, Point]
            assert Point in {*parts(found["x"])}


@dataclass
class Strict:
    """Raises what no library expects of it."""

    number: int

    def __post_init__(self) -> None:
        if self.number > 9:
            raise KeyError("too large")


def test_an_argument_whose_class_raises_is_refused_at_the_call_and_tells_the_worker_the_exception() -> None:
    number = Strict(1)
    number.number = 10
    with pytest.raises(Misfit, match="making it raised KeyError: 'too large'"):
        Typed(Strict).encode(number)
    with pytest.raises(Misfit, match="making it raised KeyError: 'too large'"):
        Typed(Strict).read(b'{"number": 10}')
    with pytest.raises(KeyError):
        Typed(Strict).decode(b'{"number": 10}')
