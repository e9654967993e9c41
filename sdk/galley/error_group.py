"""Takes our errors out of the groups that task groups make of them."""

from collections.abc import Iterator
from contextlib import contextmanager

from galley.errors import GalleyError


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
        raise _first(ours) from None


def _first(group: BaseExceptionGroup[GalleyError]) -> GalleyError:
    each = group.exceptions[0]
    return _first(each) if isinstance(each, BaseExceptionGroup) else each
