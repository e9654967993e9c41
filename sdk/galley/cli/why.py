"""`galley why`: why a queue has the workers it has."""

from argparse import ArgumentParser, Namespace
from typing import Final

from galley.broker import inspect
from galley.broker.control import Supply, ask_supply
from galley.cli.command import Command, text
from galley.cli.exit_code import ExitCode
from galley.cli.output import Format, format_argument, write_document
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal

_NOTHING: Final = "nothing scales it: neither an operator nor `galley dev` answers for it"


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE", type=text)
    format_argument(parser, Format.JSON, Format.YAML)
    server_arguments(parser, reads=True)


async def _run(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        # Of a queue that does not exist, this says so.
        view = await inspect.queue(client.broker, client.namespace, options.queue)
        supply = await ask_supply(client.broker, client.namespace, view.queue)
    if options.output is not None:
        write_document(_document(view.queue, supply), options.output, terminal)
        return ExitCode.DONE
    terminal.result(f"{view.queue}: {_sentence(supply)}")
    if supply is not None and supply.problem:
        terminal.result(f"{view.queue}: {supply.problem}")
    return ExitCode.DONE


def _sentence(supply: Supply | None) -> str:
    if supply is None:
        return _NOTHING
    if not supply.scaling:
        return "nothing has been decided yet"
    there = supply.workers
    ready = f" ({there['ready']} of {there['present']} ready)" if there.get("present") else ""
    return f"{supply.scaling}{ready}"


def _document(queue: str, supply: Supply | None) -> dict[str, object]:
    if supply is None:
        return {"queue": queue, "reason": _NOTHING}
    return {
        "queue": queue, "reason": supply.scaling, "problem": supply.problem, "workers": supply.workers,
    }  # fmt: skip


command: Final = Command(
    "why",
    "Explain why a queue has the workers it has",
    _arguments,
    _run,
    ("galley why images", "galley why images -o json"),
)
