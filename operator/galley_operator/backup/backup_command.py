"""`galley backup`: takes backups, lists and verifies them."""

from argparse import ArgumentParser, Namespace
from enum import StrEnum
from typing import Any, Final

import msgspec

from galley.backup import catalogue
from galley.backup.archive import Manifest
from galley.backup.catalogue import Entry
from galley.backup.take import Retention, take_backup
from galley.backup.verify import verify_archive
from galley.cli.command import Command, one_of, text
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.output import Column, Format, Listing, format_argument, write_document
from galley.cli.terminal import Terminal
from galley_operator.backup.access import (
    access_arguments,
    accessed,
    archive_arguments,
    destination_of,
    keys_of,
)


class Action(StrEnum):
    """What `galley backup` does."""

    TAKE = "take"
    LIST = "list"
    VERIFY = "verify"


def _document(entry: Entry) -> dict[str, Any]:
    summary = msgspec.to_builtins(entry.summary) if entry.summary is not None else {}
    return {"name": entry.name, "complete": entry.good, "size": entry.size, **summary}


ARCHIVES: Final = Listing[Entry](
    (
        Column("name", lambda entry: entry.name),
        Column("taken", lambda entry: entry.summary.taken_at if entry.summary else entry.changed_at),
        Column("complete", lambda entry: "yes" if entry.good else "no"),
        Column("messages", lambda entry: entry.summary.messages if entry.summary else None),
        Column("objects", lambda entry: entry.summary.objects if entry.summary else None),
        Column("size", lambda entry: entry.size),
        Column("galley", lambda entry: entry.summary.galley if entry.summary else None, wide=True),
        Column("sha256", lambda entry: entry.summary.sha256 if entry.summary else None, wide=True),
    ),
    name=lambda entry: entry.name,
    document=_document,
    empty="no archives there",
)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "action", metavar="take|list|verify", type=one_of("an action", tuple(Action)),
        help="take: write an archive; list: show all archives; verify: read an archive and check that it can "
        "be restored",
    )  # fmt: skip
    parser.add_argument(
        "destination", metavar="DESTINATION", type=text, help="a folder, or s3://BUCKET/PREFIX"
    )
    parser.add_argument(
        "archive",
        metavar="ARCHIVE",
        type=text,
        nargs="?",
        help="with verify: name of the archive; the newest complete one by default",
    )
    archive_arguments(parser)
    parser.add_argument(
        "-n", "--namespace", metavar="NAME", type=text, action="append", default=[],
        help="only this namespace; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--keep", metavar="N", type=_positive,
        help="then keep only the newest N complete archives",
    )  # fmt: skip
    parser.add_argument(
        "--keep-days", metavar="DAYS", type=_positive,
        help="then delete archives older than DAYS; the newest complete one is always kept",
    )  # fmt: skip
    access_arguments(parser)
    format_argument(parser, *Format)


def _positive(argument: str) -> int:
    if not argument.isdecimal() or int(argument) < 1:
        raise Misuse(f"{argument[:40]!r} is not a number of at least 1", "such as 7")
    return int(argument)


async def _run(options: Namespace, terminal: Terminal) -> int:
    match options.action:
        case Action.TAKE:
            await _take(options, terminal)
        case Action.VERIFY:
            await _verify(options, terminal)
        case _:
            there = await catalogue.entries(destination_of(options, terminal))
            ARCHIVES.write(there, options.output, terminal)
    return ExitCode.DONE


async def _take(options: Namespace, terminal: Terminal) -> None:
    destination, keys = destination_of(options, terminal), keys_of(options, terminal)
    async with accessed(options, terminal, "galley backup") as access:
        summary, gone = await take_backup(
            access.broker, destination, keys[0], objects=access.objects, namespaces=options.namespace,
            retention=Retention(options.keep, options.keep_days),
        )  # fmt: skip
    if options.output in (Format.JSON, Format.YAML):
        write_document({**msgspec.to_builtins(summary), "deleted": gone}, options.output, terminal)
        return
    seconds = (summary.finished_at - summary.taken_at).total_seconds()
    terminal.result(
        f"{summary.name}: {summary.messages} messages of {summary.streams} streams, "
        f"{summary.objects} objects, {summary.size} bytes, {seconds:.1f} s"
    )
    for name in gone:
        terminal.result(f"{name}: deleted")


async def _verify(options: Namespace, terminal: Terminal) -> None:
    destination, keys = destination_of(options, terminal), keys_of(options, terminal)
    name = await catalogue.find(destination, options.archive or "latest")
    manifest = await verify_archive(destination, name, keys)
    if options.output in (Format.JSON, Format.YAML):
        write_document({"name": name, **msgspec.to_builtins(manifest)}, options.output, terminal)
        return
    for line in lines_of(manifest):
        terminal.say(line)
    messages, objects = sum(each.messages for each in manifest.streams), sum(manifest.objects.values())
    terminal.result(
        f"{name}: good; {messages} messages, {objects} objects, "
        f"taken {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    )


def lines_of(manifest: Manifest) -> list[str]:
    """Return what is in an archive, in lines."""
    lines = [f"stream {each.name}: {each.messages} messages" for each in manifest.streams]
    lines += [f"{kind}: {count}" for kind, count in manifest.objects.items()]
    return lines + [f"needs {each.kind} {each.namespace}/{each.name}" for each in manifest.needs]


command: Final = Command(
    "backup",
    "Write all tasks, records, dead letters, TaskQueues and Tasks into an encrypted archive",
    _arguments,
    _run,
    (
        "galley backup take /backups --key-file backup.key --keep 14",
        "galley backup verify s3://backups/galley --key-file backup.key",
    ),
)
