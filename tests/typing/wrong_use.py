"""Each line marked `# wrong: CODE` is a mistake of a user that mypy must find; the other lines are fine."""

from types import CoroutineType
from typing import Any

import galley
from galley import AsyncClient, AsyncHandle, Call, When, task


@task(queue="images")
def thumbnail(path: str, edge: int = 160) -> dict[str, int]:
    """Make a picture small."""
    return {path: edge}


@task
async def summary(paths: list[str]) -> str:
    """Sum up."""
    return ", ".join(paths)


@task
def length(text: str) -> CoroutineType[Any, Any, int]:
    """Be of the type that pyright gives to each async function."""
    raise NotImplementedError


def handlers_keep_their_signature() -> None:
    """Arguments are those of the function."""
    thumbnail("a.png", 80)
    thumbnail.call("a.png", edge=80)
    thumbnail.call(wrong=1)  # wrong: call-arg
    thumbnail.call("a.png", edge="large")  # wrong: arg-type
    thumbnail.call()  # wrong: call-arg
    summary.call("a.txt")  # wrong: call-overload
    thumbnail.delay("a.png")  # wrong: attr-defined


def names_are_known() -> None:
    """A name that is not there is found, although names are imported when they are used."""
    galley.Clinet()  # wrong: attr-defined


async def results_have_the_handlers_type(client: AsyncClient) -> None:
    """Also that of an async function, without its coroutine."""
    small: AsyncHandle[dict[str, int]] = await client.submit(thumbnail.call("a.png"))
    text: str = await (await client.submit(summary.call(["a.txt"]))).result()
    number: int = await (await client.submit(summary.call(["a.txt"]))).result()  # wrong: assignment
    other: AsyncHandle[str] = await client.submit(thumbnail.call("a.png"))  # wrong: arg-type
    long: int = await (await client.submit(length.call("a.txt"))).result()
    print(small, text, number, other, long)  # noqa: T201 - so that they are used


async def what_is_submitted_is_a_call(client: AsyncClient) -> None:
    """Not a function, and not its result."""
    await client.submit(thumbnail)  # wrong: call-overload
    await client.submit(thumbnail("a.png"))  # wrong: call-overload
    await client.submit(thumbnail.call("a.png"), When(lane="urgent"))  # wrong: arg-type
    await client.submit_many([thumbnail.call("a.png"), thumbnail.call("b.png")])
    await client.submit_many(thumbnail.call("a.png"))  # wrong: arg-type


def a_call_cannot_be_changed(call: Call[str]) -> None:
    """Values are frozen."""
    call.queue = "other"  # wrong: misc
    print(galley.no_such_name)  # noqa: T201  # wrong: attr-defined
