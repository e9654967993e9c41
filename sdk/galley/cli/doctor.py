"""`galley doctor`: what is wrong with an installation, and what to do about it."""

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from msgspec.structs import replace
from rich.text import Text

from galley.broker import checkup, queue_view
from galley.broker.errors import NotAllowed
from galley.cli.command import Command, text
from galley.cli.errors import NoServer
from galley.cli.exit_code import ExitCode
from galley.cli.output import Format, format_argument, write_document
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import AsyncClient
from galley.doctor import Finding, Level, judge_queue, judge_server, judge_topics, strangers
from galley.errors import GalleyError
from galley.shown import safe
from galley.target import NAMESPACE_VARIABLE

CHECKUPS: Final = "galley.checkups"
"""Entry points of other packages that look at what this one cannot."""
_STYLES: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "queues", metavar="QUEUE", type=text, nargs="*",
        help="only these queues; required with the credentials of a queue",
    )  # fmt: skip
    parser.add_argument(
        "--kubeconfig", metavar="FILE", type=Path,
        help="check this cluster as well; else the one this runs in, else KUBECONFIG, else none",
    )  # fmt: skip
    format_argument(parser, Format.JSON, Format.YAML)
    server_arguments(parser)


async def _run(options: Namespace, terminal: Terminal) -> int:
    findings: list[Finding] = []
    named = options.kubeconfig or terminal.environ.get("KUBECONFIG")
    in_cluster = bool(named) or "KUBERNETES_SERVICE_HOST" in terminal.environ
    try:
        async with connected(options, terminal) as client:
            findings += await _examined(client, options)
    except GalleyError as error:
        if isinstance(error, NoServer) and not in_cluster:
            raise
        findings.append(Finding(Level.FAIL, "connection", str(error), error.hint))
    if in_cluster:
        findings += await _cluster(Path(named) if named else None, options, terminal)
    if options.output is not None:
        write_document([_document(each) for each in findings], options.output, terminal)
    else:
        for finding in findings:
            _show(finding, terminal)
    failed = any(finding.level is Level.FAIL for finding in findings)
    return ExitCode.FAILED if failed else ExitCode.DONE


async def _cluster(kubeconfig: Path | None, options: Namespace, terminal: Terminal) -> list[Finding]:
    """Return what the operator's package finds in the cluster; this one does not speak to API servers."""
    [*found] = metadata.entry_points(group=CHECKUPS)
    try:
        examine = found[0].load()
    except (IndexError, ImportError):
        what = "not looked at: the package of the operator is not there"
        return [Finding(Level.WARN, "cluster", what, "pip install 'galley-tasks[operator]'")]
    namespace = options.namespace or terminal.environ.get(NAMESPACE_VARIABLE) or "default"
    result: list[Finding] = await examine(kubeconfig, namespace)
    return result


async def _examined(client: AsyncClient, options: Namespace) -> list[Finding]:
    broker, namespace = client.broker, client.namespace
    facts = await checkup.server_facts(broker, options.credentials)
    findings: list[Finding] = []
    views: list[queue_view.QueueView] = []
    try:
        if not options.queues:
            views = await queue_view.queues(broker, namespace)
    except NotAllowed:
        findings.append(
            Finding(
                Level.WARN, "queues", "these credentials do not list queues", "name one: galley doctor QUEUE"
            )
        )
    for name in options.queues:
        try:
            views.append(await queue_view.queue(broker, namespace, name))
        except GalleyError as error:
            findings.append(Finding(Level.FAIL, f"queue {name}", str(error), error.hint))
    if views:
        asked = await checkup.server_time(broker, namespace, views[0].queue)
        facts = replace(facts, server_now=asked, now=datetime.now(UTC)) if asked else facts
    elif not findings:
        findings.append(
            Finding(
                Level.WARN, "queues", f"namespace {namespace} has none",
                "apply a TaskQueue, or name another namespace: -n NAMESPACE",
            )
        )  # fmt: skip
    heard = await checkup.workers_heard(broker, namespace)
    for view in views:
        findings += judge_queue(await checkup.queue_facts(broker, view, heard))
    if not options.queues and (topics := await checkup.topic_facts(broker, namespace)) is not None:
        findings += judge_topics(topics)
    if heard is not None and not options.queues:
        findings += strangers({view.queue for view in views}, set(heard))
    return [*judge_server(facts), *findings]


def _show(finding: Finding, terminal: Terminal) -> None:
    hint = f"; {finding.hint}" if finding.hint else ""
    line = Text(f"{finding.level:<5}", style=_STYLES[finding.level])
    line.append(" ".join(safe(f"{finding.check}: {finding.message}{hint}").split()), style="default")
    if terminal.interactive:
        terminal.console(100_000).print(line)
    else:
        terminal.result(line.plain)


def _document(finding: Finding) -> dict[str, str]:
    document = {"level": finding.level.value, "check": finding.check, "message": finding.message}
    return document | ({"hint": finding.hint} if finding.hint else {})


command: Final = Command(
    "doctor",
    "Check an installation, and say how to fix what is wrong",
    _arguments,
    _run,
    ("galley doctor", "galley doctor images -o json"),
)
