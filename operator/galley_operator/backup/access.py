"""What both commands need: the destination, the keys, a connection to NATS, and the cluster.

What talks to a cluster is imported when there is one: the help and the completions of `galley` import each
command.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from galley.backup.destination import Destination, destination_at
from galley.backup.objects import Objects
from galley.backup.sealing import Key, read_key
from galley.broker.connection import Broker
from galley.broker.identity import Source
from galley.cli.command import text
from galley.cli.errors import Misuse
from galley.cli.server import CONNECTION, find_target, tls_arguments, tls_for
from galley.cli.terminal import Terminal
from galley.target import CREDENTIALS_VARIABLE

if TYPE_CHECKING:
    from galley_operator.cluster.client import Cluster

KEY_VARIABLE: Final = "GALLEY_BACKUP_KEY_FILE"


@dataclass(frozen=True, slots=True)
class Access:
    """An open connection to NATS, and the objects of a cluster."""

    broker: Broker
    objects: Objects | None
    """None if there is no cluster to ask."""


def archive_arguments(parser: ArgumentParser) -> None:
    """Declare the options about archives."""
    parser.add_argument(
        "--key-file", metavar="FILE", type=Path, action="append", default=[],
        help="key of the archives: 32 bytes, plain or in base64; else GALLEY_BACKUP_KEY_FILE. If given "
        "several times, the first one encrypts, and any can decrypt",
    )  # fmt: skip


def access_arguments(parser: ArgumentParser) -> None:
    """Declare the options about NATS and the cluster."""
    group = parser.add_argument_group(CONNECTION)
    group.add_argument(
        "--server", metavar="URL", type=text,
        help="NATS server; else GALLEY_SERVER, else the `galley dev` of this folder or one above",
    )  # fmt: skip
    group.add_argument(
        "--credentials", metavar="FILE", type=Path,
        help="credentials file for NATS; else GALLEY_CREDENTIALS",
    )  # fmt: skip
    group.add_argument(
        "--auth-secret", metavar="NAMESPACE/NAME", type=_secret,
        help="instead of --credentials: the Secret with the keys of NATS, if you are allowed to read it "
        "(galley-system/galley-nats-auth)",
    )  # fmt: skip
    tls_arguments(group)
    group.add_argument(
        "--kubeconfig", metavar="FILE", type=Path,
        help="cluster with the TaskQueues and Tasks; else the one this runs in, else KUBECONFIG, else none",
    )  # fmt: skip


def _secret(argument: str) -> tuple[str, str]:
    namespace, _, name = text(argument).partition("/")
    if not namespace or not name:
        raise Misuse(f"{argument[:80]!r} is not NAMESPACE/NAME", "such as galley-system/galley-nats-auth")
    return namespace, name


def destination_of(options: Namespace, terminal: Terminal) -> Destination:
    """Return the destination of a command.

    Raises:
        DestinationInvalid: if it is none.
    """
    place = options.destination
    return destination_at(place if "://" in place else str(terminal.folder / place), terminal.environ)


def keys_of(options: Namespace, terminal: Terminal) -> list[Key]:
    """Return the keys of a command.

    Raises:
        Misuse: if there is none.
        BackupKeyInvalid: if one cannot be used.
    """
    files = options.key_file or [Path(named) for named in (terminal.environ.get(KEY_VARIABLE),) if named]
    if not files:
        raise Misuse(
            "there is no key for archives",
            "name its file: --key-file FILE; openssl rand -base64 32 makes one",
        )
    return [read_key(terminal.folder / each) for each in files]


@asynccontextmanager
async def accessed(options: Namespace, terminal: Terminal, name: str) -> AsyncIterator[Access]:
    """Yield what a command works with.

    Args:
        options: of the command.
        terminal: of the command.
        name: what the connection is called on the server.

    Raises:
        NoServer: if no NATS server is known.
        BrokerError: if it cannot be used.
        ClusterError: if the cluster cannot be used.
    """
    async with AsyncExitStack() as opened:
        cluster, objects = None, None
        if has_cluster(options, terminal.environ):
            cluster, objects = await _open_cluster(options, opened)
        elif options.auth_secret:
            raise Misuse("--auth-secret needs a cluster", "name it with --kubeconfig or KUBECONFIG")
        else:
            terminal.say("no cluster is named (--kubeconfig): streams only, no TaskQueues and Tasks")
        target = find_target(_for_target(options), terminal)
        credentials = None if target.local else await _credentials(options, terminal, cluster)
        tls = tls_for(options, terminal, target)
        broker = Broker(target.server, name=name, credentials=credentials, tls=tls)
        await opened.enter_async_context(broker)
        yield Access(broker, objects)


async def _open_cluster(options: Namespace, opened: AsyncExitStack) -> "tuple[Cluster, Objects]":
    from galley_operator.backup.cluster_objects import ClusterObjects  # noqa: PLC0415 - see above
    from galley_operator.cluster.client import Cluster  # noqa: PLC0415
    from galley_operator.cluster.config import load_config  # noqa: PLC0415

    cluster = await opened.enter_async_context(Cluster(load_config(options.kubeconfig)))
    return cluster, ClusterObjects(cluster)


def has_cluster(options: Namespace, environ: Mapping[str, str]) -> bool:
    """Return whether a cluster is named, or this runs in one."""
    return bool(options.kubeconfig or environ.get("KUBECONFIG") or "KUBERNETES_SERVICE_HOST" in os.environ)


def _for_target(options: Namespace) -> Namespace:
    return Namespace(server=options.server, namespace=None)


async def _credentials(options: Namespace, terminal: Terminal, cluster: "Cluster | None") -> Source | None:
    if options.auth_secret:
        assert cluster is not None
        from galley_operator.credentials.key_secret import keys_in  # noqa: PLC0415 - see above

        keys = await keys_in(cluster, *options.auth_secret, make=False)
        return lambda: keys.account.credentials("galley restore", None, valid_seconds=3600)
    named = options.credentials or terminal.environ.get(CREDENTIALS_VARIABLE)
    return terminal.folder / named if named else None
