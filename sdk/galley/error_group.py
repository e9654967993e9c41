"""Takes our errors out of the groups that task groups make of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from galley.errors import GalleyError

E = TypeVar("E", bound=BaseException)


@contextmanager
def ungrouped() -> Iterator[None]:
    """Raise the first of our errors by itself where a group would come out, whatever group it is in.

    Callers see one error, and catch `GalleyError` whether or not something ran concurrently. A group with
    other exceptions in it is a bug of Galley and is raised whole.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        ours, others = group.split(GalleyError)
        if ours is None or others is not None:
            raise
        raise first_of(ours) from None


def first_of(group: BaseExceptionGroup[E]) -> E:
    """Return the first exception of a group, or of the groups in it."""
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
