"""`galley show`: all details of one task, or a workflow with its steps."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from galley.broker import dead_letters
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.records import Records
from galley.cli.command import Command
from galley.cli.command import text as text_argument
from galley.cli.documents import task_document
from galley.cli.errors import NoSuchTask
from galley.cli.exit_code import ExitCode
from galley.cli.labels import labels_shown
from galley.cli.output import (
    Format,
    duration,
    format_argument,
    in_words,
    rfc_3339,
    write_document,
)
from galley.cli.server import connected, server_arguments
from galley.cli.task_reference import find_task, find_workflow
from galley.cli.terminal import Terminal
from galley.cli.workflow import show as show_workflow
from galley.dead_letter import NO_TASK
from galley.encryption import DecryptionKeyMissing, EncryptionError
from galley.envelope import shown_input
from galley.errors import EnvelopeInvalid, TaskNotFound
from galley.handle import AsyncHandle
from galley.record import Outcome, Record, Stored
from galley.shown import safe_json
from galley.task_status import Phase, TaskStatus


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("task", metavar="ID|QUEUE/ID", type=text_argument, help="id of a task or workflow")
    format_argument(parser, Format.JSON, Format.YAML)
    server_arguments(parser, reads=True)


async def _run(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        try:
            status = await find_task(client, options.task)
        except (TaskNotFound, NoSuchTask):
            flow = await find_workflow(client, options.task)
            if flow is None:
                raise
            await show_workflow(flow, options.output, terminal)
            return ExitCode.DONE
        stored = await Records(client.broker).read(status.address)
        if status.phase is Phase.FAILED:
            status = await _with_input(client.broker, status)
        problem = ""
        if status.phase in (Phase.QUEUED, Phase.RETRYING):
            problem = await AsyncHandle(client.broker, status.address, None).worker_problem()
        record, locked = await _opened(client.broker, status, stored)
    if options.output is None:
        for line in _lines(status, record, problem, terminal):
            terminal.result(line)
        if locked is not None:
            terminal.say(f"not shown: {locked}; {locked.hint}")
    else:
        write_document(_document(status, record, problem, locked), options.output, terminal)
    return ExitCode.DONE


def _document(
    status: TaskStatus, record: Record | None, problem: str, locked: EncryptionError | None
) -> dict[str, Any]:
    document = task_document(status)
    if problem:
        document["workerProblem"] = problem
    if locked is not None:
        document["notShown"] = str(locked)
    if record is not None and record.outcome is Outcome.SUCCEEDED and not record.sealed:
        if record.large is None:
            document["result"] = msgspec.json.decode(record.result)
        else:
            document["resultBytes"] = record.large.size
    return document


async def _opened(
    broker: Broker, status: TaskStatus, stored: Stored | None
) -> tuple[Record | None, EncryptionError | None]:
    """Return the record, and why it or the task's message cannot be decrypted, if so."""
    if stored is not None:
        try:
            return await broker.payloads.outcome(status.address, stored.record), None
        except EncryptionError as error:
            return stored.record, error
    if status.encrypted_with:
        return None, DecryptionKeyMissing(
            f"task {status.address.queue}/{status.address.id}", status.encrypted_with, ""
        )
    return None, None


async def _with_input(broker: Broker, status: TaskStatus) -> TaskStatus:
    """Return the status of a failed task with its input, which only its dead letter has."""
    kept = None
    with suppress(BrokerError):  # only a manager may read dead letters
        kept = await dead_letters.read(broker, status.address)
    if kept is None or kept.letter.envelope == NO_TASK:
        return status
    with suppress(EnvelopeInvalid):
        envelope = await broker.payloads.look_at_task(status.address, bytes(kept.letter.envelope))
        return status if envelope.sealed else replace(status, input=shown_input(envelope))
    return status


def _lines(status: TaskStatus, record: Record | None, problem: str, terminal: Terminal) -> Iterator[str]:
    def at(moment: datetime | None) -> str:
        if moment is None:
            return ""
        return (
            f"{rfc_3339(moment)}  ({in_words(moment, terminal.now())})"
            if terminal.interactive
            else rfc_3339(moment)
        )

    fields = {
        "Task": status.address.id,
        "Queue": status.address.queue,
        "Namespace": status.address.namespace,
        "Handler": status.handler,
        "Lane": status.address.lane.value,
        "Key": status.key,
        "Labels": labels_shown(status.labels),
        "Phase": status.phase.value,
        "Attempt": str(status.attempt or ""),
        "Worker": status.worker,
        "Progress": str(status.progress or ""),
        "Submitted": at(status.submitted_at),
        "Retry at" if status.phase is Phase.RETRYING else "Due": at(status.due_at),
        "Started": at(status.started_at),
        "Ended": at(status.ended_at),
        "Took": _took(status),
        "Deadline": at(status.deadline),
        "Encrypted": f"with key {status.encrypted_with}" if status.encrypted_with else "",
        "Waiting": problem or status.waits,
    }
    for name, text in fields.items():
        if text:
            yield f"{name + ':':<11}{text}"
    if bytes(status.input) not in (b"", b"{}"):
        yield "Input:"
        yield from _indented(safe_json(msgspec.json.format(bytes(status.input), indent=2).decode()))
    yield from _outcome(status, record)
    yield from _past(status)


def _took(status: TaskStatus) -> str:
    if status.started_at is None or status.ended_at is None:
        return ""
    seconds = (status.ended_at - status.started_at).total_seconds()
    return duration(seconds) if seconds >= 60 else f"{seconds:.3f}s"


def _outcome(status: TaskStatus, record: Record | None) -> Iterator[str]:
    if record is not None and record.outcome is Outcome.SUCCEEDED and not record.sealed:
        if record.large is not None:
            command = f"galley result {status.address.queue}/{status.address.id}"
            yield f"Result:    {record.large.size} bytes; `{command}` prints it"
            return
        yield "Result:"
        yield from _indented(safe_json(msgspec.json.format(bytes(record.result), indent=2).decode()))
    if status.failure is not None:
        yield f"Failure:   {status.failure.reason}"
        yield from _indented(status.failure.message)
        yield from _indented(status.failure.traceback)


def _past(status: TaskStatus) -> Iterator[str]:
    history = status.history
    if not history.attempts:
        return
    kinds = (
        (history.errors, "error", "errors"),
        (history.crashes, "crash", "crashes"),
        (history.preemptions, "preemption", "preemptions"),
    )
    counts = ", ".join(f"{number} {one if number == 1 else more}" for number, one, more in kinds if number)
    yield f"Attempts without a result ({counts}):"
    for attempt in history.attempts:
        yield (
            f"  {attempt.number}  {attempt.ended_by.value:<11}"
            f"{rfc_3339(attempt.ended_at)}  {attempt.worker}  {attempt.reason}"
            + (f" (with all {attempt.batch} tasks of its batch)" if attempt.batch else "")
        )
        yield from _indented(attempt.message, 5)
        if status.failure is None or attempt is not history.attempts[-1]:
            # That of the last one stands with the failure.
            yield from _indented(attempt.traceback, 7)


def _indented(text: str, by: int = 2) -> Iterator[str]:
    for line in text.splitlines():
        yield " " * by + line


command: Final = Command(
    "show",
    "Show one task: its state, input, result or failure, and previous attempts; or draw a workflow",
    _arguments,
    _run,
    ("galley show thumbnail-hills", "galley show images/thumbnail-of-a-poem -o yaml"),
)
