"""Handlers of three queues that hear the same events."""

from galley import task


@task(queue="left", name="hear")
def of_left(n: int) -> int:
    """Return what was heard."""
    return n


@task(queue="middle", name="hear")
def of_middle(n: int) -> int:
    """Return what was heard."""
    return n


@task(queue="right", name="hear")
def of_right(n: int) -> int:
    """Return what was heard."""
    return n
