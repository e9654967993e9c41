"""Condition: one thing that is true of an object, false, or not known, and since when."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from galley.resources.meta import Part, Whole


class Truth(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Part):
    """One thing that is true of an object, false, or not known, and since when."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    """What it is about, in CamelCase, such as `Ready`."""

    status: Truth
    """Whether it holds: `True`, `False` or `Unknown`."""

    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """Why, as one word in CamelCase that programs may compare."""

    message: str = Field("", max_length=4096)
    """Why, as a sentence for people that says what to do."""

    last_transition_time: AwareDatetime
    """Time at which `status` last changed."""

    observed_generation: Whole | None = Field(None, ge=0, le=2**53 - 1)
    """Generation of the object this was found for; an older one than the object's means that its last
    change has not been looked at yet."""


def with_condition(conditions: Sequence[Condition], fresh: Condition) -> tuple[Condition, ...]:
    """Return conditions with one replaced, in their order; its time is kept while its status stays."""
    before = next((each for each in conditions if each.type == fresh.type), None)
    if before is None:
        return (*conditions, fresh)
    if before.status is fresh.status:
        fresh = fresh.model_copy(update={"last_transition_time": before.last_transition_time})
    return tuple(fresh if each is before else each for each in conditions)


def condition(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """Return the condition of a type."""
    return next((each for each in conditions if each.type == kind), None)
