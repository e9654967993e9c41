"""Operations on dead letters: tasks that are not tried again."""

from datetime import datetime
from typing import Any, Final

from msgspec import UNSET, Struct
from starlette.responses import Response

from galley.dead_task import DeadTask, Selection
from galley.errors import DeadLetterNotFound, QueueNotFound, RedriveIncomplete
from galley_gateway.access import Right
from galley_gateway.api.paging import PAGED, cut
from galley_gateway.api.queues import QUEUE
from galley_gateway.body import text
from galley_gateway.operation import Ask, Operation, Parameter, reply

DEAD: Final = f"{QUEUE}/dead-letters"


class DeadLetterView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A task that is not tried again."""

    id: str
    queue: str
    reason: str
    message: str
    died_at: datetime
    attempt: int
    lane: str
    handler: str = ""
    worker: str = ""
    submitted_at: datetime | None = None
    traceback: str = ""
    labels: dict[str, str] = {}
    input: Any = UNSET


class DeadLetterList(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Dead letters of a queue, oldest first."""

    dead_letters: list[DeadLetterView]
    total: int
    next: str = ""


class Which(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Which dead letters are meant; what is left out admits all."""

    handler: str | None = None
    reason: str | None = None
    labels: str | None = None


class Redrivens(Struct, frozen=True):
    """The ids of dead letters that run again."""

    redriven: list[str]


def dead_view(dead: DeadTask, *, whole: bool = False) -> DeadLetterView:
    """Return a dead letter.

    Args:
        dead: the dead letter.
        whole: whether to add its input.
    """
    return DeadLetterView(
        dead.id, dead.queue, dead.reason, dead.message, dead.died_at, dead.attempt, dead.lane, dead.handler,
        dead.worker, dead.submitted_at, dead.traceback, dead.labels,
        dead.input if whole and dead.input is not None else UNSET,
    )  # fmt: skip


async def list_dead(ask: Ask) -> Response:
    """Return a page of the dead letters of a queue."""
    which = Selection(
        handler=text(ask.query, "handler"), reason=text(ask.query, "reason"), labels=text(ask.query, "labels")
    )
    found = await ask.client.dead_letters.find(ask.queue, which)
    some, following = cut(found, ask.query)
    return reply(DeadLetterList([dead_view(dead) for dead in some], len(found), following))


async def get_dead(ask: Ask) -> Response:
    """Return one dead letter with its input."""
    return reply(dead_view(await ask.client.dead_letters.get(ask.queue, ask.name), whole=True))


async def drop(ask: Ask) -> Response:
    """Delete one dead letter for good."""
    await ask.client.dead_letters.drop(ask.queue, ask.name)
    return Response(status_code=204)


async def redrive_many(ask: Ask) -> Response:
    """Have dead letters run again."""
    which: Which = ask.body
    chosen = Selection(handler=which.handler, reason=which.reason, labels=which.labels)
    done = await ask.client.dead_letters.redrive_all(ask.queue, chosen)
    return reply(Redrivens([dead.id for dead in done]))


OPERATIONS: Final = (
    Operation(
        "listDeadLetters", "GET", DEAD, Right("list", "tasks"), list_dead, "List dead letters",
        "Oldest first.", answers=DeadLetterList,
        parameters=(
            Parameter("handler", "Only those of this handler."),
            Parameter("reason", "Only those with this reason, such as `AttemptsExhausted`."),
            Parameter("labels", "A selector, such as `team=billing`."),
            *PAGED,
        ),
        fails=(QueueNotFound,),
    ),
    Operation(
        "redriveDeadLetters", "POST", f"{DEAD}/redrive", Right("patch", "tasks"), redrive_many,
        "Run dead letters again", "All those that fit, oldest first; an empty object means all of the queue.",
        takes=Which, answers=Redrivens, example={"reason": "AttemptsExhausted"},
        example_answer={"redriven": ["0c5nqSYtGkDaxAVzBqNEJw"]}, fails=(QueueNotFound, RedriveIncomplete),
    ),
    Operation(
        "getDeadLetter", "GET", f"{DEAD}/{{id}}", Right("get", "tasks"), get_dead, "Look at a dead letter",
        "With its input.", answers=DeadLetterView, fails=(DeadLetterNotFound,),
    ),
    Operation(
        "dropDeadLetter", "DELETE", f"{DEAD}/{{id}}", Right("delete", "tasks"), drop, "Delete a dead letter",
        "For good. The record of its task says for a while that it failed.",
        status=((204, "It is deleted."),), fails=(DeadLetterNotFound,),
    ),
)  # fmt: skip
