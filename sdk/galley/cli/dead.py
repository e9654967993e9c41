"""`galley dead`: tasks that will not be tried again."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from galley.cli.command import Command, text
from galley.cli.confirm import confirm_argument, confirmed
from galley.cli.duration import age_argument
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode, exit_code_of
from galley.cli.labels import labels_shown, selector_argument
from galley.cli.output import Column, Format, Listing, format_argument, rfc_3339, write_document
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import AsyncClient
from galley.dead_task import DeadTask, Selection
from galley.errors import GalleyError, NotRedrivable, RedriveIncomplete
from galley.redrive import check_rate
from galley.shown import safe, safe_json

_ACTIONS: Final = ("list", "show", "redrive", "drop", "edit")


def _document(dead: DeadTask) -> dict[str, Any]:
    """Return a dead letter as plain data, with stable names for programs."""
    values = msgspec.to_builtins(
        {
            "queue": dead.queue, "id": dead.id, "handler": dead.handler, "reason": dead.reason,
            "message": dead.message, "traceback": dead.traceback, "diedAt": dead.died_at,
            "submittedAt": dead.submitted_at, "worker": dead.worker, "attempt": dead.attempt,
            "lane": dead.lane, "uid": dead.uid, "body": dead.body,
            "attempts": dead.attempts, "labels": dead.labels or None,
        }
    )  # fmt: skip
    document = {name: value for name, value in values.items() if value not in (None, "", [])}
    return document | ({"input": msgspec.json.decode(dead.input)} if dead.input is not None else {})


LETTERS: Final = Listing[DeadTask](
    (
        Column("queue", lambda dead: dead.queue),
        Column("id", lambda dead: dead.id),
        Column("handler", lambda dead: dead.handler),
        Column("reason", lambda dead: dead.reason),
        Column("attempt", lambda dead: dead.attempt),
        Column("died", lambda dead: dead.died_at),
        Column("message", lambda dead: dead.message, wide=True),
        Column("worker", lambda dead: dead.worker, wide=True),
    ),
    name=lambda dead: f"{dead.queue}/{dead.id}",
    document=_document,
    empty="no dead letters",
)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", metavar="|".join(_ACTIONS), choices=_ACTIONS)
    parser.add_argument(
        "targets", metavar="QUEUE|QUEUE/ID", type=text, nargs="+", help="a queue, or single tasks"
    )
    parser.add_argument("--all", action="store_true", help="required to redrive or drop all of a queue")
    parser.add_argument("--handler", type=text, help="only those of this handler; with edit, the new handler")
    parser.add_argument("--reason", type=text, help="only those with this reason, such as AttemptsExhausted")
    parser.add_argument(
        "--older-than", type=age_argument, metavar="AGE", help="only those that failed at least this long ago"
    )
    parser.add_argument(
        "--younger-than",
        type=age_argument,
        metavar="AGE",
        help="only those that failed less than this long ago",
    )
    selector_argument(parser)
    confirm_argument(parser)
    parser.add_argument("--rate", type=float, metavar="NUMBER", help="redrive at most this many per second")
    parser.add_argument("--input", type=text, metavar="JSON", help="with edit: the new input")
    format_argument(parser, *Format)
    server_arguments(parser, reads=True)


async def _run(options: Namespace, terminal: Terminal) -> int:
    _check(options)
    async with connected(options, terminal) as client:
        match options.action:
            case "list":
                found = [
                    dead for target in options.targets for dead in await _listed(client, target, options)
                ]
                LETTERS.write(found, options.output, terminal)
            case "show":
                for target in options.targets:
                    _show(await client.dead_letters.get(*_one(target)), options.output, terminal)
            case "edit":
                await _edit(client, options, terminal)
            case _:
                return await _each(client, options, terminal)
    return ExitCode.DONE


def _check(options: Namespace) -> None:
    if options.action == "edit" and options.input is None and options.handler is None:
        raise Misuse("nothing is to be edited", "give --input JSON, --handler NAME, or both")
    if options.action == "edit" and len(options.targets) > 1:
        raise Misuse("only one dead letter can be edited at a time", "name one: galley dead edit QUEUE/ID")
    if options.input is not None and options.action != "edit":
        raise Misuse("--input is for edit", "galley dead edit QUEUE/ID --input JSON")
    if options.rate is not None and options.action != "redrive":
        raise Misuse("--rate is for redrive", "galley dead redrive QUEUE --all --rate NUMBER")
    if options.action not in ("redrive", "drop") and (options.yes or options.dry_run):
        raise Misuse("--yes and --dry-run are for redrive and drop", "leave them out")
    check_rate(options.rate)
    if options.action in ("redrive", "drop"):
        for target in options.targets:
            if "/" not in target and not options.all:
                raise Misuse(
                    f"{target!r} is a whole queue",
                    f"add --all for all its dead letters that fit, or name one: {target}/ID",
                )


def _selection(options: Namespace) -> Selection:
    return Selection(
        handler=options.handler, reason=options.reason,
        older_than=options.older_than, younger_than=options.younger_than,
        labels=options.selector or None,
    )  # fmt: skip


def _one(target: str) -> tuple[str, str]:
    queue, slash, task_id = target.partition("/")
    if not slash:
        raise Misuse(
            f"{target!r} names no dead letter", f"name one: {target}/ID; `galley dead list {target}`"
        )
    return queue, task_id


async def _listed(client: AsyncClient, target: str, options: Namespace) -> list[DeadTask]:
    if "/" in target:
        return [await client.dead_letters.get(*_one(target))]
    return await client.dead_letters.find(target, _selection(options))


async def _each(client: AsyncClient, options: Namespace, terminal: Terminal) -> int:
    code = ExitCode.DONE
    letters = client.dead_letters
    for target in options.targets:
        if "/" not in target and not await _agreed(client, target, options, terminal):
            code = code if options.dry_run else ExitCode.FAILED
            continue
        try:
            if options.dry_run and "/" in target:
                dead = await letters.get(*_one(target))
                deed = "dropped" if options.action == "drop" else "queued again"
                terminal.result(f"task/{dead.id}: would be {deed}")
            elif "/" not in target and options.action == "redrive":
                done = await letters.redrive_all(target, _selection(options), rate=options.rate)
                terminal.result(f"queue/{target}: {len(done)} queued again")
            elif "/" not in target:
                gone = await letters.drop_all(target, _selection(options))
                terminal.result(f"queue/{target}: {len(gone)} dropped")
            elif options.action == "redrive":
                terminal.result(f"task/{_one(target)[1]}: {await letters.redrive(*_one(target))}")
            else:
                await letters.drop(*_one(target))
                terminal.result(f"task/{_one(target)[1]}: dropped")
        except GalleyError as error:
            if not isinstance(error, NotRedrivable | RedriveIncomplete) and "/" not in target:
                raise
            terminal.complain(error)
            code = exit_code_of(error)
    return code


async def _agreed(client: AsyncClient, queue: str, options: Namespace, terminal: Terminal) -> bool:
    """Return whether a person who knows how many dead letters are meant agrees; or none is meant."""
    many = len(await client.dead_letters.find(queue, _selection(options)))
    if not many and not options.dry_run:
        return True
    letters = "1 dead letter" if many == 1 else f"{many or 'no'} dead letters"
    deed = f"drop {letters} of queue {queue} for good"
    if options.action == "redrive":
        pace = f", at most {options.rate:g} a second" if options.rate is not None else ""
        deed = f"queue {letters} of queue {queue} again{pace}"
    return confirmed(deed, terminal, options)


async def _edit(client: AsyncClient, options: Namespace, terminal: Terminal) -> None:
    changes: dict[str, Any] = {}
    if options.input is not None:
        try:
            changes["input"] = msgspec.json.decode(options.input.encode())
        except (msgspec.DecodeError, RecursionError) as error:
            raise Misuse(
                f"the input is not JSON: {error}", "quote it for the shell: '{\"name\": 1}'"
            ) from None
    if options.handler is not None:
        changes["handler"] = options.handler
    dead = await client.dead_letters.edit(*_one(options.targets[0]), **changes)
    terminal.result(f"task/{dead.id}: edited; galley dead redrive {dead.queue}/{dead.id} runs it")


def _show(dead: DeadTask, form: Format | None, terminal: Terminal) -> None:
    if form in (Format.JSON, Format.YAML):
        write_document(_document(dead), form, terminal)
        return
    for line in _lines(dead):
        terminal.result(line)


def _lines(dead: DeadTask) -> Iterator[str]:
    fields = {
        "Task": dead.id, "Queue": dead.queue, "Handler": dead.handler, "Lane": dead.lane,
        "Labels": labels_shown(dead.labels),
        "Reason": dead.reason, "Message": dead.message, "Died": rfc_3339(dead.died_at), "Worker": dead.worker,
        "Attempt": str(dead.attempt),
        "Submitted": rfc_3339(dead.submitted_at) if dead.submitted_at else "", "Declared as": dead.uid,
    }  # fmt: skip
    for name, value in fields.items():
        if value:
            yield f"{name + ':':<12}{safe(value)}"
    if dead.input is not None:
        yield f"{'Input:':<12}{safe_json(bytes(dead.input).decode())}"
    if dead.body is not None:
        yield f"{'Bytes:':<12}{dead.body[:200]!r}"
    for past in dead.attempts:
        yield f"Attempt {past.number} on {safe(past.worker)}: {safe(past.reason)}: {safe(past.message)}"
        yield from (f"    {safe(line)}" for line in past.traceback.splitlines())
    if dead.traceback:
        yield "Last attempt:"
        yield from (f"    {safe(line)}" for line in dead.traceback.splitlines())


command: Final = Command(
    "dead",
    "List, show, edit, drop and redrive dead letters",
    _arguments,
    _run,
    (
        "galley dead list images --reason AttemptsExhausted",
        "galley dead redrive images --all --rate 10 --yes",
    ),
)
