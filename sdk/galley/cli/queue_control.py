"""`galley pause`, `resume`, `drain` and `purge`: what is done to a queue as a whole."""

from argparse import ArgumentParser, Namespace
from contextlib import suppress
from typing import Final

from galley.broker.control import Pause, ask_supply
from galley.broker.errors import BrokerError
from galley.cli.cancel import cancel_counted
from galley.cli.command import Command, text
from galley.cli.confirm import confirm_argument
from galley.cli.duration import FOREVER, seconds_argument
from galley.cli.exit_code import ExitCode
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import AsyncClient
from galley.queues import WAITING, TaskSelection


def _queues(parser: ArgumentParser) -> None:
    parser.add_argument("queues", metavar="QUEUE", type=text, nargs="+")
    server_arguments(parser)


def _one_queue(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE", type=text)


def _drain_arguments(parser: ArgumentParser) -> None:
    _one_queue(parser)
    parser.add_argument(
        "--within", type=seconds_argument, default=FOREVER, metavar="SECONDS",
        help="wait at most this long for running tasks; without a limit by default",
    )  # fmt: skip
    server_arguments(parser)


def _purge_arguments(parser: ArgumentParser) -> None:
    _one_queue(parser)
    confirm_argument(parser)
    server_arguments(parser)


async def _pause(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        for queue in options.queues:
            await client.queues.pause(queue)
            terminal.result(f"queue/{queue}: paused; galley resume {queue} starts tasks again")
    return ExitCode.DONE


async def _resume(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        for queue in options.queues:
            await client.queues.resume(queue)
            terminal.result(f"queue/{queue}: resumed")
            for still in await _still_paused(client, queue):
                terminal.say(f"queue/{queue}: its tasks are still not started: {still}")
    return ExitCode.DONE


async def _still_paused(client: AsyncClient, queue: str) -> list[str]:
    """Return what pauses a queue beside the command that was just undone, as far as that is known."""
    supply = None
    with suppress(BrokerError):
        supply = await ask_supply(client.broker, client.namespace, queue)
    known = supply.paused_by if supply is not None else {}
    return [said for pause, said in known.items() if pause is not Pause.COMMAND]


async def _drain(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        within = None if options.within == FOREVER else options.within
        await client.queues.drain(options.queue, within)
        terminal.result(f"queue/{options.queue}: paused, and no task runs")
    return ExitCode.DONE


async def _purge(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        meant = await client.queues.find(options.queue, TaskSelection(phases=WAITING))
        return await cancel_counted(client, options.queue, meant, terminal, options)


pause: Final = Command(
    "pause",
    "Pause queues: running tasks continue, new tasks are accepted but not started",
    _queues,
    _pause,
    ("galley pause images", "galley pause images texts"),
)
resume: Final = Command(
    "resume",
    "Resume paused queues",
    _queues,
    _resume,
    ("galley resume images", "galley resume images texts"),
)
drain: Final = Command(
    "drain",
    "Pause queues, and wait until none of their tasks runs",
    _drain_arguments,
    _drain,
    ("galley drain images", "galley drain texts"),
)
purge: Final = Command(
    "purge",
    "Cancel all tasks of a queue that are not running",
    _purge_arguments,
    _purge,
    ("galley purge images --yes", "galley purge texts --yes"),
)
