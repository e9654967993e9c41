"""Finds the server and the namespace a command is about."""

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from galley.cli import dev_file
from galley.cli.errors import NoServer
from galley.cli.terminal import Terminal
from galley.client import DEFAULT_NAMESPACE, Client, connect


class Target(NamedTuple):
    """Whom a command talks to, and about which namespace."""

    server: str
    namespace: str


def server_arguments(parser: ArgumentParser) -> None:
    """Declare the options every command has that talks to a server."""
    parser.add_argument(
        "--server", metavar="URL",
        help="NATS server; else GALLEY_SERVER, else the `galley dev` of this folder or one above",
    )  # fmt: skip
    namespace_argument(parser)


def namespace_argument(parser: ArgumentParser) -> None:
    """Declare `-n`."""
    parser.add_argument(
        "-n", "--namespace", metavar="NAME",
        help="namespace of the queue; else GALLEY_NAMESPACE, else that of `galley dev`, else `default`",
    )  # fmt: skip


def find_target(options: Namespace, terminal: Terminal) -> Target:
    """Return whom to talk to: what the options say, else the environment, else a `galley dev` nearby.

    Raises:
        NoServer: if nothing says so, or the `galley dev` that did has ended.
    """
    environ = terminal.environ
    server = options.server or environ.get("GALLEY_SERVER")
    namespace = options.namespace or environ.get("GALLEY_NAMESPACE")
    found = dev_file.nearest(terminal.folder)
    if server is None:
        if found is None:
            raise NoServer("no server is named, and no `galley dev` runs in this folder or one above it")
        path, dev = found
        if not dev.alive:
            raise NoServer(f"the `galley dev` of {path.parent.parent} (process {dev.pid}) is not running")
        server = dev.server
    if namespace is None:
        ours = found is not None and found[1].server == server
        namespace = found[1].namespace if ours and found is not None else DEFAULT_NAMESPACE
    return Target(server, namespace)


@asynccontextmanager
async def connected(options: Namespace, terminal: Terminal) -> AsyncIterator[Client]:
    """Lend a client of the server and namespace the command is about.

    Raises:
        NoServer: if there is none to talk to.
        BrokerUnreachable, BrokerTooOld: if it cannot be talked to.
    """
    target = find_target(options, terminal)
    async with connect(target.server, target.namespace) as client:
        yield client
