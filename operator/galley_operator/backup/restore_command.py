"""`galley restore`: writes an archive into a broker and a cluster."""

from argparse import ArgumentParser, Namespace
from typing import Final

from galley.backup import catalogue
from galley.backup.objects import Made
from galley.backup.restore import Outline, Report, Restore
from galley.cli.command import Command, text
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.terminal import Terminal
from galley_operator.backup.access import (
    access_arguments,
    accessed,
    archive_arguments,
    destination_of,
    keys_of,
)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "destination", metavar="DESTINATION", type=text, help="a folder, or s3://BUCKET/PREFIX"
    )
    parser.add_argument(
        "archive", metavar="ARCHIVE", type=text, nargs="?", default="latest",
        help="name of the archive; `latest`, the default, is the newest complete one",
    )  # fmt: skip
    archive_arguments(parser)
    parser.add_argument(
        "-n", "--namespace", metavar="NAME", type=text, action="append", default=[],
        help="only this namespace of the archive; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--map", metavar="OLD=NEW", type=_mapping, action="append", default=[],
        help="restore namespace OLD as NEW; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--replicas", metavar="N", type=int, choices=(1, 3, 5),
        help="copies of each stream; by default as in the archive. Requires as many servers",
    )  # fmt: skip
    parser.add_argument(
        "--keep-existing",
        action="store_true",
        help="add missing messages to streams that are not empty; existing messages are kept",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, and only say what would happen"
    )
    access_arguments(parser)


def _mapping(argument: str) -> tuple[str, str]:
    old, _, new = text(argument).partition("=")
    if not old or not new:
        raise Misuse(f"{argument[:80]!r} is not OLD=NEW", "such as --map shop=shop-restored")
    return old, new


async def _run(options: Namespace, terminal: Terminal) -> int:
    destination, keys = destination_of(options, terminal), keys_of(options, terminal)
    name = await catalogue.find(destination, options.archive)
    async with accessed(options, terminal, "galley restore") as access:
        restore = Restore(
            access.broker, destination, name, keys, access.objects, dict(options.map), options.namespace,
            options.replicas, options.keep_existing,
        )  # fmt: skip
        outline = await restore.outline()
        _tell(outline, terminal)
        if options.dry_run:
            terminal.result(f"{name}: good; nothing was changed (--dry-run)")
            return ExitCode.DONE
        report = await restore.run(outline)
        _tell_of_buckets(report, terminal)
        terminal.result(_told(report))
    return ExitCode.DONE


def _tell(outline: Outline, terminal: Terminal) -> None:
    for planned in outline.streams:
        terminal.say(f"stream {planned.name}: {planned.plan}, {planned.entry.messages} messages")
    for each in outline.objects:
        if each.there is not Made.SAME:
            terminal.say(f"{each.kind} {each.namespace}/{each.name}: {each.there or 'create'}")
    if outline.ended:
        terminal.say(
            f"{outline.ended} Tasks have ended and are not created again; `galley show` has their outcome"
        )
    if not outline.manifest.objects:
        terminal.say("the archive has no objects of Kubernetes: it was taken without a cluster")
    for need in outline.manifest.needs:
        terminal.say(f"needs {need.kind} {need.namespace}/{need.name}, which is not in the archive")


def _told(report: Report) -> str:
    parts = [f"{report.written} messages written"]
    for count, what in (
        (report.kept, "were there already"),
        (report.left_out, "that NATS does not take left out (see the log; nats.maxPayload)"),
        (report.expired, "records had expired"),
        (report.stranded, "records of tasks begun during the backup left out"),
        (report.created, "objects created"),
    ):
        if count:
            parts.append(f"{count} {what}")
    return f"{report.outline.archive}: restored; {', '.join(parts)}"


def _tell_of_buckets(report: Report, terminal: Terminal) -> None:
    for bucket in sorted(report.buckets):
        terminal.say(
            f"large data of these tasks is in {bucket}, which is not in the archive; it is found there "
            "under NAMESPACE/QUEUE"
        )


command: Final = Command(
    "restore",
    "Restore an archive of `galley backup` into NATS: the same, another cluster or namespace",
    _arguments,
    _run,
    (
        "galley restore /backups --key-file backup.key --dry-run",
        "galley restore /backups latest --key-file backup.key --map shop=shop-restored",
    ),
)
