"""`galley schedule`: what runs again and again."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Raw

from galley.calls import Call
from galley.cli.command import Command, one_of, text
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.one_by_one import one_by_one
from galley.cli.output import Column, Format, Listing, format_argument, rfc_3339, write_document
from galley.cli.register import import_module, register
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import AsyncClient
from galley.envelope import NO_INPUT, encode_input
from galley.lanes import HIGHEST_FIRST
from galley.repeat import CatchUp, Overlap, repeat_of
from galley.schedule import Origin
from galley.schedules import ScheduleView
from galley.shown import safe, safe_json

_ACTIONS: Final = ("list", "show", "create", "suspend", "resume", "run-now", "delete", "register")


def _document(view: ScheduleView) -> dict[str, Any]:
    """Return a schedule as plain data, with stable names for programs."""
    values = msgspec.to_builtins(
        {
            "queue": view.queue, "name": view.name, "handler": view.handler, "lane": view.lane,
            "cron": view.repeat.cron, "timeZone": view.repeat.time_zone, "start": view.repeat.start,
            "end": view.repeat.end, "jitterSeconds": view.repeat.jitter_seconds,
            "overlap": view.repeat.overlap, "catchUp": view.repeat.catch_up, "suspended": view.suspended,
            "origin": view.origin, "nextAt": view.next_at, "lastAt": view.last_at, "lastTask": view.last_id,
            "fired": view.fired, "skipped": view.skipped, "problem": view.problem,
            "recent": view.recent,
        }
    )  # fmt: skip
    document = {name: value for name, value in values.items() if value not in (None, "", [])}
    return document | ({"input": msgspec.json.decode(view.input)} if view.input is not None else {})


def _state(view: ScheduleView) -> str:
    if view.suspended:
        return "suspended"
    return "active" if view.next_at is not None else "ended"


SCHEDULES: Final = Listing[ScheduleView](
    (
        Column("queue", lambda view: view.queue),
        Column("name", lambda view: view.name),
        Column("handler", lambda view: view.handler),
        Column("cron", lambda view: view.repeat.cron),
        Column("zone", lambda view: view.repeat.time_zone),
        Column("state", _state),
        Column("next", lambda view: view.next_at),
        Column("last", lambda view: view.last_at),
        Column("fired", lambda view: view.fired, wide=True),
        Column("skipped", lambda view: view.skipped, wide=True),
        Column("overlap", lambda view: view.repeat.overlap.value, wide=True),
        Column("declared", lambda view: view.origin.value, wide=True),
    ),
    name=lambda view: f"{view.queue}/{view.name}",
    document=_document,
    empty="no schedules",
)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", metavar="|".join(_ACTIONS), choices=_ACTIONS)
    parser.add_argument(
        "targets",
        metavar="QUEUE/NAME",
        type=text,
        nargs="+",
        help="schedules; with list, queues; with register, modules or files with @task(cron=...)",
    )
    create = parser.add_argument_group("create")
    create.add_argument("--handler", type=text, metavar="HANDLER", help="handler of the tasks")
    create.add_argument("--input", type=text, metavar="JSON", help="input of the handler")
    create.add_argument(
        "--cron", type=text, metavar="LINE", help="when to run, such as '0 3 * * *', @daily or '@every 10m'"
    )
    create.add_argument("--time-zone", type=text, metavar="ZONE", help="time zone of --cron; UTC by default")
    create.add_argument(
        "--lane",
        type=one_of("a lane", HIGHEST_FIRST),
        metavar="LANE",
        help="lane of the tasks; normal by default",
    )
    create.add_argument(
        "--start", type=_moment, metavar="TIME", help="do not run before this time, such as 2026-01-01T00:00Z"
    )
    create.add_argument("--end", type=_moment, metavar="TIME", help="do not run after this time")
    create.add_argument(
        "--jitter", type=_number, metavar="SECONDS", help="delay each task by a random time up to this"
    )
    create.add_argument(
        "--overlap", type=one_of("a policy", tuple(Overlap)), metavar="POLICY",
        help="if the previous task has not ended: skip (the default), allow, replace",
    )  # fmt: skip
    create.add_argument(
        "--catch-up", type=one_of("a policy", tuple(CatchUp)), metavar="POLICY",
        help="runs that were missed while no worker ran: skip (the default), one, all",
    )  # fmt: skip
    parser.add_argument(
        "--queue", type=text, metavar="QUEUE", help="with register: only handlers of this queue, or of none"
    )
    parser.add_argument("--token", type=text, help="with run-now: run only once for this token")
    format_argument(parser, *Format)
    server_arguments(parser, reads=True)


def _moment(argument: str) -> datetime:
    try:
        return datetime.fromisoformat(argument)
    except ValueError:
        raise Misuse(f"{argument[:40]!r} is not a time", "write 2026-01-01T00:00Z") from None


def _number(argument: str) -> float:
    try:
        return float(argument)
    except ValueError:
        raise Misuse(f"{argument[:40]!r} is not a number of seconds", "use a number, such as 30") from None


async def _run(options: Namespace, terminal: Terminal) -> int:
    _check(options)
    if options.action == "register":
        for target in options.targets:
            import_module(target, terminal.folder)
    async with connected(options, terminal) as client:
        match options.action:
            case "list":
                found = [view for queue in options.targets for view in await client.schedules.list(queue)]
                SCHEDULES.write(found, options.output, terminal)
            case "create":
                await _create(client, options, terminal)
            case "register":
                await _register(client, options, terminal)
            case _:
                return await one_by_one(
                    options.targets, lambda target: _act(client, options, target, terminal), terminal
                )
    return ExitCode.DONE


def _check(options: Namespace) -> None:
    names = ("handler", "input", "cron", "time_zone", "lane", "start", "end", "jitter", "overlap", "catch_up")
    given = [name for name in names if getattr(options, name) is not None]
    if options.action == "create":
        if len(options.targets) > 1:
            raise Misuse("only one schedule can be made at a time", "galley schedule create QUEUE/NAME ...")
        for name in ("handler", "cron"):
            if name not in given:
                raise Misuse(f"--{name} is missing", "name what runs and when: --handler NAME --cron LINE")
    elif given:
        raise Misuse(f"--{given[0].replace('_', '-')} is for create", "galley schedule create QUEUE/NAME ...")
    if options.token is not None and options.action != "run-now":
        raise Misuse("--token is for run-now", "galley schedule run-now QUEUE/NAME --token TEXT")
    if options.queue is not None and options.action != "register":
        raise Misuse("--queue is for register", "name schedules as QUEUE/NAME")
    if options.action not in ("list", "register"):
        for target in options.targets:
            _one(target)


def _one(target: str) -> tuple[str, str]:
    queue, slash, name = target.partition("/")
    if not slash or not name:
        raise Misuse(
            f"{target!r} names no schedule", f"name one: {queue}/NAME; `galley schedule list {queue}`"
        )
    return queue, name


async def _create(client: AsyncClient, options: Namespace, terminal: Terminal) -> None:
    queue, name = _one(options.targets[0])
    call = Call[object](queue, options.handler, _input(options), lane=options.lane)
    repeat = repeat_of(
        options.cron, time_zone=options.time_zone, start=options.start, end=options.end,
        jitter_seconds=options.jitter, overlap=options.overlap and Overlap(options.overlap),
        catch_up=options.catch_up and CatchUp(options.catch_up),
    )  # fmt: skip
    view = await client.schedules.create(name, call, repeat)
    terminal.result(f"schedule/{name}: {_when(view)}")


async def _register(client: AsyncClient, options: Namespace, terminal: Terminal) -> None:
    made = False
    async for view in register(client.schedules, options.queue):
        terminal.result(f"schedule/{view.name}: {_when(view)}")
        made = True
    if not made:
        terminal.say(f"no @task(cron=...) in {', '.join(options.targets)}")


def _input(options: Namespace) -> Raw:
    if options.input is None:
        return NO_INPUT
    try:
        return encode_input(options.handler, json.loads(options.input))
    except (ValueError, RecursionError) as error:
        raise Misuse(f"the input is not JSON: {error}", "quote it for the shell: '{\"name\": 1}'") from None


def _when(view: ScheduleView) -> str:
    if view.suspended:
        return "suspended"
    return f"next at {rfc_3339(view.next_at)}" if view.next_at is not None else "has ended"


async def _act(client: AsyncClient, options: Namespace, target: str, terminal: Terminal) -> None:
    queue, name = _one(target)
    schedules = client.schedules
    match options.action:
        case "show":
            _show(await schedules.get(queue, name), options.output, terminal)
        case "suspend":
            terminal.result(f"schedule/{name}: {_when(await schedules.suspend(queue, name))}")
        case "resume":
            terminal.result(f"schedule/{name}: {_when(await schedules.resume(queue, name))}")
        case "run-now":
            handle = await schedules.run_now(queue, name, options.token or "")
            if handle.existed:
                terminal.say(f"task {queue}/{handle.id} exists already; it is not submitted again")
            terminal.result(handle.id)
        case _:
            origin = (await schedules.get(queue, name)).origin
            await schedules.delete(queue, name)
            terminal.result(f"schedule/{name}: deleted")
            if origin is Origin.CODE:
                terminal.say("a worker that starts with that @task(cron=...) makes it again")
            elif origin is Origin.OBJECT:
                terminal.say(f"the operator makes it again: kubectl delete taskschedule {name}")


def _show(view: ScheduleView, form: Format | None, terminal: Terminal) -> None:
    if form in (Format.JSON, Format.YAML):
        write_document(_document(view), form, terminal)
        return
    for line in _lines(view):
        terminal.result(line)


def _lines(view: ScheduleView) -> Iterator[str]:
    repeat = view.repeat
    fields = {
        "Schedule": view.name, "Queue": view.queue, "Handler": view.handler, "Lane": view.lane.value,
        "Cron": repeat.cron, "Time zone": repeat.time_zone, "State": _state(view), "Problem": view.problem,
        "Next": _time(view.next_at), "Last": _time(view.last_at), "Last task": view.last_id,
        "Start": _time(repeat.start), "End": _time(repeat.end),
        "Overlap": repeat.overlap.value, "Catch-up": repeat.catch_up.value,
        "Jitter": f"{repeat.jitter_seconds:g} s" if repeat.jitter_seconds else "",
        "Fired": str(view.fired), "Skipped": str(view.skipped), "Declared": view.origin.value,
    }  # fmt: skip
    for name, value in fields.items():
        if value:
            yield f"{name + ':':<12}{safe(value)}"
    if view.input is not None:
        yield f"{'Input:':<12}{safe_json(bytes(view.input).decode())}"
    for tick in view.recent:
        many = f" ({tick.count} ticks)" if tick.count > 1 else ""
        what = f"{tick.action}{many}{' ' + tick.id if tick.id else ''}{': ' + tick.why if tick.why else ''}"
        yield f"Tick {rfc_3339(tick.at)}: {safe(what)}"


def _time(moment: datetime | None) -> str:
    return rfc_3339(moment) if moment is not None else ""


command: Final = Command(
    "schedule",
    "Create, list, show, suspend, resume, run, delete and register schedules",
    _arguments,
    _run,
    (
        "galley schedule create texts/nightly --handler word_statistics --cron '0 3 * * *'",
        "galley schedule list texts",
    ),
)
