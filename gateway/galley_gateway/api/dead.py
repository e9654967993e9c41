"""Operations on dead letters: tasks that are not tried again."""

from typing import Final

from starlette.responses import Response

from galley.dead_task import Selection
from galley.errors import DeadLetterNotFound, QueueNotFound, RedriveIncomplete
from galley_gateway.access import Right
from galley_gateway.api import model
from galley_gateway.api.tasks import PAGED, QUEUE, cut
from galley_gateway.api.view import dead_view
from galley_gateway.body import text
from galley_gateway.operation import Ask, Operation, Parameter, reply

DEAD: Final = f"{QUEUE}/dead-letters"


async def list_dead(ask: Ask) -> Response:
    """Return a page of the dead letters of a queue."""
    which = Selection(
        handler=text(ask.query, "handler"), reason=text(ask.query, "reason"), labels=text(ask.query, "labels")
    )
    found = await ask.client.dead_letters.find(ask.queue, which)
    some, following = cut(found, ask.query)
    return reply(model.DeadLetterList([dead_view(dead) for dead in some], len(found), following))


async def get_dead(ask: Ask) -> Response:
    """Return one dead letter with its input."""
    return reply(dead_view(await ask.client.dead_letters.get(ask.queue, ask.name), whole=True))


async def drop(ask: Ask) -> Response:
    """Delete one dead letter for good."""
    await ask.client.dead_letters.drop(ask.queue, ask.name)
    return Response(status_code=204)


async def redrive_many(ask: Ask) -> Response:
    """Have dead letters run again."""
    which: model.Which = ask.body
    chosen = Selection(handler=which.handler, reason=which.reason, labels=which.labels)
    done = await ask.client.dead_letters.redrive_all(ask.queue, chosen)
    return reply(model.Redrivens([dead.id for dead in done]))


OPERATIONS: Final = (
    Operation(
        "listDeadLetters", "GET", DEAD, Right("list", "tasks"), list_dead, "List dead letters",
        "Oldest first.", answers=model.DeadLetterList,
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
        takes=model.Which, answers=model.Redrivens, example={"reason": "AttemptsExhausted"},
        example_answer={"redriven": ["0c5nqSYtGkDaxAVzBqNEJw"]}, fails=(QueueNotFound, RedriveIncomplete),
    ),
    Operation(
        "getDeadLetter", "GET", f"{DEAD}/{{id}}", Right("get", "tasks"), get_dead, "Look at a dead letter",
        "With its input.", answers=model.DeadLetterView, fails=(DeadLetterNotFound,),
    ),
    Operation(
        "dropDeadLetter", "DELETE", f"{DEAD}/{{id}}", Right("delete", "tasks"), drop, "Delete a dead letter",
        "For good. The record of its task says for a while that it failed.",
        status=((204, "It is deleted."),), fails=(DeadLetterNotFound,),
    ),
)  # fmt: skip
