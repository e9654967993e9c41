"""`galley publish`: an event for all queues that subscribe to a topic."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, Final

import msgspec

from galley.cli.command import Command, text
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.event import DEFAULT_TYPE, Attribute
from galley.shown import safe


def _attribute(word: str) -> tuple[str, Attribute]:
    name, sign, value = word.partition("=")
    if not sign:
        raise Misuse(f"{word!r} is no attribute", "write NAME=VALUE, such as --attribute region=eu")
    if value in ("true", "false"):
        return name, value == "true"
    digits = value.removeprefix("-")
    return name, int(value) if digits.isascii() and digits.isdigit() else value


def _header(word: str) -> tuple[str, str]:
    name, sign, value = word.partition(":")
    if not sign:
        raise Misuse(f"{word!r} is no header", "write NAME:VALUE, such as --header 'ce-type: order.paid'")
    return name, value


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("topic", metavar="TOPIC", type=text)
    parser.add_argument(
        "--data", type=text, metavar="JSON", help="the event's data, which handlers get as their input"
    )
    parser.add_argument(
        "--attribute", dest="attributes", type=text, action="append", default=[], metavar="NAME=VALUE",
        help="an attribute for filters; may be repeated. Whole numbers, true and false are not strings",
    )  # fmt: skip
    parser.add_argument(
        "--key", type=text, default="", metavar="KEY", help="events with the same key keep their order"
    )
    parser.add_argument(
        "--id", type=text, metavar="ID", help="id of the event; publishing it again is the same event"
    )
    parser.add_argument(
        "--type", type=text, default=DEFAULT_TYPE, metavar="TYPE", help="type of the CloudEvent"
    )
    parser.add_argument("--source", type=text, default="", metavar="SOURCE", help="source of the CloudEvent")
    parser.add_argument(
        "--cloudevent", type=Path, metavar="FILE",
        help="file with a CloudEvent as JSON, instead of the options above; with --header, only its data",
    )  # fmt: skip
    parser.add_argument(
        "--header", dest="headers", type=text, action="append", default=[], metavar="NAME:VALUE",
        help="an attribute of the CloudEvent in binary mode, such as 'ce-type: order.paid'; may be repeated",
    )  # fmt: skip
    server_arguments(parser)


async def _run(options: Namespace, terminal: Terminal) -> int:
    if options.headers and options.cloudevent is None:
        raise Misuse("--header needs --cloudevent FILE", "the file has the data of the event")
    if options.cloudevent is not None:
        headers = dict(map(_header, options.headers)) or None
        body = _read(options.cloudevent)
        async with connected(options, terminal) as client:
            published = await client.topics.publish_cloudevent(options.topic, body, headers)
    else:
        data = _data(options.data)
        attributes = dict(map(_attribute, options.attributes))
        async with connected(options, terminal) as client:
            published = await client.topics.publish(
                options.topic, data, attributes, key=options.key, event_id=options.id,
                event_type=options.type, source=options.source,
            )  # fmt: skip
    terminal.result(safe(f"{published.topic}/{published.id}"))
    return ExitCode.DONE


def _data(given: str | None) -> Any:
    if given is None:
        return None
    try:
        return msgspec.json.decode(given)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Misuse(f"--data is not JSON: {error}", "such as --data '{\"order\": 7}'") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise Misuse(f"{path} cannot be read: {problem}", "check the path") from None


command: Final = Command(
    "publish",
    "Publish an event to a topic",
    _arguments,
    _run,
    (
        "galley publish orders --data '{\"order\": 7}' --attribute region=eu",
        "galley publish orders --cloudevent event.json",
    ),
)
