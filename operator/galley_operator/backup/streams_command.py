"""`galley streams`: in how many copies the servers of NATS keep each stream."""

from argparse import ArgumentParser, Namespace
from typing import Any, Final

import msgspec

from galley.broker.copies import Copies, copies, set_replicas
from galley.cli.command import Command, text
from galley.cli.exit_code import ExitCode
from galley.cli.output import Column, Format, Listing, format_argument
from galley.cli.terminal import Terminal
from galley_operator.backup.access import access_arguments, accessed


def _document(found: Copies) -> dict[str, Any]:
    return {**msgspec.to_builtins(found), "complete": found.complete}


STREAMS: Final = Listing[Copies](
    (
        Column("stream", lambda found: found.stream),
        Column("namespace", lambda found: found.namespace, wide=True),
        Column("messages", lambda found: found.messages),
        Column("copies", lambda found: found.replicas),
        Column("leader", lambda found: found.leader or None),
        Column("current", lambda found: ",".join(found.current) or None),
        Column("behind", lambda found: ",".join(found.behind) or None),
        Column("change", lambda found: found.change or None),
    ),
    name=lambda found: found.stream,
    document=_document,
    empty="no streams of Galley there",
)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-n", "--namespace", metavar="NAME", type=text, action="append", default=[],
        help="only this namespace; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--replicas", metavar="N", type=int, choices=(1, 3, 5),
        help="set the number of copies of each stream; requires as many servers. Tasks continue meanwhile",
    )  # fmt: skip
    access_arguments(parser)
    format_argument(parser, *Format)


async def _run(options: Namespace, terminal: Terminal) -> int:
    async with accessed(options, terminal, "galley streams") as access:
        if options.replicas is not None:
            changed = await set_replicas(access.broker, options.replicas, options.namespace)
            terminal.say(f"{len(changed)} streams changed to {options.replicas} copies")
            if changed:
                terminal.say("stop no server of NATS before `galley streams` shows no CHANGE any more")
        STREAMS.write(await copies(access.broker, options.namespace), options.output, terminal)
    return ExitCode.DONE


command: Final = Command(
    "streams",
    "Show or change the number of copies of each stream in NATS",
    _arguments,
    _run,
    (
        "galley streams --auth-secret galley-system/galley-nats-auth",
        "galley streams --replicas 3 --credentials admin.creds",
    ),
)
