"""`galley why`: why a queue has the workers it has, and which limits and keys its tasks wait for."""

from argparse import ArgumentParser, Namespace
from typing import Final

from galley.broker import queue_view
from galley.broker.control import Pause, Supply, ask_supply
from galley.broker.queue_shares import LimitUse, limit_use
from galley.broker.queue_view import QueueView, pauses_of
from galley.broker.waiting_keys import WaitingKeys, waiting_keys
from galley.cli.command import Command, text
from galley.cli.exit_code import ExitCode
from galley.cli.output import Format, format_argument, write_document
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal

PAUSED: Final = "`galley pause` holds it, so no task is started; `galley resume` ends that"
_NOTHING: Final = "nothing scales it: neither an operator nor `galley dev` answers for it"


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE", type=text)
    format_argument(parser, Format.JSON, Format.YAML)
    server_arguments(parser, reads=True)


async def _run(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        # Of a queue that does not exist, this says so.
        view = await queue_view.queue(client.broker, client.namespace, options.queue)
        supply = await ask_supply(client.broker, client.namespace, view.queue)
        keys = await waiting_keys(client.broker, client.namespace, view.queue)
        limit = await limit_use(client.broker, client.namespace, view.queue)
    if options.output is not None:
        write_document(_document(view, supply, keys, limit), options.output, terminal)
        return ExitCode.DONE
    for sentence in [*_sentences(view, supply), *limit.sentences, *filter(None, [keys.sentence])]:
        terminal.result(f"{view.queue}: {sentence}")
    return ExitCode.DONE


def _sentences(view: QueueView, supply: Supply | None) -> list[str]:
    """Return what is said of a queue; what pauses it comes first, since it explains the number of workers."""
    first = [PAUSED] if view.paused else []
    if supply is None:
        return [*first, _NOTHING]
    first += [said for pause, said in supply.paused_by.items() if pause is not Pause.COMMAND]
    problem = [supply.problem] if supply.problem and not first else []
    wrong = [supply.scaling_problem] if supply.scaling_problem else []
    return [*first, _sentence(supply), *wrong, *problem]


def _sentence(supply: Supply) -> str:
    if not supply.scaling:
        return "nothing has been decided yet"
    there = supply.workers
    ready = f" ({there['ready']} of {there['present']} ready)" if there.get("present") else ""
    return f"{supply.scaling}{ready}"


def _document(
    view: QueueView, supply: Supply | None, keys: WaitingKeys, limit: LimitUse
) -> dict[str, object]:
    document: dict[str, object] = {
        "queue": view.queue,
        "pausedBy": pauses_of(paused=view.paused, supply=supply),
    }
    if limit.sentences:
        document["limitedBy"] = list(limit.sentences)
    if keys.tasks:
        document["waitingUnderKeys"] = {
            "tasks": keys.tasks,
            "read": keys.read,
            "keys": [
                {
                    "key": each.key, "waiting": each.waiting, "waitsFor": each.reason,
                    "running": list(each.running),
                }
                for each in keys.keys
            ],
        }  # fmt: skip
    if supply is None:
        return document | {"reason": _NOTHING}
    document |= {"reason": supply.scaling, "problem": supply.problem, "workers": supply.workers}
    return document | ({"scalingProblem": supply.scaling_problem} if supply.scaling_problem else {})


command: Final = Command(
    "why",
    "Explain a queue's number of workers, and what its tasks wait for",
    _arguments,
    _run,
    ("galley why images", "galley why images -o json"),
)
