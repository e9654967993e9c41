"""A handler whose argument and result have every type that Galley carries."""

from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import msgspec
from pydantic import BaseModel

from galley import task

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: int


class Size(TypedDict):
    width: int
    height: int


class Address(BaseModel):
    street: str
    city: str


class Money(msgspec.Struct, frozen=True):
    amount: Decimal
    currency: Literal["EUR", "USD"] = "EUR"


@dataclass
class Page(Generic[T]):
    items: list[T]


@dataclass
class Order:
    id: UUID
    at: datetime
    day: date
    hour: time
    within: timedelta
    price: Money
    to: Address
    colour: Colour
    corner: Point
    size: Size
    seal: bytes
    folder: Path
    tags: set[str]
    span: tuple[int, str]
    counts: dict[int, str]
    lines: Page[Money]
    state: Literal["open", "closed"] = "open"
    note: str | None = None
    parts: list["Order"] = field(default_factory=list)


@task(queue="web")
def reorder(order: Order) -> Order:
    """Return an order as it came; its type is checked on the way in and on the way out."""
    if type(order) is not Order or type(order.to) is not Address or type(order.price.amount) is not Decimal:
        raise TypeError(f"not the types that were promised: {order!r}")
    return order
